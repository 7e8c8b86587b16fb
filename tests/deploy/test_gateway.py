import json
import math
import re
import subprocess
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.asking import ask
from deploy.embedded import admin
from deploy.embedded.bootstrap import EnvoyFiles, arguments, bootstrap
from deploy.embedded.gateway import VERSION_HOST, translate
from deploy.embedded.logs import keep_bounded
from deploy.manifests import manifests
from experiments.core import reading
from experiments.core.errors import StackError
from experiments.core.reading import Loaded
from experiments.core.routing import Request, expected_shares, predict_path
from experiments.core.spec import Experiment

HOST = "image-classifier.tf-serving.svc.cluster.local"
NOWHERE = {"resnet50": ["127.0.0.1:1"], "resnet101": ["127.0.0.1:2"]}


@pytest.fixture(scope="module")
def lab():
    return reading.load("lab")


def lab_phase(lab, name):
    return manifests(lab, lab.experiment.phase(name))


def two_arms(route, **phase):
    """The manifests of one phase over the arms a and b."""
    raw = {
        "model": "m",
        "arms": {"a": {"keras": "A"}, "b": {"keras": "B"}},
        "payloads": ["x"],
        "phases": [{"name": "p", "route": route, **phase}],
    }
    loaded = Loaded(Experiment.model_validate(raw), None, None)
    return manifests(loaded, loaded.experiment.phases[0])


def with_http(http, rule=None):
    """The same, with this `spec.http` in the VirtualService and these additions to the DestinationRule."""
    objects = two_arms({"a": 1})
    for each in objects:
        if each["kind"] == "VirtualService":
            each["spec"]["http"] = http
        if each["kind"] == "DestinationRule":
            each["spec"].update(rule or {})
    return objects


def to(arm, **more):
    return {"destination": {"host": "m", "subset": arm, "port": {"number": 8501}}, **more}


# Shape: Istio's own translation, as read in its route.go and cluster builder


def routes_of(configuration):
    (routes,) = configuration.routes["resources"]
    vhost, _ = routes["virtual_hosts"]
    return vhost["routes"]


def test_focused_routing_has_the_shape_of_istios_translation(lab):
    configuration = translate(lab_phase(lab, "focused"), NOWHERE)
    (routes,) = configuration.routes["resources"]
    assert (routes["name"], routes["validate_clusters"], routes["ignore_port_in_host_matching"]) == (
        "http.80",
        False,
        True,
    )
    vhost, version = routes["virtual_hosts"]
    assert version["domains"] == [VERSION_HOST]
    assert (vhost["name"], vhost["domains"], vhost["include_request_attempt_count"]) == ("*:80", ["*"], True)
    canary, rest = vhost["routes"]
    assert canary["match"] == {
        "prefix": "/",
        "case_sensitive": True,
        "headers": [{"name": "user-group", "string_match": {"exact": "canary"}}],
    }
    assert canary["route"]["cluster"] == f"outbound|8501|resnet101|{HOST}"
    assert rest["match"] == {"prefix": "/"}
    assert rest["route"]["cluster"] == f"outbound|8501|resnet50|{HOST}"
    assert rest["route"]["timeout"] == "0s"
    retry = rest["route"]["retry_policy"]
    assert retry["retry_on"] == "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
    assert (retry["num_retries"], retry["host_selection_retry_max_attempts"]) == (2, "5")


