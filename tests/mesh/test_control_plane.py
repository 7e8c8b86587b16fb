"""The manifests on a real API server, checked by istiod's webhook, routed by istiod's own translation."""

import copy

import pytest
from plane import api
from plane.objects import pods, rendered
from plane.traffic import Seen, ask, by_version
from plane.waiting import until
from scipy.stats import binomtest

from experiments.core import reading
from experiments.core.routing import Request, expected_shares, phase_expectations, predict_path

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

PROFILES = ("tutorial", "hardened")
ARMS = {"resnet50": "resnet50", "resnet101": "resnet101"}
PATH = predict_path("image_classifier")
COUNT = 1_000
# One in a million: a true split almost never fails, and a share that is off by 8 points almost always does.
SURPRISE = 1e-6


def of_kind(manifests, kind):
    return next(manifest for manifest in manifests if manifest["kind"] == kind)


def wait_for_route(mesh, reached, within_s=10.0):
    """Until the gateway answers as it should; a route takes a moment from the API server to Envoy."""
    with mesh.inside():
        until(lambda: reached(ask(mesh.gateway_url, 20, PATH)), "the route to take effect", within_s)


def all_answered(seen):
    return all(each.status == 200 for each in seen)


def check_shares(counts, shares):
    total = sum(counts.values())
    assert set(counts) <= {arm for arm, share in shares.items() if share}
    for arm, share in shares.items():
        assert binomtest(counts[arm], total, share).pvalue > SURPRISE, counts


@pytest.mark.parametrize("profile", PROFILES)
def test_every_object_is_accepted_and_every_pod_gets_its_sidecar(mesh, applied, profile):
    manifests = rendered(mesh, "quickstart", "--phase", "split", "--profile", profile)
    applied(manifests)
    with mesh.inside():
        assert {manifest["kind"] for manifest in manifests} >= {"Deployment", "Gateway", "VirtualService"}
        for manifest in manifests:
            assert api.get(mesh.api, manifest)["metadata"]["uid"]
    found = pods(mesh, "tf-serving")
    assert sorted(pod["metadata"]["labels"]["version"] for pod in found) == ["resnet101", "resnet50"]
    for pod in found:
        spec = pod["spec"]
        names = {container["name"] for container in [*spec["containers"], *spec["initContainers"]]}
        assert {"tf-serving", "istio-init", "istio-proxy"} <= names


@pytest.mark.parametrize("profile", PROFILES)
def test_a_split_by_weight_is_what_the_manifest_says(mesh, applied, profile):
    manifests = rendered(mesh, "quickstart", "--phase", "split", "--profile", profile)
    applied(manifests)
    wait_for_route(mesh, all_answered)
    http = of_kind(manifests, "VirtualService")["spec"]["http"]
    expected = expected_shares(http, Request(PATH), ARMS, list(ARMS)).shares
    assert expected == {"resnet50": 0.7, "resnet101": 0.3}
    with mesh.inside():
        seen = ask(mesh.gateway_url, COUNT, PATH)
    check_shares(by_version(seen), expected)


def test_istiod_passes_the_route_header_on_and_it_never_contradicts_the_pod(mesh, applied):
    applied(rendered(mesh, "quickstart", "--phase", "split"))
    wait_for_route(mesh, all_answered)
    with mesh.inside():
        seen = ask(mesh.gateway_url, 300, PATH)
    assert set(seen) == {Seen(200, arm, f"split/{arm}") for arm in ARMS}


def test_the_tutorial_profile_has_no_route_header(mesh, applied):
    applied(rendered(mesh, "quickstart", "--phase", "split", "--profile", "tutorial"))
    wait_for_route(mesh, all_answered)
    with mesh.inside():
        seen = ask(mesh.gateway_url, 50, PATH)
    assert {each.route for each in seen} == {None}


@pytest.mark.parametrize("profile", PROFILES)
def test_cohorts_go_where_their_header_sends_them(mesh, applied, profile):
    applied(rendered(mesh, "quickstart", "--phase", "focused", "--profile", profile))
    wait_for_route(mesh, all_answered)
    experiment = reading.load("quickstart").experiment
    expected = phase_expectations(experiment, next(phase for phase in experiment.phases if phase.name == "focused"))
    for name, cohort in experiment.cohorts.items():
        with mesh.inside():
            counts = by_version(ask(mesh.gateway_url, 300, PATH, cohort.headers))
        check_shares(counts, expected[name].shares)
        assert len(counts) == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_a_patch_to_other_weights_takes_effect(mesh, applied, profile):
    manifests = rendered(mesh, "quickstart", "--phase", "dark-launch", "--profile", profile)
    applied(manifests)
    wait_for_route(mesh, lambda seen: set(by_version(seen)) == {"resnet50"})
    virtual = of_kind(manifests, "VirtualService")
    changed = copy.deepcopy(virtual["spec"]["http"])
    for entry in changed[0]["route"]:
        entry["weight"] = {"resnet50": 20, "resnet101": 80}[entry["destination"]["subset"]]
    with mesh.inside():
        api.patch(mesh.api, virtual, {"spec": {"http": changed}})
    wait_for_route(mesh, lambda seen: "resnet101" in by_version(seen))
    with mesh.inside():
        counts = by_version(ask(mesh.gateway_url, COUNT, PATH))
    check_shares(counts, expected_shares(changed, Request(PATH), ARMS, list(ARMS)).shares)


@pytest.mark.parametrize("profile", PROFILES)
def test_istiods_webhook_refuses_a_bad_weight(mesh, applied, profile):
    manifests = rendered(mesh, "quickstart", "--phase", "split", "--profile", profile)
    applied(manifests[:1])
    bad = copy.deepcopy(of_kind(manifests, "VirtualService"))
    bad["spec"]["http"][0]["route"][1]["weight"] = -30
    with mesh.inside(), pytest.raises(api.RefusedError, match=r"validation\.istio\.io.*weight -30 < 0") as refused:
        api.apply(mesh.api, bad)
    assert refused.value.status == 400


def test_applying_the_same_again_changes_nothing(mesh, applied):
    manifests = rendered(mesh, "quickstart", "--phase", "split")
    applied(manifests)
    with mesh.inside():
        before = [api.get(mesh.api, manifest)["metadata"].get("generation") for manifest in manifests]
        again = [api.apply(mesh.api, manifest) for manifest in manifests]
    assert [found["metadata"].get("generation") for found in again] == before
