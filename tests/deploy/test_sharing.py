"""A cluster that others use too: whose run it is, whose objects they are, which cluster is meant."""

import msgspec
import pytest
from api_server import Fault, kubeconfig, serving

from deploy.__main__ import deploy
from deploy.cluster import lease, ownership, stack
from deploy.cluster.client import connect
from deploy.cluster.stack import Wanted
from deploy.embedded.admin import wait_for
from deploy.form import Form
from deploy.manifests import manifests
from experiments.conductor import Options, conduct
from experiments.core import command, journal, reading
from experiments.core.errors import StackError
from experiments.core.home import stack_dir
from experiments.core.reading import to_mapping
from experiments.core.stack import ClusterInfo, StackDir, StackInfo, read_stack
from experiments.progress import Narrator
from experiments.targets import Kubernetes

DIGITS = reading.load("digits")
SPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tf-serving"}}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}
ISTIOD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "istiod", "namespace": "istio-system", "labels": {"app": "istiod"}},
    "spec": {"containers": [{"image": "istio/pilot:1.30.4"}]},
    "status": READY,
}
THEIRS = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "splitproof-digits", "namespace": "tf-serving"},
    "spec": {"holderIdentity": "ann@there (pid 7)", "leaseDurationSeconds": 30, "renewTime": "2999-01-01T00:00:00.0Z"},
}


def objects(loaded, phase=0):
    return manifests(loaded, loaded.experiment.phases[phase], Form())


def put_up(store, loaded):
    """What `render | kubectl apply` leaves, by whomever; no pod of it is ready."""
    for each in objects(loaded):
        store.put(each)


def known_here(loaded, context, server):
    """What a stack that was put up from this machine leaves here."""
    folder = stack_dir(loaded.experiment.name)
    folder.mkdir(parents=True)
    where = ClusterInfo(context, server, "networking.istio.io/v1", "hardened", "/m", {"istio": "ingressgateway"}, "")
    info = StackInfo(1, to_mapping(loaded.experiment), "", str(loaded.path), "kubernetes", "http://127.0.0.1:9", "", [],
                     0, 0, cluster=where)  # fmt: skip
    StackDir(folder).info.write_bytes(msgspec.json.encode(info))


def run(loaded, tmp_path):
    return conduct(loaded, Options(tmp_path / "runs", target=Kubernetes(Wanted())), Narrator())


def test_a_run_that_is_refused_changes_nothing_and_takes_nothing_down(lab, tmp_path):
    for each in (SPACE, ISTIOD, THEIRS):
        lab.put(each)
    put_up(lab, DIGITS)
    before = lab.named()
    with pytest.raises(StackError, match=r"digits: ann@there \(pid 7\) runs it in context lab.*wait for its end"):
        run(DIGITS, tmp_path)
    assert lab.writes == []
    assert lab.named() == before


@pytest.mark.parametrize("command", ["up", "route", "down"])
def test_commands_name_the_run_that_has_the_stack_and_change_nothing(lab, command):
    for each in (SPACE, ISTIOD, THEIRS):
        lab.put(each)
    put_up(lab, DIGITS)
    known_here(DIGITS, "lab", lab.url)
    commands = {
        "up": lambda: stack.up(DIGITS, Wanted()),
        "route": lambda: stack.route("digits", "split"),
        "down": lambda: stack.down("digits", None, None),
    }
    with pytest.raises(StackError, match=r"ann@there \(pid 7\) runs it"):
        commands[command]()
    assert lab.writes == []
    assert read_stack("digits") is not None


def test_the_namespace_is_made_where_there_is_none_since_the_lease_lies_in_it(lab):
    lab.put(ISTIOD)
    with Kubernetes(Wanted()).reserved(DIGITS):
        assert lab.get("Namespace", "tf-serving")["metadata"]["labels"]["istio-injection"] == "enabled"
        assert lab.get("Lease", "splitproof-digits")["spec"]["holderIdentity"] == lease.holder()
    assert lab.get("Lease", "splitproof-digits") is None
    assert lab.get("Namespace", "tf-serving")


def test_without_istio_no_namespace_is_made_either(lab):
    with pytest.raises(StackError, match="has no istiod"), Kubernetes(Wanted()).reserved(DIGITS):
        pass
    assert lab.writes == []


def test_a_stack_that_was_put_up_from_elsewhere_is_there_before_and_stays(lab, tmp_path):
    for each in (SPACE, ISTIOD):
        lab.put(each)
    put_up(lab, DIGITS)
    before = lab.named()
    lab.faults.append(Fault("PATCH .*dryRun", 422, 1))
    with pytest.raises(StackError, match="as invalid"):
        run(DIGITS, tmp_path)
    assert not [line for line in lab.writes if line.startswith("DELETE") and "/leases/" not in line]
    assert lab.named() == before


