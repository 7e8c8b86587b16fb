"""What a change of routes says and does where others own something, and how far the way to a pod is tried."""

import time

import msgspec
import pytest
from api_server import Fault

from deploy.__main__ import deploy
from deploy.cluster import client, effect, ownership, stack, switch
from deploy.cluster.client import connect
from deploy.cluster.forward import forwarded
from deploy.cluster.objects import get
from deploy.cluster.refusals import ApiError
from deploy.form import Form
from deploy.manifests import manifests
from experiments.core import command, reading
from experiments.core.errors import StackError
from experiments.core.home import stack_dir
from experiments.core.reading import to_mapping
from experiments.core.stack import ClusterInfo, StackDir, StackInfo, read_stack

DIGITS = reading.load("digits", [])
SPLIT = next(phase for phase in DIGITS.experiment.phases if phase.name == "split")
CAUSES = [{"field": ".spec.replicas", "message": 'conflict with "kubectl" with subresource "scale"'}]
CONFLICT = {"details": {"causes": CAUSES}}
POD = {"metadata": {"name": "web-1", "namespace": "shop"}}


@pytest.fixture
def up(lab, monkeypatch):
    """The objects of a stack, and what this machine knows of it; what routes do then, the mesh tests show."""
    monkeypatch.setattr(effect, "await_effective", lambda *_: None)
    monkeypatch.setattr(switch, "await_ready", lambda *_: None)
    lab.put({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "tf-serving"}})
    for each in manifests(DIGITS, SPLIT, Form()):
        lab.put(each)
    folder = stack_dir("digits")
    folder.mkdir(parents=True)
    where = ClusterInfo("lab", lab.url, "networking.istio.io/v1", "hardened", "/data/models", {"istio": "gateway"}, "")
    info = StackInfo(1, to_mapping(DIGITS.experiment), "", str(DIGITS.path), "kubernetes", "http://127.0.0.1:9", "", [],
                     0, 0, cluster=where)  # fmt: skip
    StackDir(folder).info.write_bytes(msgspec.json.encode(info))
    return lab


def scaled(lab):
    """Somebody has scaled a Deployment, and owns the number now."""
    found = lab.get("Deployment", "digits-classifier-large")
    lab.put({**found, "spec": {**found["spec"], "replicas": 3}})
    lab.faults.append(Fault("PATCH .*deployments/digits-classifier-large.*force=false", 409, 1, CONFLICT))


def route(capsys, *options):
    code = command.run(deploy, "python -m deploy", ["route", "digits", "split", *options])
    return code, capsys.readouterr().err.splitlines()


def test_where_it_changes_something_is_said_before_and_what_others_own_is_left_to_them(up, capsys):
    scaled(up)
    code, said = route(capsys)
    assert code == 0
    assert said[0] == f"context lab ({up.url}): namespace tf-serving is where phase split is put in force"
    assert said[1] == (
        'Deployment digits-classifier-large is left as it is: .spec.replicas: conflict with "kubectl" with subresource '
        '"scale"; --force-conflicts takes it over'
    )
    assert up.get("Deployment", "digits-classifier-large")["spec"]["replicas"] == 3


def test_force_conflicts_takes_it_over(up, capsys):
    scaled(up)
    code, said = route(capsys, "--force-conflicts")
    assert (code, len(said)) == (0, 1)
    assert up.get("Deployment", "digits-classifier-large")["spec"]["replicas"] == 1
    code, _ = route(capsys, "--target", "embedded", "--force-conflicts")
    assert code == 2


def test_routes_that_somebody_else_wrote_are_replaced_and_he_is_named(up, capsys):
    found = up.get("VirtualService", "digits-classifier")
    up.put({**found, "spec": {**found["spec"], "http": []}})
    causes = [{"field": ".spec.http", "message": 'conflict with "kubectl-edit"'}]
    up.faults.append(Fault("PATCH .*virtualservices.*force=false", 409, 1, {"details": {"causes": causes}}))
    code, said = route(capsys)
    assert code == 0
    assert said[1] == 'VirtualService digits-classifier is taken over: .spec.http: conflict with "kubectl-edit"'
    assert up.get("VirtualService", "digits-classifier")["spec"]["http"] == found["spec"]["http"]


