"""`python -m deploy … --target kubernetes` on a real API server with a real Istio."""

import copy
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from plane import api
from plane.faulty import RESET, Fault, faulty
from plane.objects import NAMESPACE, VIRTUAL, pods
from plane.waiting import until
from ruamel.yaml import YAML

from deploy import asking
from deploy.cluster import client, lease, live, stack
from deploy.cluster.client import connect
from deploy.cluster.foreign import watching
from deploy.cluster.forward import forwarded
from deploy.cluster.objects import listed
from deploy.cluster.refusals import ApiError
from deploy.cluster.scope import Scope
from deploy.cluster.stack import Wanted
from deploy.lint.checking import check
from experiments.conductor import Options, conduct
from experiments.core import reading
from experiments.core.errors import StackError
from experiments.core.home import CHECKOUT, stack_dir
from experiments.core.records import read_references
from experiments.core.routing import ROUTE_HEADER, predict_path
from experiments.core.stack import StackDir, read_stack
from experiments.progress import Narrator
from experiments.targets import Kubernetes

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

NAME = "digits-classifier"
# What was there before us: one object that is none of ours, and one under a name that we use too.
FOREIGN = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "somebody-elses", "namespace": NAMESPACE},
    "data": {"precious": "yes"},
}
THEIRS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "small-configs", "namespace": NAMESPACE},
    "data": {"MORE": "theirs"},
}
# Another team's service of another name, in the same namespace.
OTHERS = [
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "namespace": NAMESPACE, "labels": {"app": "shop"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "metadata": {"labels": {"app": "shop"}},
                "spec": {"containers": [{"name": "shop", "image": "shop:1"}]},
            },
        },
    },
    {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "shop", "namespace": NAMESPACE},
        "spec": {"hosts": ["shop.example"], "http": [{"route": [{"destination": {"host": "shop"}}]}]},
    },
]
SPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


@pytest.fixture(scope="module")
def up(mesh, digits):
    """The stack of digits next to what others own, up for the module; tests leave it up and in phase `split`."""
    with mesh.inside():
        for each in (SPACE, FOREIGN, THEIRS, *OTHERS):
            api.apply(mesh.api, each, manager="somebody")
        wanted = Wanted(gateway=mesh.gateway_url)
        stack.up(digits, wanted)
        stack.route("digits", "split")
        yield wanted
        if stack_dir("digits").exists():
            stack.down("digits", None, None)
        for each in (FOREIGN, THEIRS, *OTHERS):
            api.delete(mesh.api, each)


def ours(mesh):
    """Every object that carries our labels."""
    kinds = [("v1", "ConfigMap"), ("v1", "Service"), ("apps/v1", "Deployment")]
    kinds += [("networking.istio.io/v1", kind) for kind in ("Gateway", "DestinationRule", "VirtualService")]
    kinds += [("security.istio.io/v1", "AuthorizationPolicy"), ("networking.k8s.io/v1", "NetworkPolicy")]
    kinds += [("policy/v1", "PodDisruptionBudget")]
    label = "app.kubernetes.io/managed-by=splitproof"
    return [each for version, kind in kinds for each in api.listed(mesh.api, version, kind, NAMESPACE, label)]


def marks(found):
    """What must not change when nothing is to be changed: generations, and what our field manager owns."""
    entries = [entry for entry in found["metadata"]["managedFields"] if entry["manager"] == "splitproof"]
    return found["kind"], found["metadata"]["name"], found["metadata"].get("generation"), entries


def test_up_asks_every_pod_and_puts_the_first_route_in_force(mesh, up):  # noqa: ARG001
    info = read_stack("digits")
    assert info.target == "kubernetes"
    assert {pod.arm for pod in info.pods} == {"small", "large"}
    references = read_references(StackDir(stack_dir("digits")))
    assert references.problems == []
    direct = [answer for each in references.payloads.values() for arm in each.arms.values() for answer in arm.direct]
    assert len(direct) == 24
    assert all(answer.matches for answer in direct)