def test_weights_are_weighted_clusters_and_zeros_are_dropped(lab):
    (split,) = routes_of(translate(lab_phase(lab, "split"), NOWHERE))
    clusters = split["route"]["weighted_clusters"]["clusters"]
    assert [(cluster["name"], cluster["weight"]) for cluster in clusters] == [
        (f"outbound|8501|resnet50|{HOST}", 70),
        (f"outbound|8501|resnet101|{HOST}", 30),
    ]
    assert clusters[1]["response_headers_to_add"] == [
        {
            "header": {"key": "x-splitproof-route", "value": "split/resnet101"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    ]
    (dark,) = routes_of(translate(lab_phase(lab, "all-to-baseline"), NOWHERE))
    assert [each["name"] for each in dark["route"]["weighted_clusters"]["clusters"]] == [
        f"outbound|8501|resnet50|{HOST}"
    ]


def addresses(configuration):
    return {
        cluster["name"]: [
            endpoint["endpoint"]["address"]["socket_address"]["port_value"]
            for endpoint in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        ]
        for cluster in configuration.clusters["resources"]
    }


def test_clusters_hold_the_pods_that_the_labels_select(lab):
    assert addresses(translate(lab_phase(lab, "split"), NOWHERE)) == {
        f"outbound|8501||{HOST}": [1, 2],
        f"outbound|8501|resnet50|{HOST}": [1],
        f"outbound|8501|resnet101|{HOST}": [2],
    }
    assert addresses(translate(lab_phase(lab, "baseline-alone"), NOWHERE)) == {f"outbound|8501||{HOST}": [1]}


def test_a_label_that_no_pod_has_leaves_a_subset_without_endpoints():
    objects = two_arms({"a": 1, "b": 1})
    rule = next(each for each in objects if each["kind"] == "DestinationRule")
    rule["spec"]["subsets"][1]["labels"] = {"version": "bb"}
    found = addresses(translate(objects, {"a": ["h:1"], "b": ["h:2"]}))
    assert found["outbound|8501|b|m.tf-serving.svc.cluster.local"] == []


def test_a_load_balancer_that_a_rule_names_is_used():
    policy = {"trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN"}}}
    found = translate(with_http([{"route": [to("a")]}], policy), {"a": [], "b": []}).clusters["resources"]
    assert {cluster["lb_policy"] for cluster in found} == {"ROUND_ROBIN"}
    plain = translate(two_arms({"a": 1}), {}).clusters["resources"]
    assert {cluster["lb_policy"] for cluster in plain} == {"LEAST_REQUEST"}


def test_timeouts_retries_names_and_header_operations_are_carried_over():
    http = {
        "name": "main",
        "match": [{"name": "only", "uri": {"prefix": "/v1"}}],
        "timeout": "1m30s",
        "retries": {"attempts": 3, "perTryTimeout": "500ms", "retryOn": "503,reset"},
        "headers": {"request": {"add": {"x-a": "1"}, "remove": ["x-b"]}},
        "route": [to("a", headers={"response": {"set": {"x-c": "2"}}})],
    }
    (found,) = routes_of(translate(with_http([http]), {}))
    assert found["name"] == "main.only"
    assert found["route"]["timeout"] == "90s"
    retry = found["route"]["retry_policy"]
    assert (retry["num_retries"], retry["per_try_timeout"]) == (3, "0.5s")
    assert (retry["retry_on"], retry["retriable_status_codes"]) == ("reset,retriable-status-codes", [503])
    assert found["request_headers_to_add"][0]["append_action"] == "APPEND_IF_EXISTS_OR_ADD"
    assert found["request_headers_to_remove"] == ["x-b"]
    assert found["response_headers_to_add"][0]["header"] == {"key": "x-c", "value": "2"}


def test_no_attempts_means_no_retries():
    (found,) = routes_of(translate(with_http([{"retries": {"attempts": 0}, "route": [to("a")]}]), {}))
    assert "retry_policy" not in found["route"]


def test_nothing_follows_a_catch_all():
    # Istio's route.go: "we will never go beyond this match".
    everything = [{"route": [to("a")]}, {"match": [{"headers": {"k": {}}}], "route": [to("b")]}]
    assert len(routes_of(translate(with_http(everything), {}))) == 1
    by_prefix = [{"match": [{"uri": {"prefix": "/"}}], "route": [to("a")]}, {"route": [to("b")]}]
    assert len(routes_of(translate(with_http(by_prefix), {}))) == 1


# Refusals


def refused(http, rule=None):
    with pytest.raises(StackError) as refusal:
        translate(with_http(http, rule), {})
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"mirror": {"host": "m"}}, "VirtualService m: spec.http[0].mirror"),
        ({"fault": {"abort": {}}}, "spec.http[0].fault"),
        ({"match": [{"queryParams": {}}]}, "spec.http[0].match[0].queryParams"),
        ({"match": [{"uri": {"exact": "/", "prefix": "/"}}]}, "match[0].uri: must be exactly one of"),
        ({"retries": {"attempts": 1, "backoff": "1s"}}, "spec.http[0].retries.backoff"),
        ({"timeout": "soon"}, "timeout == 'soon', must be a duration"),
        ({"route": [to("a", weight=0), to("b", weight=0)]}, "total destination weight == 0"),
        ({"route": [to("a", weight=-30), to("b", weight=130)]}, "weight == -30, must be 0 or more"),
        ({"route": [{"destination": {"host": "other", "port": {"number": 8501}}}]}, "host == 'other'"),
        ({"route": [{"destination": {"host": "m", "port": {"number": 8500}}}]}, "port.number == 8500"),
        ({"headers": {"response": {"rename": {}}}}, "headers.response.rename"),
    ],
)
def test_what_the_gateway_does_not_do_is_refused_by_name(extra, named):
    assert named in refused([{"route": [to("a")], **extra}])


