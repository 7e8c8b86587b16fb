"""The manifests on a real API server, checked by istiod's webhook, routed by istiod's own translation."""

import copy
import shlex
import shutil
import sys
from dataclasses import dataclass

import pytest
from plane import api
from plane.objects import apply_all, await_all, pods, remove_all, rendered
from plane.traffic import Seen, ask, by_version
from plane.waiting import until
from scipy.stats import binomtest

from deploy.__main__ import deploy
from experiments.core import command, reading
from experiments.core.routing import Request, expected_shares, phase_expectations, predict_path

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

ARMS = {"resnet50": "resnet50", "resnet101": "resnet101"}
PATH = predict_path("image_classifier")
COUNT = 1_000
# One in a million: a true split almost never fails, and a share that is off by 8 points almost always does.
SURPRISE = 1e-6


def of_kind(manifests, kind):
    return next(manifest for manifest in manifests if manifest["kind"] == kind)


def wait_for_route(mesh, reached, within_s=30.0):
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


@dataclass(frozen=True)
class Stack:
    """The quickstart on the mesh, in one profile; `manifests` are those of phase `split`, which is applied first."""

    mesh: object
    profile: str
    manifests: list

    def route(self, phase):
        """Apply the routing of a phase; returns its VirtualService."""
        virtual = of_kind(
            rendered(self.mesh, "quickstart", "--phase", phase, "--profile", self.profile), "VirtualService"
        )
        with self.mesh.inside():
            api.apply(self.mesh.api, virtual, force=True)
        return virtual


@pytest.fixture(scope="module", params=["tutorial", "hardened"])
def stack(request, mesh):
    """The stack in each profile, up for all tests of it; each test routes what it wants first of all."""
    manifests = rendered(mesh, "quickstart", "--phase", "split", "--profile", request.param)
    if shutil.which("kubectl"):  # what was applied so, a test below looks at
        said = kubectl_apply(mesh, request.param)
        assert said.count(" created") + said.count("namespace/tf-serving") >= len(manifests), said
        await_all(mesh, manifests)
    else:
        apply_all(mesh, manifests)
    yield Stack(mesh, request.param, manifests)
    remove_all(mesh, manifests)


def kubectl_apply(mesh, profile):
    """`python -m deploy render … | kubectl apply -f -`, word for word; what kubectl says."""
    render = [sys.executable, "-m", "deploy", "render", "quickstart", "--phase", "split", "--profile", profile]
    done = mesh.run(["sh", "-o", "errexit", "-c", f"{shlex.join(render)} | kubectl apply -f -"])
    assert done.returncode == 0, done.stderr
    return done.stdout


def up_tried(mesh, capsys, *options):
    """What `up` would do, as the server's dry run has it: exit code, and what it says here and there."""
    words = ["up", "quickstart", "--target", "kubernetes", "--dry-run", "--profile", "tutorial"]
    with mesh.inside(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(mesh.kubeconfig))
        code = command.run(deploy, "python -m deploy", [*words, *options])
    return code, *capsys.readouterr()


def test_what_kubectl_has_applied_a_second_time_changes_nothing_and_up_names_kubectl_or_takes_it_over(
    mesh, stack, capsys
):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH")
    stack.route("split")
    before = generations(mesh, stack.manifests)
    again = kubectl_apply(mesh, stack.profile)
    assert len(again.splitlines()) == len(stack.manifests)
    assert " created" not in again
    assert generations(mesh, stack.manifests) == before
    if stack.profile == "hardened":
        return
    code, _, said = up_tried(mesh, capsys, "--phase", "dark-launch")
    assert code == 2
    (line,) = said.splitlines()
    assert '"kubectl-client-side-apply"' in line
    assert line.endswith("--force-conflicts takes them over.")
    code, accepted, said = up_tried(mesh, capsys, "--phase", "dark-launch", "--force-conflicts")
    assert (code, accepted.count(": accepted")) == (0, len(stack.manifests)), said


