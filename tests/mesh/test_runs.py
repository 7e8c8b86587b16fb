"""`python -m experiments run --target kubernetes`: whole runs of a stack of our own, through a real Istio."""

import re

import pytest
from plane import api
from plane.accounts import grant, kubeconfig_of
from plane.mesh import serving
from plane.runner import SHORT, Runner

from deploy.cluster.stack import Wanted
from experiments.conductor import Options, conduct
from experiments.core import reading, records
from experiments.progress import Narrator
from experiments.targets import Kubernetes

pytestmark = [pytest.mark.slow, pytest.mark.mesh]


@pytest.fixture
def runner(mesh, digits, tmp_path):  # noqa: ARG001 - its pods are our serving processes
    with mesh.inside():
        return Runner(mesh, tmp_path, ("--gateway", mesh.gateway_url))


def test_a_healthy_run_names_every_arm_breaks_nothing_and_leaves_nothing(mesh, runner, tmp_path):
    """As the deployer's account: its role suffices for a whole run."""
    with mesh.inside():
        grant(mesh, "deployer")
        runner.extra["KUBECONFIG"] = str(kubeconfig_of(mesh, "splitproof-deployer", tmp_path))
    ended = runner.run("--set", "load.arrivals=240/s")
    assert ended.code in (0, 3), ended.text
    assert ended.required <= {"shown", "undecided"}
    judged = ended.report["records"]["judged"]
    assert judged > 1000
    assert ended.checks["answers attributed"] == f"all {judged:,} successful answers name their arm."
    assert ended.checks["route header agrees"] == f"{judged:,} route headers agree with the outputs."
    shares = ended.info.expectations["split"]["everyone"]["shares"]
    assert shares == pytest.approx({"small": 0.7, "large": 0.3})
    with mesh.inside():
        for version, kind in (("apps/v1", "Deployment"), ("v1", "Service"), ("networking.istio.io/v1", "Gateway")):
            assert api.listed(mesh.api, version, kind, "tf-serving") == []
        assert api.listed(mesh.api, "coordination.k8s.io/v1", "Lease", "tf-serving") == []


def test_a_canary_that_fails_is_stopped_by_the_brake(mesh, digits, trained, tmp_path):  # noqa: ARG001 - its home
    mesh.kubelet.rules.insert(0, serving("digits_classifier", trained, {"large": ["--failure-rate", "0.5"]}))
    changes = [*(each for each in SHORT if each != "--set"), "abort_if={errors: 20%}", "phases.1.for=60s"]
    try:
        with mesh.inside():
            target = Kubernetes(Wanted(gateway=mesh.gateway_url))
            outcome = conduct(reading.load("digits", changes), Options(tmp_path / "runs", target=target), Narrator())
    finally:
        mesh.kubelet.rules.pop(0)
    assert outcome.report.verdict.exit_code in (1, 4), outcome.report.verdict
    info = records.read_info(outcome.run)
    stopped = info.ended
    assert (stopped.at_us - info.load_started_us) / 1e6 < 60  # the phase alone would have taken that long
    assert re.search(r"aborted: \d+ of the last \d+ requests to large failed; abort_if.errors is 0.2", stopped.detail)