def test_sticky_sessions_are_refused_since_they_would_not_be_sticky():
    policy = {"trafficPolicy": {"loadBalancer": {"consistentHash": {"httpHeaderName": "x"}}}}
    assert "loadBalancer.consistentHash" in refused([{"route": [to("a")]}], policy)


def test_other_objects_are_refused_by_kind():
    objects = [*two_arms({"a": 1}), {"kind": "EnvoyFilter", "metadata": {"name": "f"}}]
    with pytest.raises(StackError, match="EnvoyFilter f: the embedded gateway does not honour a EnvoyFilter"):
        translate(objects, {})


def test_a_virtual_service_that_is_bound_to_another_gateway_is_refused():
    objects = two_arms({"a": 1})
    objects[-1]["spec"]["gateways"] = ["elsewhere"]
    with pytest.raises(StackError, match=r"spec\.gateways must name 'm-gateway'"):
        translate(objects, {})


# A real Envoy


@pytest.mark.parametrize("name", ["quickstart", "lab", "digits", "aa"])
def test_envoy_finds_every_phase_of_the_catalogue_valid(name, tmp_path, envoy_binary):
    loaded = reading.load(name)
    files = EnvoyFiles(tmp_path)
    for path in (files.routes, files.clusters):
        path.parent.mkdir()
    whole = bootstrap(files, 0)
    listener = whole["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"], whole["dynamic_resources"]
    for phase in loaded.experiment.phases:
        found = translate(manifests(loaded, phase), {arm: ["127.0.0.1:1"] for arm in loaded.experiment.arms})
        # As static resources, so that the validation reads them too.
        manager["route_config"] = {k: v for k, v in found.routes["resources"][0].items() if k != "@type"}
        whole["static_resources"]["clusters"] = [
            {k: v for k, v in cluster.items() if k != "@type"} for cluster in found.clusters["resources"]
        ]
        files.bootstrap.write_text(json.dumps(whole))
        ran = subprocess.run(
            [*arguments(envoy_binary, files), "--mode", "validate"], check=False, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        assert "deprecated" not in ran.stderr


def test_without_a_route_every_request_gets_404(gateway):
    assert gateway.arm() == 404


def test_weights_are_kept_and_a_weight_of_zero_gets_nothing(gateway):
    gateway.apply(two_arms({"a": 100, "b": 0}))
    before = gateway.backends["b"].seen
    assert {gateway.arm() for _ in range(300)} == {"a"}
    assert gateway.backends["b"].seen == before
    gateway.apply(two_arms({"a": 70, "b": 30}))
    counts = Counter(gateway.arm() for _ in range(600))
    # Binomial: 6 standard deviations either way.
    assert abs(counts["b"] - 180) < 6 * math.sqrt(600 * 0.7 * 0.3)


def test_the_route_header_names_phase_and_arm_even_where_nobody_answers(gateway):
    gateway.apply(two_arms({"b": 1}))
    assert gateway.ask().headers["x-splitproof-route"] == "p/b"
    address = gateway.backends["b"].address
    objects = two_arms({"b": 1})
    new = translate(objects, {"a": [address], "b": ["127.0.0.1:1"]})
    gateway.put_clusters(new.clusters)
    answer = gateway.ask()
    assert (answer.status, answer.headers["x-splitproof-route"]) == (503, "p/b")


def test_the_service_without_a_destination_rule_reaches_every_endpoint(gateway):
    gateway.apply(two_arms("service"))
    counts = Counter(gateway.arm() for _ in range(100))
    assert set(counts) == {"a", "b"}
    assert gateway.ask().headers["x-splitproof-route"] == "p/*"
    gateway.apply(two_arms("service", arms=["b"]))
    assert {gateway.arm() for _ in range(20)} == {"b"}


def test_failures_of_the_model_are_not_retried(gateway):
    gateway.apply(two_arms({"a": 1}))
    backend = gateway.backends["a"]
    before, backend.status = backend.seen, 503
    try:
        assert gateway.ask().status == 503
    finally:
        backend.status = 200
    assert backend.seen == before + 1


def test_bodies_of_several_megabytes_pass(gateway):
    gateway.apply(two_arms({"a": 1}))
    answer = gateway.ask(method="POST", body=b"x" * 12_000_000)
    assert json.loads(answer.body)["received"] == 12_000_000


def test_our_request_id_reaches_the_model_and_the_access_log(gateway):
    gateway.apply(two_arms({"a": 1}))
    own = "0f5ae262-1fff-4e7d-9000-deb8f04ef278"
    answer = gateway.ask(headers={"x-request-id": own})
    assert json.loads(answer.body)["headers"]["x-request-id"] == own

    def line():
        return [each for each in gateway.files.access_log.read_text().splitlines() if own in each]

    assert admin.wait_for(lambda: bool(line()), 5)
    logged = json.loads(line()[0])
    assert (logged["response_code"], logged["route"], logged["upstream_host"]) == (
        200,
        "p/a",
        gateway.backends["a"].address,
    )
    assert logged["upstream_cluster"] == "outbound|8501|a|m.tf-serving.svc.cluster.local"
    assert re.fullmatch(r"\d{10}\.\d{6}", logged["start_time"])


def test_a_second_envoy_cannot_share_the_port(gateway, tmp_path, envoy_binary):
    port = int(gateway.url.rpartition(":")[2])
    files = EnvoyFiles(tmp_path)
    for path in (files.routes, files.clusters):
        path.parent.mkdir()
        path.write_text('{"resources": []}')
    files.bootstrap.write_text(json.dumps(bootstrap(files, port)))
    ran = subprocess.run(arguments(envoy_binary, files), check=False, capture_output=True, text=True, timeout=20)
    assert ran.returncode != 0
    assert "Address already in use" in ran.stderr


# Envoy's choice is what `routing.expected_shares` says, for whatever routes


NAMES = st.sampled_from(["user-group", "X-Tier", "k"])
VALUES = st.sampled_from(["canary", "Canary", "can", "canary,x", "x", "1"])
PATHS = st.sampled_from(["/v1/models/m:predict", "/v1/models/m", "/V1/models/m:predict", "/v2", "/"])
TEXT = st.one_of(
    VALUES.map(lambda value: {"exact": value}),
    st.sampled_from(["can", "c", "x"]).map(lambda value: {"prefix": value}),
    st.sampled_from(["can.*", ".*", "[cC]anary", "x|1"]).map(lambda value: {"regex": value}),
)
URI = st.one_of(
    PATHS.map(lambda value: {"exact": value}),
    st.sampled_from(["/v1", "/V1/models", "/v"]).map(lambda value: {"prefix": value}),
    st.sampled_from(["/v[12].*", "/v1/models/[a-z]+:predict"]).map(lambda value: {"regex": value}),
)
BLOCK = st.fixed_dictionaries(
    {},
    optional={
        "headers": st.dictionaries(NAMES, st.one_of(TEXT, st.just({})), min_size=1, max_size=2),
        "withoutHeaders": st.dictionaries(
            NAMES, TEXT.filter(lambda match: match != {"regex": ".*"}), min_size=1, max_size=1
        ),
        "uri": URI,
    },
).filter(bool)
ROUTE = st.builds(
    lambda blocks, arm: {"match": blocks, "route": [to(arm)]},
    st.lists(BLOCK, min_size=1, max_size=3),
    st.sampled_from("ab"),
)
REQUEST = st.tuples(PATHS, st.dictionaries(NAMES, VALUES, max_size=3))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rules=st.lists(ROUTE, max_size=4),
    last=st.sampled_from(["a", "b", None]),
    requests=st.lists(REQUEST, min_size=4, max_size=8),
)
def test_envoys_choice_is_the_expected_share(gateway, rules, last, requests):
    http = [*rules, *([{"route": [to(last)]}] if last else [])]
    if not http:
        return
    gateway.apply(with_http(http))
    for path, headers in requests:
        expected = expected_shares(http, Request(path, headers), {"a": "a", "b": "b"}, ["a", "b"]).shares
        certain = 404 if expected is None else max(expected, key=expected.__getitem__)
        assert gateway.arm(path, headers) == certain, (http, path, headers)


def test_the_predict_path_of_the_client_is_the_one_that_is_matched(gateway):
    gateway.apply(with_http([{"match": [{"uri": {"exact": predict_path("m")}}], "route": [to("b")]}]))
    assert gateway.arm(predict_path("m")) == "b"
    assert ask(f"{gateway.url}/v1/models/m").status == 404


def test_the_access_log_is_put_aside_when_it_is_large_and_no_line_is_lost(gateway):
    files = gateway.files

    def logged(path):
        return sum(line.count("/logged/") for line in path.read_text().splitlines()) if path.exists() else 0

    before = logged(files.access_log)
    for number in range(20):
        gateway.ask(f"/logged/{number}")
        if number == 10:
            assert not keep_bounded(files, largest=10**9)
            assert keep_bounded(files, largest=1)
            assert admin.wait_for(files.access_log.exists, 5)
    assert admin.wait_for(lambda: logged(files.access_log) + logged(files.access_log_before) == before + 20, 5)
    assert logged(files.access_log) > 0