def test_every_object_is_accepted_and_every_pod_gets_its_sidecar(mesh, stack):
    with mesh.inside():
        assert {manifest["kind"] for manifest in stack.manifests} >= {"Deployment", "Gateway", "VirtualService"}
        for manifest in stack.manifests:
            assert api.get(mesh.api, manifest)["metadata"]["uid"]
    found = pods(mesh, "tf-serving")
    assert sorted(pod["metadata"]["labels"]["version"] for pod in found) == ["resnet101", "resnet50"]
    for pod in found:
        spec = pod["spec"]
        names = {container["name"] for container in [*spec["containers"], *spec["initContainers"]]}
        assert {"tf-serving", "istio-init", "istio-proxy"} <= names


def test_istiods_webhook_refuses_a_bad_weight(mesh, stack):
    bad = copy.deepcopy(of_kind(stack.manifests, "VirtualService"))
    bad["spec"]["http"][0]["route"][1]["weight"] = -30
    with mesh.inside(), pytest.raises(api.RefusedError, match=r"validation\.istio\.io.*weight -30 < 0") as refused:
        api.apply(mesh.api, bad, force=True)
    assert refused.value.status == 400


def generations(mesh, manifests):
    with mesh.inside():
        return [api.get(mesh.api, manifest)["metadata"].get("generation") for manifest in manifests]


def test_applying_the_same_again_changes_nothing(mesh, stack):
    before = generations(mesh, stack.manifests)
    with mesh.inside():
        again = [api.apply(mesh.api, manifest) for manifest in stack.manifests]
    assert [found["metadata"].get("generation") for found in again] == before


def test_a_split_by_weight_is_what_the_manifest_says(mesh, stack):
    http = stack.route("split")["spec"]["http"]
    wait_for_route(mesh, lambda seen: all_answered(seen) and set(by_version(seen)) == set(ARMS))
    expected = expected_shares(http, Request(PATH), ARMS, list(ARMS)).shares
    assert expected == {"resnet50": 0.7, "resnet101": 0.3}
    with mesh.inside():
        seen = ask(mesh.gateway_url, COUNT, PATH)
    check_shares(by_version(seen), expected)
    if stack.profile == "tutorial":
        assert {each.route for each in seen} == {None}
    else:  # istiod passes the route header on, and it never contradicts the pod
        assert set(seen) == {Seen(200, arm, f"split/{arm}") for arm in ARMS}


def test_cohorts_go_where_their_header_sends_them(mesh, stack):
    stack.route("focused")
    wait_for_route(mesh, lambda seen: all_answered(seen) and set(by_version(seen)) == {"resnet50"})
    experiment = reading.load("quickstart").experiment
    expected = phase_expectations(experiment, next(phase for phase in experiment.phases if phase.name == "focused"))
    for name, cohort in experiment.cohorts.items():
        with mesh.inside():
            counts = by_version(ask(mesh.gateway_url, 300, PATH, cohort.headers))
        check_shares(counts, expected[name].shares)
        assert len(counts) == 1


def test_a_patch_to_other_weights_takes_effect(mesh, stack):
    virtual = stack.route("dark-launch")
    wait_for_route(mesh, lambda seen: set(by_version(seen)) == {"resnet50"})
    changed = copy.deepcopy(virtual["spec"]["http"])
    for entry in changed[0]["route"]:
        entry["weight"] = {"resnet50": 20, "resnet101": 80}[entry["destination"]["subset"]]
    with mesh.inside():
        api.patch(mesh.api, virtual, {"spec": {"http": changed}})
    wait_for_route(mesh, lambda seen: "resnet101" in by_version(seen))
    with mesh.inside():
        counts = by_version(ask(mesh.gateway_url, COUNT, PATH))
    check_shares(counts, expected_shares(changed, Request(PATH), ARMS, list(ARMS)).shares)