def test_our_serving_processes_answer_as_the_pods(mesh, digits, up):  # noqa: ARG001
    path = predict_path(digits.experiment.model)
    body = {"instances": [[0.5] * 64]}
    with mesh.inside():
        direct = {
            pod["metadata"]["labels"]["version"]: post(f"http://{pod['status']['podIP']}:8501", path, body)[1]
            for pod in pods(mesh, NAMESPACE)
        }
        seen = [post(mesh.gateway_url, path, body) for _ in range(100)]
    assert direct["small"] != direct["large"]
    assert {route for _, _, route in seen} == {"split/small", "split/large"}
    for status, answer, route in seen:
        assert status == 200
        assert answer == direct[route.partition("/")[2]]


def post(url, path, body):
    headers = {"Content-Type": "application/json"}
    answer = asking.ask(f"{url}{path}", method="POST", body=json.dumps(body).encode(), headers=headers)
    return answer.status, json.loads(answer.body), answer.headers.get(ROUTE_HEADER)


def test_up_again_changes_nothing(mesh, digits, up):
    with mesh.inside():
        before = [marks(each) for each in ours(mesh)]
        stack.up(digits, up)
        after = [marks(each) for each in ours(mesh)]
    assert {kind for kind, *_ in before} >= {
        "AuthorizationPolicy",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Deployment",
    }
    assert len(before) >= 12
    assert after == before


def test_a_field_of_somebody_else_is_a_conflict_with_its_owner_until_it_is_taken_over(mesh, digits, up):
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "digits-classifier", "namespace": NAMESPACE}}
    with mesh.inside():
        changed = api.get(mesh.api, service)["spec"]["ports"]
        changed[1]["appProtocol"] = "tcp"
        api.apply(mesh.api, {**service, "spec": {"ports": changed}}, manager="somebody", force=True)
        with pytest.raises(ApiError, match=r"spec\.ports.*somebody.*--force-conflicts takes them over"):
            stack.up(digits, up)
        assert any("Service digits-classifier" in line and "somebody" in line for line in stack.status("digits").drift)
        stack.up(digits, Wanted(gateway=up.gateway, force=True))
        assert stack.status("digits").drift == ()


def test_lint_reads_what_is_there_now(mesh, digits, up):
    with mesh.inside():
        found = live.objects(connect(), NAMESPACE)
        assert {"VirtualService", "DestinationRule", "Gateway", "Deployment", "Pod"} <= {each["kind"] for each in found}
        assert check(found).findings == []
        gateway = {**VIRTUAL, "kind": "Gateway", "metadata": {"name": f"{NAME}-gateway", "namespace": NAMESPACE}}
        api.patch(mesh.api, gateway, {"spec": {"selector": {"istio": "nobody"}}})
        assert "SP106" in {each.code for each in check(live.objects(connect(), NAMESPACE)).findings}
        stack.up(digits, Wanted(gateway=up.gateway, force=True))


def test_drift_names_the_object_the_field_and_who_changed_it(mesh, up):  # noqa: ARG001
    with mesh.inside():
        before = api.get(mesh.api, VIRTUAL)["spec"]["http"]
        changed = copy.deepcopy(before)
        changed[0]["route"][0]["weight"], changed[0]["route"][1]["weight"] = 10, 90
        api.patch(mesh.api, VIRTUAL, {"spec": {"http": changed}})
        (line,) = stack.status("digits").drift
        assert line.startswith("VirtualService digits-classifier: spec.http[0].route[0].weight")
        stack.route("digits", "split")
        assert stack.status("digits").drift == ()


def test_a_fault_that_somebody_adds_to_the_route_is_drift_and_a_scale_is_left_to_whom_it_belongs(mesh, up):  # noqa: ARG001
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{NAME}-large", "namespace": NAMESPACE},
    }
    said = []
    with mesh.inside():
        http = api.get(mesh.api, VIRTUAL)["spec"]["http"]
        http[0]["fault"] = {"abort": {"httpStatus": 503, "percentage": {"value": 1}}}
        api.patch(mesh.api, VIRTUAL, {"spec": {"http": http}})
        api.patch(mesh.api, deployment, {"spec": {"replicas": 2}}, "scale")
        lines = stack.status("digits").drift
        assert any("VirtualService digits-classifier: spec.http[0].fault added" in line for line in lines), lines
        stack.route("digits", "split", told=said.append)
        assert any("Deployment digits-classifier-large is left as it is: .spec.replicas" in line for line in said), said
        assert api.get(mesh.api, deployment)["spec"]["replicas"] == 2
        (line,) = stack.status("digits").drift
        assert line.startswith("Deployment digits-classifier-large: spec.replicas changed")
        stack.route("digits", "split", force=True)
        assert stack.status("digits").drift == ()


