"""Runs beside somebody else's stack, whose Gateway speaks TLS itself: its Secret, from istiod to Envoy, and back out.

Nobody comes in without the name, trust in the authority, and a certificate of his own.
"""

import json
import os
import re
import signal
import sys
import threading
import time

import pytest
from plane import api
from plane.accounts import grant, kubeconfig_of, may, refused
from plane.loading import load_rule
from plane.objects import FEW, NAMESPACE, VIRTUAL, apply_all, remove_all, rendered
from plane.runner import SHORT, Runner
from plane.waiting import until

from deploy import asking
from deploy.cluster import effect, stack
from deploy.cluster.stack import Wanted
from experiments.conductor import Options, Stopped, conduct, examine
from experiments.core import journal, reading, records
from experiments.core.access import Access
from experiments.core.errors import StackError
from experiments.core.home import stack_dir
from experiments.core.routing import ROUTE_HEADER, http_routes, predict_path
from experiments.core.stack import StackDir, read_stack
from experiments.progress import Narrator
from experiments.targets import Kubernetes
from tests.guarded_envoy import NAME, certificates

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "type": "kubernetes.io/tls",
    "metadata": {"name": "models-example", "namespace": "istio-system"},
}
NEIGHBOUR = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "shop", "namespace": NAMESPACE},
    "spec": {"hosts": ["shop.example"], "http": [{"route": [{"destination": {"host": "shop"}}]}]},
}
INSIDE = "https://istio-ingressgateway.istio-system:443"
OWNER = "kubectl-edit"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The owner's authority, the gateway's and a client's certificate; and an authority of somebody else."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("owners", "others"):
        (folder / name).mkdir()
        certificates(folder / name)
    return folder


@pytest.fixture(scope="module")
def access(keys):
    names = {"ca_file": "ca.crt", "client_cert": "client.crt", "client_key": "client.key"}
    return Access(host=NAME, **{name: str(keys / "owners" / file) for name, file in names.items()})


@pytest.fixture(scope="module")
def theirs(mesh, digits, keys):  # noqa: ARG001 - its pods are our serving processes
    """A stack of somebody else, without our labels, with two pods of one arm and a Gateway of its owner."""
    objects = [theirs_of(each) for each in rendered(mesh, "digits", "--profile", "tutorial")]
    names = {"tls.crt": "server.crt", "tls.key": "server.key", "ca.crt": "ca.crt"}
    content = {name: (keys / "owners" / file).read_text() for name, file in names.items()}
    with mesh.inside():
        grant(mesh, "attacher", "loader")
        api.apply(mesh.api, {**SECRET, "stringData": content}, manager=OWNER)
    apply_all(mesh, objects)
    yield objects
    remove_all(mesh, objects)
    with mesh.inside():
        api.delete(mesh.api, SECRET)


def theirs_of(manifest):
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "labels"}
    given = manifest["metadata"].get("labels", {})
    labels = {name: value for name, value in given.items() if "kubernetes.io" not in name}
    changed = {**manifest, "metadata": {**metadata, **({"labels": labels} if labels else {})}}
    if manifest["kind"] == "Gateway":
        server = {
            "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
            "hosts": [NAME],
            "tls": {"mode": "MUTUAL", "credentialName": SECRET["metadata"]["name"]},
        }
        changed["spec"] = {**manifest["spec"], "servers": [server]}
    if manifest["kind"] == "Deployment" and manifest["metadata"]["name"].endswith("large"):
        changed["spec"] = {**manifest["spec"], "replicas": 2}
    return changed


@pytest.fixture
def url(mesh, theirs, access):
    """Where the Gateway listens; afterwards its VirtualService is its owner's again."""
    with mesh.inside():
        found = f"https://{mesh.gateways[0]}:8443"
        until(lambda: routes_at(found, access, 1), "the Gateway to speak TLS", 30)
    yield found
    with mesh.inside():
        api.apply(mesh.api, next(each for each in theirs if each["kind"] == "VirtualService"), OWNER, force=True)


