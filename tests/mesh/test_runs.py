"""`python -m experiments run --target kubernetes`: whole runs through a real Istio."""

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
from plane import api
from plane.mesh import serving
from plane.objects import FEW, apply_all, remove_all, rendered
from plane.processes import environment
from plane.waiting import until

from experiments.core import journal, records
from experiments.core.home import CHECKOUT

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

SHORT = (
    "--set", "load.warmup=1s", "--set", "phases.0.for=3s", "--set", "phases.1.for=10s", "--set", "phases.2.for=3s",
    "--set", FEW, "--set", "claims.latency={p50: {margin: +900%, required: false}}",
)  # fmt: skip
VIRTUAL = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "digits-classifier", "namespace": "tf-serving"},
}


@dataclass
class Runner:
    """Runs of digits on a mesh whose pods are our serving processes."""

    mesh: object
    folder: object
    models: dict

    def start(self, *options):
        with self.mesh.inside():
            return subprocess.Popen(
                [sys.executable, "-m", "experiments", "run", "digits", "--target", "kubernetes", *SHORT, *options,
                 "--gateway", self.mesh.gateway_url, "--runs", str(self.folder / "runs")],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT,
                env=environment(self.mesh.place),
            )  # fmt: skip

    def finish(self, process):
        out, err = process.communicate(timeout=400)
        found = sorted((self.folder / "runs").glob("*/*"), key=lambda path: path.name)
        assert found, err
        path = found[-1] / "report.json"
        return process.returncode, json.loads(path.read_text()) if path.exists() else None, out + err, found[-1]

    def run(self, *options):
        return self.finish(self.start(*options))

    def rows(self):
        """What the run has recorded so far."""
        shards = [path for path in (self.folder / "runs").glob("*/*/requests-*.jsonl") if path.stat().st_size]
        return [row for path in shards for row in records.read_shard(path).rows]

    def await_phase(self, name, rows=200):
        """Wait until a run has recorded that many requests in a phase."""

        def reached():
            return sum((row.route or "").startswith(f"{name}/") for row in self.rows()) >= rows

        until(reached, f"{rows} requests in phase {name}", 150)

    def foreign_us(self):
        """When the run's own journal told of somebody else."""
        (path,) = (self.folder / "runs").glob("*/*/journal.jsonl")
        until(lambda: '"foreign"' in path.read_text(), "the run to hear of it", 20, every_s=0.02)
        return path.stat().st_mtime_ns // 1000


@pytest.fixture
def runner(mesh, digits, trained, tmp_path):  # noqa: ARG001 - its pods are our serving processes
    return Runner(mesh, tmp_path, trained)


def required(report):
    return {claim["state"] for claim in report["claims"] if claim["required"]}


def checks(report):
    return {check["name"]: check for check in report["checks"]}


def test_a_healthy_run_names_every_arm_breaks_nothing_and_leaves_nothing(mesh, runner):
    code, report, text, run = runner.run()
    assert code in (0, 3), text
    assert required(report) <= {"shown", "undecided"}
    judged = report["records"]["judged"]
    assert judged > 1000
    assert checks(report)["answers attributed"]["sentence"] == f"all {judged:,} successful answers name their arm."
    assert checks(report)["route header agrees"]["sentence"] == f"{judged:,} route headers agree with the outputs."
    shares = records.read_info(records.RunDir(run)).expectations["split"]["everyone"]["shares"]
    assert shares == pytest.approx({"small": 0.7, "large": 0.3})
    with mesh.inside():
        for version, kind in (("apps/v1", "Deployment"), ("v1", "Service"), ("networking.istio.io/v1", "Gateway")):
            assert api.listed(mesh.api, version, kind, "tf-serving") == []
        assert api.listed(mesh.api, "coordination.k8s.io/v1", "Lease", "tf-serving") == []