def test_contexts_are_chosen_by_the_user_alone(mesh, tmp_path, monkeypatch):
    document = json.loads(mesh.kubeconfig.read_text())
    document["contexts"].append({"name": "production", "context": {"cluster": "mesh", "user": "admin"}})
    several = tmp_path / "several"
    several.write_text(json.dumps(document))
    monkeypatch.setenv("KUBECONFIG", str(several))
    with pytest.raises(StackError, match=r"has 2 contexts \(mesh, production\); choose one with --context"):
        connect()
    with pytest.raises(StackError, match="--context prod: is not in the kubeconfig, which has: mesh, production"):
        connect("prod")
    assert connect("production").context == "production"
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(StackError, match="no kubeconfig to use"):
        connect()


def test_what_keeps_pods_from_being_ready_is_said(mesh, digits, up):
    said = []
    with mesh.inside():
        (pod,) = pods(mesh, NAMESPACE, "version=large")
        waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}
        statuses = [{**each, **waiting, "ready": False} for each in pod["status"]["containerStatuses"]]
        conditions = [
            {**each, "status": "False"} if each["type"] in {"Ready", "ContainersReady"} else each
            for each in pod["status"]["conditions"]
        ]
        api.patch(mesh.api, pod, {"status": {"conditions": conditions, "containerStatuses": statuses}}, "status")
        with pytest.raises(StackError, match=r"waited 1 s in vain for Deployment digits-classifier-large: 0 of 1 pods"):
            stack.up(digits, Wanted(gateway=up.gateway, within_s=1), progress=said.append)
        assert any("ImagePullBackOff: Back-off pulling image" in line for line in said), said
        api.patch(mesh.api, pod, {"status": pod["status"]}, "status")
        stack.up(digits, up)


def action_route():
    stack.route("digits", "split")


def action_status():
    stack.status("digits")


def action_forward():
    cluster = connect()
    for pod in listed(cluster, "v1", "Pod", NAMESPACE, f"app={NAME}"):
        with forwarded(cluster, pod, 8501) as url:
            assert asking.ask(f"{url}/v1/models/digits_classifier").status == 200


def action_lease():
    experiment = reading.load("digits").experiment
    with lease.leased(connect(), experiment), lease.leased(connect(), experiment):  # created, then updated
        pass