@pytest.fixture
def runner(mesh, url, access, tmp_path):
    files = ("--ca-file", access.ca_file, "--client-cert", access.client_cert, "--client-key", access.client_key)
    return Runner(mesh, tmp_path, ("--set", "attach=true", "--gateway", url, "--host-header", NAME, *files))


def as_they_are(mesh, objects):
    with mesh.inside():
        return {(each["kind"], each["metadata"]["name"]): api.get(mesh.api, each) for each in objects}


def routes(mesh):
    with mesh.inside():
        return api.get(mesh.api, VIRTUAL)["spec"]["http"]


def untouched(before, after):
    """Whether everything but the routes is the very object that it was; the rest of its VirtualService too."""
    for key, old in before.items():
        new = after[key]
        assert new["metadata"]["uid"] == old["metadata"]["uid"]
        if key[0] == "VirtualService":
            assert {**new["spec"], "http": None} == {**old["spec"], "http": None}
        else:
            assert new["metadata"].get("generation") == old["metadata"].get("generation")
    return True


def nothing_of_ours(mesh):
    """Neither a ConfigMap nor a Lease of a run is left."""
    with mesh.inside():
        leases = api.listed(mesh.api, "coordination.k8s.io/v1", "Lease", NAMESPACE)
        label = "app.kubernetes.io/managed-by"
        return [*leases, *api.listed(mesh.api, "v1", "ConfigMap", NAMESPACE, label)] == []


def answers_at(url, access, count):
    path = predict_path("digits_classifier")
    return [asking.ask(f"{url}{path}", access=access) for _ in range(count)]


def routes_at(url, access, count):
    """The route headers of so many answers; none where there was no answer."""
    return {each.headers.get(ROUTE_HEADER, "none") for each in answers_at(url, access, count) if each}


BARE = ["attach=true", "arms={small: {}, large: {}}", f"gateway.host={NAME}"]
FORBIDDEN = [
    *((verb, "deployments.apps", NAMESPACE) for verb in ("create", "patch", "delete")),
    *((verb, "services", NAMESPACE) for verb in ("create", "patch", "delete")),
    *((verb, "pods", NAMESPACE) for verb in ("create", "delete")),
    *((verb, "virtualservices.networking.istio.io", NAMESPACE) for verb in ("create", "delete")),
    ("patch", "virtualservices.networking.istio.io", "istio-system"),
    ("get", "secrets", NAMESPACE),
]


def test_arms_without_an_artefact_are_known_by_every_one_of_their_pods_and_the_attachers_role_suffices(
    mesh, theirs, url, access, tmp_path, monkeypatch
):
    """By an account that may change the one VirtualService and nothing else. It ends on the canary."""
    loaded = reading.load("digits", [*BARE, FEW, "on_end=canary"])
    before = as_they_are(mesh, theirs)
    with mesh.inside():
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig_of(mesh, "splitproof-attacher", tmp_path)))
        info = stack.up(loaded, Wanted(gateway=url, access=access))
        stack.route("digits", "split")
        references = records.read_references(StackDir(stack_dir("digits")))
        seen = routes_at(url, access, 60)
        stack.leave(loaded, None, None)
        assert refused(mesh, "splitproof-attacher", FORBIDDEN) == []
        assert may(mesh, "splitproof-attacher", "patch", "virtualservices.networking.istio.io")
    after = as_they_are(mesh, theirs)
    assert seen == {"split/small", "split/large"}
    assert (references.source, references.problems) == ("direct", [])
    for payload in references.payloads.values():
        asked = {arm: {answer.pod for answer in each.direct} for arm, each in payload.arms.items()}
        assert asked == {arm: {pod.name for pod in info.pods if pod.arm == arm} for arm in asked}
        assert {arm: len(names) for arm, names in asked.items()} == {"small": 1, "large": 2}
    assert any("known by what its own pods answered" in note for note in info.notes)
    assert (info.models, read_stack("digits")) == ({}, None)
    assert untouched(before, after)
    assert nothing_of_ours(mesh)
    (rule,) = routes(mesh)
    assert [each["destination"]["subset"] for each in rule["route"]] == ["large"]