@pytest.mark.parametrize(("subsets", "refused"), [(["small", "large"], False), (["small"], True)])
def test_a_rule_that_lacks_a_subset_of_the_route_cannot_be_left_to_others(up, subsets, refused):
    found = up.get("DestinationRule", "digits-classifier")
    up.put({**found, "spec": {"host": "elsewhere", "subsets": [{"name": name} for name in subsets]}})
    causes = [{"field": ".spec.host", "message": 'conflict with "somebody"'}]
    up.faults.append(Fault("PATCH .*destinationrules.*force=false", 409, 1, {"details": {"causes": causes}}))
    said = []
    if refused:
        with pytest.raises(ApiError, match=r"somebody.*--force-conflicts takes them over"):
            stack.route("digits", "split", told=said.append)
        assert not [line for line in up.writes if "virtualservices" in line]
    else:
        stack.route("digits", "split", told=said.append)
        assert "DestinationRule digits-classifier is left as it is" in said[1]


def test_what_somebody_adds_to_the_routing_is_drift_and_what_the_server_adds_to_the_rest_is_none(up):
    objects = manifests(DIGITS, SPLIT, Form())
    assert list(ownership.drift(connect(), objects)) == []
    found = up.get("VirtualService", "digits-classifier")
    fault = {"abort": {"httpStatus": 503, "percentage": {"value": 10}}}
    up.put({**found, "spec": {**found["spec"], "http": [{**found["spec"]["http"][0], "fault": fault}]}})
    rule = up.get("DestinationRule", "digits-classifier")
    up.put({**rule, "spec": {**rule["spec"], "trafficPolicy": {"outlierDetection": {}}}})
    service = up.get("Service", "digits-classifier")
    up.put({**service, "spec": {**service["spec"], "clusterIP": "10.0.0.1"}})
    assert sorted(ownership.drift(connect(), objects)) == [
        "DestinationRule digits-classifier: spec.trafficPolicy added",
        "VirtualService digits-classifier: spec.http[0].fault added",
    ]
    only = [{**each, "spec": {"http": each["spec"]["http"]}} for each in objects if each["kind"] == "VirtualService"]
    assert list(ownership.drift(connect(), only, whole=False)) == [
        "VirtualService digits-classifier: spec.http[0].fault added"
    ]


def test_an_attached_stack_whose_owner_has_deleted_the_virtual_service_can_be_let_go(up):
    attached = reading.load("digits", ["attach=true", "arms={small: {}, large: {}}"])
    info = read_stack("digits")
    cluster = msgspec.structs.replace(info.cluster, before=[{"route": []}])
    info = msgspec.structs.replace(info, experiment=to_mapping(attached.experiment), cluster=cluster)
    StackDir(stack_dir("digits")).info.write_bytes(msgspec.json.encode(info))
    up.put({**ownership.notice(attached.experiment), "data": {}})
    del up.objects["VirtualService", "tf-serving", "digits-classifier"]
    said = []
    assert stack.down("digits", None, None, said.append)
    assert "VirtualService digits-classifier is gone: its owner has deleted it; no routes were put back" in said
    assert get(connect(), ownership.notice(attached.experiment)) is None
    assert up.get("Deployment", "digits-classifier-large")
    assert read_stack("digits") is None


def test_a_forward_is_tried_again_where_that_may_mend_it(lab, monkeypatch):
    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.01)
    for status in (429, 503, 0):
        lab.faults.append(Fault("/portforward", status, 1))
    lab.faults.append(Fault("/portforward", 403, 9))
    with pytest.raises(ApiError, match="grant the verb 'create' on 'pods/portforward'"), forwarded(connect(), POD, 80):
        pass
    assert [fault.times for fault in lab.faults] == [0, 0, 0, 8]


def test_a_forward_that_stays_refused_is_told_after_a_few_times(lab, monkeypatch):
    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.01)
    lab.faults.append(Fault("/portforward", 503, 9))
    with pytest.raises(StackError, match=r"failed to create pods/portforward web-1 in namespace shop \(503\)"):
        forwarded(connect(), POD, 80).__enter__()
    assert lab.faults[0].times == 5


def test_retry_after_is_waited_for(lab):
    lab.put({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}})
    space = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}}
    connect_now = connect()
    get(connect_now, space)
    lab.faults.append(Fault("GET .*namespaces/shop", 429, 1, headers={"Retry-After": "2"}))
    began = time.monotonic()
    assert get(connect_now, space)
    assert 2 <= time.monotonic() - began < 5