def test_a_canary_that_fails_is_stopped_by_the_brake(mesh, runner):
    mesh.kubelet.rules.insert(0, serving("digits_classifier", runner.models, {"large": ["--failure-rate", "0.5"]}))
    try:
        code, _, text, run = runner.run("--set", "abort_if={errors: 20%}", "--set", "phases.1.for=60s")
        assert code in (1, 4), text
        info = records.read_info(records.RunDir(run))
        ended = info.ended
        assert (ended.at_us - info.load_started_us) / 1e6 < 60  # the phase alone would have taken that long
        assert re.search(r"aborted: \d+ of the last \d+ requests to large failed; abort_if.errors is 0.2", ended.detail)
    finally:
        mesh.kubelet.rules.pop(0)


@pytest.fixture(scope="module")
def theirs(mesh, digits):  # noqa: ARG001 - its pods are our serving processes
    """A stack of somebody else: applied by hand, without our labels, with a VirtualService of its owner."""
    objects = [unlabelled(each) for each in rendered(mesh, "digits", "--profile", "tutorial")]
    apply_all(mesh, objects)
    yield objects
    remove_all(mesh, objects)


def as_they_are(mesh, objects):
    with mesh.inside():
        return {each["kind"]: api.get(mesh.api, each) for each in objects}


def test_an_attached_run_changes_routes_only_and_puts_them_back(mesh, runner, theirs):
    before = as_they_are(mesh, theirs)
    code, report, text, _ = runner.run("--set", "attach=true", "--set", "phases.1.for=5s")
    assert code in (0, 3), text
    assert required(report) <= {"shown", "undecided"}
    after = as_they_are(mesh, theirs)
    with mesh.inside():
        assert api.listed(mesh.api, "v1", "ConfigMap", "tf-serving", "app.kubernetes.io/managed-by") == []
    assert after["VirtualService"]["spec"] == before["VirtualService"]["spec"]
    for kind in ("Deployment", "Service", "DestinationRule", "Gateway", "ConfigMap"):
        assert after[kind]["metadata"].get("generation") == before[kind]["metadata"].get("generation")
        assert after[kind]["metadata"]["uid"] == before[kind]["metadata"]["uid"]


def test_weights_that_somebody_edits_under_the_run_are_the_routing_s_fault_and_their_editor_is_named(
    mesh, runner, theirs
):
    before = as_they_are(mesh, theirs)
    process = runner.start("--set", "attach=true", "--set", "phases.1.for=8s")
    runner.await_phase("split")
    with mesh.inside():
        http = api.get(mesh.api, VIRTUAL)["spec"]["http"]
        http[0]["route"][0]["weight"], http[0]["route"][1]["weight"] = 30, 70
        edited_us = time.time_ns() // 1000
        api.apply(mesh.api, {**VIRTUAL, "spec": {"http": http}}, manager="kubectl-edit", force=True)
    told_us = runner.foreign_us()
    code, report, text, run = runner.finish(process)
    assert code == 4, text
    assert sum(edited_us <= row.start_us <= told_us for row in runner.rows()) < 300
    verdict = report["verdict"]
    assert (verdict["word"], verdict["cause"]) == ("invalid", "routing")
    told = "VirtualService digits-classifier was changed (weights now small 30/large 70) by kubectl-edit"
    assert told in verdict["sentence"]
    assert verdict["sentence"].endswith("the model may be fine.")
    assert {claim["state"] for claim in report["claims"] if claim["phase"] == "split"} == {"void"}
    assert {claim["state"] for claim in report["claims"] if claim["phase"] == "dark-launch"} <= {"shown", "undecided"}
    (entry,) = [each for each in journal.read(run / "journal.jsonl") if isinstance(each, journal.Foreign)]
    assert (entry.by, entry.object, entry.lasting) == ("kubectl-edit", "VirtualService", False)
    assert as_they_are(mesh, theirs)["VirtualService"]["spec"] == before["VirtualService"]["spec"]
    (period,) = [each for each in report["periods"] if each["phase"] == "split"]
    assert period["end_s"] * 1e6 <= entry.at_us - records.read_info(records.RunDir(run)).load_started_us + 1e5


def unlabelled(manifest):
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "labels"}
    given = manifest["metadata"].get("labels", {})
    labels = {name: value for name, value in given.items() if "kubernetes.io" not in name}
    return {**manifest, "metadata": {**metadata, **({"labels": labels} if labels else {})}}