TURNED_AWAY = {
    "another authority": ("ca_file", "others/ca.crt", "its certificate is not trusted .*--ca-file"),
    "another's certificate": ("client_cert", "others/client.crt", "does not take the certificate .*client.crt"),
    "no certificate": ("client_cert", None, "we show no certificate; give one with --client-cert and --client-key"),
    "another name": ("sni", "other.example", None),
}


@pytest.mark.parametrize("what", TURNED_AWAY)
def test_whoever_is_turned_away_is_told_why_in_a_line_before_anything_changes(mesh, url, access, keys, what):
    name, file, sentence = TURNED_AWAY[what]
    given = {field: getattr(access, field) for field in ("host", "ca_file", "client_cert", "client_key")}
    given[name] = file if name == "sni" or file is None else str(keys / file)
    if name == "client_cert":
        given["client_key"] = None if file is None else str(keys / "others/client.key")
    before = routes(mesh)
    with mesh.inside():
        if sentence is None:  # the Gateway knows no such name, and breaks off: no route is ever seen
            assert not routes_at(url, Access(**given), 3)
            return
        loaded = reading.load("digits", [*BARE, FEW])
        with pytest.raises(StackError, match=sentence) as told:
            stack.up(loaded, Wanted(gateway=url, access=Access(**given)))
        stack.leave(loaded, None, None)
    assert "\n" not in str(told.value)
    assert str(told.value).startswith(f"{url}, asked for {NAME}: ")
    assert routes(mesh) == before


def test_a_prediction_by_hand_gets_in_with_the_same_files_and_a_line_says_why_not(mesh, url, access, tmp_path):
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"instances": [[0.5] * 64]}))
    command = [sys.executable, "-m", "loadgen", "predict", str(body), "--experiment", "digits", "--host", url,
               "--host-header", NAME, "--ca-file", access.ca_file]  # fmt: skip
    mine = ["--client-cert", access.client_cert, "--client-key", access.client_key]
    let_in, turned_away = mesh.run([*command, *mine]), mesh.run(command)
    assert let_in.returncode == 0, let_in.stderr
    assert let_in.stdout.startswith("status   200")
    assert turned_away.returncode == 2
    assert "we show no certificate; give one with --client-cert" in turned_away.stderr.splitlines()[-1]


TOKEN = "hush-91c3-nobody-reads-this"  # noqa: S105 - nobody's
IN_CLUSTER = (
    "--set", "abort_if={errors: 90%}", "--set", "on_end=baseline",
    "--set", "cohorts.everyone.headers={authorization: 'Bearer ${MESH_TOKEN}'}",
    "--load", "in-cluster", "--load-image", "registry.example/splitproof-load:1", "--workers", "2",
)  # fmt: skip


@pytest.fixture
def load_pods(mesh, digits, url):
    """The pods of the load of digits are our Locust; what a DNS would resolve is put in their arguments."""
    rule = load_rule(mesh.place, mesh.api, f"{digits.experiment.name}-load", {INSIDE: url})
    mesh.kubelet.rules.insert(0, rule)
    yield
    mesh.kubelet.rules.remove(rule)