# What meets which request, and whether it is retried (None) or told in a sentence.
FAULTS = {
    "401": (action_route, Fault("PATCH .*virtualservices", 401, 9), "credentials .401"),
    "403 patch": (
        action_route,
        Fault("PATCH .*virtualservices", 403, 9),
        "forbids to patch virtualservices.networking.istio.io digits-classifier in namespace .*403.*grant the verb",
    ),
    "403 get": (action_route, Fault("GET .*deployments/", 403, 9), "grant the verb 'get' on 'deployments.apps'"),
    "403 list": (action_status, Fault("GET .*/pods", 403, 9), "grant the verb 'list' on 'pods'"),
    "403 create": (
        action_lease,
        Fault("POST .*leases", 403, 9),
        "forbids to create leases.coordination.k8s.io splitproof-digits in namespace .*grant the verb 'create'",
    ),
    "403 update": (action_lease, Fault("PUT .*leases", 403, 9), "grant the verb 'update' on 'leases.coordination"),
    "403 portforward": (
        action_forward,
        Fault("GET .*tf-serving/pods/.*/portforward", 403, 9),
        "grant the verb 'create' on 'pods/portforward'",
    ),
    "429 portforward": (action_forward, Fault("GET .*tf-serving/pods/.*/portforward", 429, 2), None),
    "503 portforward": (action_forward, Fault("GET .*tf-serving/pods/.*/portforward", 503, 2), None),
    "reset portforward": (action_forward, Fault("GET .*tf-serving/pods/.*/portforward", RESET, 2), None),
    "404 kind": (action_route, Fault("GET /apis/networking.istio.io/v1 ?$", 404, 9), "Istio is not installed there"),
    "404 patch": (action_route, Fault("PATCH .*virtualservices", 404, 9), "there is none .404"),
    "409": (action_route, Fault("PATCH .*virtualservices", 409, 9), "refuses to patch .* .409.: injected Conflict"),
    "422": (action_route, Fault("PATCH .*virtualservices", 422, 9), "as invalid .422.: injected"),
    "429": (action_route, Fault("PATCH .*virtualservices", 429, 1, retry_after="1"), None),
    "500": (action_route, Fault("PATCH .*virtualservices", 500, 2), None),
    "503": (action_route, Fault("GET .*virtualservices", 503, 2), None),
    "503 for ever": (action_status, Fault("GET .*/pods", 503, 99), "failed to list pods in namespace .* .503."),
    "reset": (action_route, Fault("PATCH .*virtualservices", RESET, 2), None),
    "reset for ever": (action_status, Fault("GET .*/pods", RESET, 99), "no answer to list pods in namespace"),
    "403 forward": (action_route, Fault("GET .*istio-system/pods/.*/portforward", 403, 9), None),  # the front door
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_api_is_retried_or_told_and_the_next_time_it_works(mesh, up, tmp_path, monkeypatch, name):  # noqa: ARG001
    action, fault, sentence = FAULTS[name]
    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.01)  # the pauses grow as ever, from less
    with faulty(mesh.api, mesh.place.namespace) as between, mesh.inside():
        through(between, mesh, tmp_path, monkeypatch)
        between.faults.append(replace(fault))
        if sentence is None:
            action()
        else:
            with pytest.raises(StackError, match=sentence) as told:
                action()
            assert "\n" not in str(told.value)
        assert between.faults[0].answered >= min(fault.times, 1), between.seen
        between.faults.clear()
        action()


def through(between, mesh, tmp_path, monkeypatch):
    """Let our commands reach the API server through the way that fails on demand; the stack is where it was."""
    document = json.loads(mesh.kubeconfig.read_text())
    document["clusters"][0]["cluster"] = {"server": between.url}
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(document))
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr(stack, "connected", lambda name: (connect(), read_stack(name)))


ENDED_WATCHES = {
    "too old": Fault("GET .*virtualservices.*watch=true", 410, 1),
    "too old, as an event": Fault("GET .*virtualservices.*watch=true", 410, 1, event=True),
    "broken": Fault("GET .*virtualservices.*watch=true", RESET, 1),
    "forbidden": Fault("GET .*virtualservices.*watch=true", 403, 99),  # but listing is not
}


@pytest.mark.parametrize("name", ENDED_WATCHES)
def test_a_watch_that_ends_misses_no_change(mesh, up, tmp_path, monkeypatch, name):  # noqa: ARG001
    heard, fault = [], replace(ENDED_WATCHES[name])
    with faulty(mesh.api, mesh.place.namespace) as between, mesh.inside():
        through(between, mesh, tmp_path, monkeypatch)
        between.faults.append(fault)
        with watching(connect(), Scope(NAME, NAMESPACE), "networking.istio.io/v1", heard.append) as watch:
            until(lambda: fault.answered, "the watch to be ended", 20)
            edited = api.get(mesh.api, VIRTUAL)["spec"]["http"]
            edited[0]["route"][0]["weight"], edited[0]["route"][1]["weight"] = 55, 45
            api.apply(mesh.api, {**VIRTUAL, "spec": {"http": edited, "hosts": ["*"]}}, manager="somebody", force=True)
            until(lambda: heard, "the change to be heard of", 20)
        assert watch.troubles
        assert heard[0].by == "somebody"
        assert "weights now small 55/large 45" in heard[0].what
        stack.route("digits", "split")