def test_what_stands_is_known_by_its_labels_with_the_routes_that_it_has(lab):
    for each in (SPACE, ISTIOD):
        lab.put(each)
    assert stack.standing(connect(), DIGITS) is None
    deployment = next(each for each in objects(DIGITS) if each["kind"] == "Deployment")
    lab.put({**deployment, "metadata": {**deployment["metadata"], "labels": {"app": "digits-classifier"}}})
    assert stack.standing(connect(), DIGITS) is None
    lab.put(deployment)
    assert stack.standing(connect(), DIGITS).before is None
    put_up(lab, DIGITS)
    virtual = lab.get("VirtualService", "digits-classifier")
    assert stack.standing(connect(), DIGITS).before.http == virtual["spec"]["http"]


@pytest.mark.parametrize("there", ["quickstart", "lab"])
def test_two_experiments_with_the_same_names_share_nothing(lab, there):
    """quickstart and lab: one model, the same arms, one namespace."""
    other = {"quickstart": "lab", "lab": "quickstart"}[there]
    for each in (SPACE, ISTIOD):
        lab.put(each)
    put_up(lab, reading.load(there))
    with pytest.raises(StackError, match=f"belongs to the stack of experiment {there}, and no two share one") as told:
        stack.up(reading.load(other), Wanted())
    assert "\n" not in str(told.value)
    assert lab.writes == []
    assert ownership.ours(connect(), reading.load(there).experiment)


def test_down_in_another_context_removes_there_and_leaves_what_is_known_here(lab, tmp_path, monkeypatch):
    with serving() as far:
        monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path / "two", lab=lab.url, far=far.url))
        for store in (lab, far):
            store.put(SPACE)
            put_up(store, DIGITS)
        known_here(DIGITS, "lab", lab.url)
        before = lab.named()
        said = []
        assert stack.down("digits", None, "far", said.append)
        assert "digits: its stack in context lab stays as it is" in said
        assert far.named() == ["Namespace tf-serving"]
        assert (lab.named(), lab.writes) == (before, [])
        assert read_stack("digits").cluster.context == "lab"
        assert stack.down("digits", None, "lab")
        assert lab.named() == ["Namespace tf-serving"]
        assert read_stack("digits") is None


def test_a_context_means_a_cluster_also_where_nothing_is_known_here(lab, capsys):
    put_up(lab, DIGITS)
    lab.put(SPACE)
    assert command.run(deploy, "python -m deploy", ["down", "digits", "--target", "embedded", "--context", "lab"]) == 2
    assert lab.get("Deployment", "digits-classifier-large")
    assert command.run(deploy, "python -m deploy", ["down", "digits", "--context", "lab"]) == 0
    assert capsys.readouterr().out == "digits is down\n"
    assert lab.named() == ["Namespace tf-serving"]


def test_up_and_run_in_another_context_are_refused_while_the_stack_is_up_here(lab, tmp_path, monkeypatch):
    with serving() as far:
        monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path / "two", lab=lab.url, far=far.url))
        known_here(DIGITS, "lab", lab.url)
        said = r"digits: its stack is up in context lab \(.*\), and this is context far .*; run: python -m deploy down"
        with pytest.raises(StackError, match=said):
            stack.up(DIGITS, Wanted(context="far"))
        with pytest.raises(StackError, match=said):
            conduct(DIGITS, Options(tmp_path, target=Kubernetes(Wanted(context="far"))), Narrator())
        assert lab.writes == far.writes == []


def test_a_lease_that_was_taken_is_not_taken_back_and_ends_the_run(lab, monkeypatch):
    monkeypatch.setattr(lease, "_RENEW_S", 0.05)
    for each in (SPACE, ISTIOD):
        lab.put(each)
    known_here(DIGITS, "lab", lab.url)
    target = Kubernetes(Wanted())
    with target.reserved(DIGITS):
        first = lab.get("Lease", "splitproof-digits")["metadata"]["resourceVersion"]
        assert wait_for(lambda: lab.get("Lease", "splitproof-digits")["metadata"]["resourceVersion"] != first, 5)
        assert target.trouble("digits") is None
        lab.put(THEIRS)
        assert wait_for(lambda: target.trouble("digits"), 5)
        assert "digits: ann@there (pid 7) has taken the Lease of this run" in target.trouble("digits")
        with pytest.raises(StackError, match=r"ann@there \(pid 7\) runs it"):
            target.route("digits", "split", None)
    (entry,) = journal.read(StackDir(stack_dir("digits")).journal)
    assert (entry.by, entry.object, entry.routes) == ("ann@there (pid 7)", "Lease", False)
    assert lab.get("Lease", "splitproof-digits")["spec"]["holderIdentity"] == "ann@there (pid 7)"


def test_a_renewal_that_comes_between_anothers_look_and_write_wins_for_neither_twice(lab, monkeypatch):
    """Whoever read before somebody else wrote is refused by the version: it looks again instead of writing over it."""
    monkeypatch.setattr(lease, "_RENEW_S", 0.05)
    lab.put(SPACE)
    with lease.leased(connect(), DIGITS.experiment) as held:
        lab.faults.append(Fault("PUT .*/leases/", 409, 1))
        assert wait_for(lambda: not lab.faults[0].times, 5)
        lab.put(THEIRS)
        assert wait_for(lambda: held.lost, 5)
    assert lab.get("Lease", "splitproof-digits")["spec"]["holderIdentity"] == "ann@there (pid 7)"