def test_a_load_in_the_cluster_is_judged_here_and_leaves_nothing_there(mesh, load_pods, theirs, runner, tmp_path):  # noqa: ARG001
    """As the attacher's account with the loader's role: two workers send, the brakes look, the records come whole."""
    before = as_they_are(mesh, theirs)
    with mesh.inside():
        account = str(kubeconfig_of(mesh, "splitproof-attacher", tmp_path))
    runner.extra.update(KUBECONFIG=account, MESH_TOKEN=TOKEN)
    ended = runner.run(*IN_CLUSTER)
    assert ended.code in (0, 3), ended.text
    assert ended.required <= {"shown", "undecided"}
    shards = [records.read_shard(shard) for shard in records.RunDir(ended.path).shards()]
    assert [shard.complete for shard in shards] == [True, True]
    assert {shard.header.workers for shard in shards} == {2}
    assert ended.info.locust_requests == sum(len(shard.rows) for shard in shards) > 500
    assert ended.report["records"]["judged"] > 300
    assert "all " in ended.checks["answers attributed"]
    assert "the load's clock is" in ended.text
    with mesh.inside():
        for version, kind in (("batch/v1", "Job"), ("v1", "Secret"), ("v1", "Service"), ("v1", "Pod")):
            assert api.listed(mesh.api, version, kind, "splitproof-load") == []
        assert not may(mesh, "splitproof-attacher", "get", "secrets", "istio-system")
    written = [each.read_text("latin-1") for each in runner.runs.rglob("*") if each.is_file()]
    assert not [each[:200] for each in [*written, ended.text] if TOKEN in each]
    assert untouched(before, as_they_are(mesh, theirs))
    (rule,) = routes(mesh)
    assert [each["destination"]["subset"] for each in rule["route"]] == ["small"]  # on_end: baseline


def test_weights_that_somebody_edits_under_the_run_are_the_routing_s_fault_and_their_editor_is_named(
    mesh, runner, theirs
):
    before = as_they_are(mesh, theirs)
    process = runner.start()
    runner.await_phase("split", 200)
    with mesh.inside():
        http = api.get(mesh.api, VIRTUAL)["spec"]["http"]
        http[0]["route"][0]["weight"], http[0]["route"][1]["weight"] = 30, 70
        api.apply(mesh.api, NEIGHBOUR, manager="neighbour")  # another team's, which is none of our business
        edited_us = time.time_ns() // 1000
        api.apply(mesh.api, {**VIRTUAL, "spec": {"http": http}}, manager=OWNER, force=True)
    told_us = runner.await_word('"foreign"')
    ended = runner.finish(process)
    report = ended.report
    with mesh.inside():
        api.delete(mesh.api, NEIGHBOUR)
    assert ended.code == 4, ended.text
    assert sum(edited_us <= row.start_us <= told_us for row in runner.rows()) < 300
    verdict = report["verdict"]
    assert (verdict["word"], verdict["cause"]) == ("invalid", "routing")
    told = "VirtualService digits-classifier was changed (weights now small 30/large 70) by kubectl-edit"
    assert told in verdict["sentence"]
    assert verdict["sentence"].endswith("the model may be fine.")
    assert {claim["state"] for claim in report["claims"] if claim["phase"] == "split"} == {"void"}
    assert {claim["state"] for claim in report["claims"] if claim["phase"] == "dark-launch"} <= {"shown", "undecided"}
    (entry,) = [each for each in journal.read(ended.path / "journal.jsonl") if isinstance(each, journal.Foreign)]
    assert (entry.by, entry.object, entry.lasting) == (OWNER, "VirtualService", False)
    (period,) = [each for each in report["periods"] if each["phase"] == "split"]
    assert period["end_s"] * 1e6 <= entry.at_us - ended.info.load_started_us + 1e5
    after = as_they_are(mesh, theirs)  # changed were the routes alone, and they are back
    assert untouched(before, after)
    assert nothing_of_ours(mesh)
    key = ("VirtualService", "digits-classifier")
    assert after[key]["spec"] == before[key]["spec"]