def test_a_run_from_another_machine_is_refused_by_its_name_and_leaves_everything(
    mesh, digits, up, tmp_path, monkeypatch
):
    """The other machine has a home of its own, in which it knows nothing of the stack."""
    lease_of = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "splitproof-digits", "namespace": NAMESPACE},
    }
    later = datetime.now(UTC) + timedelta(hours=1)
    held = {"holderIdentity": "ann@there (pid 7)", "leaseDurationSeconds": 30,
            "renewTime": later.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}  # fmt: skip
    with mesh.inside(), monkeypatch.context() as patch:
        api.apply(mesh.api, {**lease_of, "spec": held})
        before = [marks(each) for each in ours(mesh)]
        patch.setenv("SPLITPROOF_HOME", str(tmp_path / "another"))
        target = Kubernetes(up)
        with pytest.raises(StackError, match=r"ann@there \(pid 7\) runs it"):
            conduct(digits, Options(tmp_path / "runs", target=target), Narrator())
        with pytest.raises(StackError, match=r"ann@there \(pid 7\) runs it"):
            stack.up(digits, up)
        assert [marks(each) for each in ours(mesh)] == before
        api.delete(mesh.api, lease_of)
        assert stack.standing(connect(), digits).before.phase == "split"


def test_two_experiments_whose_objects_have_the_same_names_refuse_each_other(mesh, digits, up):
    other = replace(digits, experiment=digits.experiment.model_copy(update={"name": "twin"}))
    with mesh.inside():
        before = [marks(each) for each in ours(mesh)]
        with pytest.raises(StackError, match="belongs to the stack of experiment digits, and no two share one"):
            stack.up(other, up)
        assert [marks(each) for each in ours(mesh)] == before


def test_the_roles_that_we_ship_suffice(mesh, digits, up, tmp_path, monkeypatch):
    """As the deployer's ServiceAccount on real RBAC: everything works; as the viewer's, reading alone."""
    with mesh.inside():
        for name in ("deployer", "viewer"):
            for each in YAML(typ="safe").load_all((CHECKOUT / "deploy" / "rbac" / f"{name}.yaml").read_text()):
                api.apply(mesh.api, each)
        as_account(mesh, "splitproof-deployer", tmp_path, monkeypatch)
        stack.up(digits, up)
        stack.route("digits", "focused")
        stack.route("digits", "split")
        assert stack.status("digits").drift == ()
        as_account(mesh, "splitproof-viewer", tmp_path, monkeypatch)
        assert stack.status("digits").drift == ()
        assert "Pod" in {each["kind"] for each in live.objects(connect(), NAMESPACE)}  # `lint --live`
        with pytest.raises(ApiError, match="grant the verb 'get' on 'leases"):  # who changes routes looks there first
            stack.route("digits", "focused")
        monkeypatch.undo()
        os.environ["KUBECONFIG"] = str(mesh.kubeconfig)
        stack.route("digits", "split")


def as_account(mesh, account, tmp_path, monkeypatch):
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 900}}
    token = api.request(mesh.api, "POST", path, body)["status"]["token"]
    document = json.loads(mesh.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": token}
    path = tmp_path / account
    path.write_text(json.dumps(document))
    monkeypatch.setenv("KUBECONFIG", str(path))


def test_down_removes_what_is_ours_and_leaves_what_others_own(mesh, digits, up, tmp_path, monkeypatch):  # noqa: ARG001
    """Last of all, since the other tests want the stack. What one attempt is forbidden, the next one completes."""
    with faulty(mesh.api, mesh.place.namespace) as between, mesh.inside(), monkeypatch.context() as patch:
        through(between, mesh, tmp_path, patch)
        between.faults.append(Fault("DELETE .*/services/", 403, 9))
        with pytest.raises(StackError, match="grant the verb 'delete' on 'services'"):
            stack.down("digits", None, None)
    with mesh.inside():
        before = [api.get(mesh.api, each)["metadata"] for each in OTHERS]
        assert stack.down("digits", None, None)
        assert api.get(mesh.api, FOREIGN)["data"] == {"precious": "yes"}
        assert api.get(mesh.api, THEIRS)["data"]["MORE"] == "theirs"
        assert api.get(mesh.api, SPACE)
        assert ours(mesh) == []
        after = [api.get(mesh.api, each)["metadata"] for each in OTHERS]
        for mark in ("uid", "generation"):
            assert [each[mark] for each in after] == [each[mark] for each in before]
        for kind in ("Deployment", "ReplicaSet"):
            left = {each["metadata"]["labels"]["app"] for each in api.listed(mesh.api, "apps/v1", kind, NAMESPACE)}
            assert left == {"shop"}
        assert not stack_dir("digits").exists()