def test_a_brake_on_the_p99_ends_the_run_within_seconds_and_on_end_leave_leaves_its_routes(
    mesh, theirs, url, access, tmp_path
):
    before = as_they_are(mesh, theirs)
    changes = ["attach=true", f"gateway.host={NAME}", *(each for each in SHORT if each != "--set")]
    changes += ["abort_if={p99: 0.5ms}", "phases.0.for=60s", "on_end=leave"]
    with mesh.inside():
        target = Kubernetes(Wanted(gateway=url, access=access))
        outcome = conduct(reading.load("digits", changes), Options(tmp_path / "runs", target=target), Narrator())
    assert outcome.report.verdict.exit_code in (3, 4), outcome.report.verdict
    info = records.read_info(outcome.run)
    stopped = info.ended
    said = r"aborted: p99 of the last \d+ requests to small is .* s; abort_if.p99 is 0.0005 s"
    assert re.search(said, stopped.detail)
    assert (stopped.at_us - info.load_started_us) / 1e6 < 100 / 120 + 5  # 100 requests, and five seconds
    assert untouched(before, as_they_are(mesh, theirs))
    assert nothing_of_ours(mesh)
    experiment = reading.load("digits").experiment
    left = http_routes(experiment, next(each for each in experiment.phases if each.name == "dark-launch"))
    assert routes(mesh) == left != before["VirtualService", "digits-classifier"]["spec"]["http"]


def test_ctrl_c_ends_a_run_and_puts_the_routes_back(mesh, runner):
    before = routes(mesh)
    process = runner.start("--set", "phases.0.for=60s")
    runner.await_phase("dark-launch", 20)
    assert routes(mesh) != before
    process.send_signal(signal.SIGINT)
    ended = runner.finish(process)
    assert (ended.code, ended.info.ended.how) == (130, "interrupted"), ended.text
    assert (routes(mesh), nothing_of_ours(mesh)) == (before, True)


def test_without_a_route_header_each_change_is_a_bounded_transition_and_sigterm_puts_the_routes_back(
    mesh, url, access, tmp_path, monkeypatch
):
    """In the tutorial's profile nothing tells when a route is in force: what falls into that time is not judged."""
    monkeypatch.setattr(effect, "BLIND_S", 1.0)  # it is 5; the same holds of it
    before, folder = routes(mesh), tmp_path / "runs"
    changes = ["attach=true", f"gateway.host={NAME}", *(each for each in SHORT if each != "--set")]
    wanted = Wanted(gateway=url, profile="tutorial", access=access)
    with mesh.inside(), pytest.raises(Stopped, match="SIGTERM"):
        threading.Thread(target=end_in_split, args=(folder,), daemon=True).start()
        conduct(reading.load("digits", changes), Options(folder, target=Kubernetes(wanted)), Narrator())
    (path,) = folder.glob("*/*")
    assert (routes(mesh), nothing_of_ours(mesh)) == (before, True)
    found = [each for each in journal.changes(journal.read(path / "journal.jsonl")) if each.phase == "split"]
    lasted_s = [(each.effective_us - each.applied_us) / 1e6 for each in found]
    assert lasted_s == pytest.approx([1.0], abs=0.3)
    effective = [each for each in journal.read(path / "journal.jsonl") if isinstance(each, journal.Effective)]
    assert {(each.probes, each.seen) for each in effective} == {(0, False)}
    run = records.RunDir(path)
    rows = [row for shard in run.shards() for row in records.read_shard(shard).rows]
    assert {row.route for row in rows} == {None}
    within = [row for row in rows if found[0].applied_us < row.start_us < found[0].effective_us]
    report = examine(run).report
    assert len(within) > 60
    assert report.records.transition >= len(within)
    assert report.records.judged > 0


def end_in_split(folder):
    """Send this process a SIGTERM, a second after a run's second phase counts as in force."""
    for path in wait_for(lambda: list(folder.glob("*/*/journal.jsonl"))):
        wait_for(lambda path=path: path.read_text().count('"effective"') >= 2)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def wait_for(found):
    while not found():
        time.sleep(0.1)
    return found()
