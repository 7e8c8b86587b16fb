"""`experiments run --load in-cluster`: the load's pods are real Locusts, conducted through the API server alone."""

import json
import subprocess
import sys

import pytest
from plane import api
from plane.accounts import grant, kubeconfig_of, may
from plane.loading import load_rule
from plane.processes import environment

from experiments.core import records
from experiments.core.home import CHECKOUT

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

TOKEN = "hush-91c3-nobody-reads-this"  # noqa: S105 - nobody's
GATEWAY = "http://istio-ingressgateway.istio-system:80"
OPTIONS = (
    "--set", "load.warmup=1s", "--set", "phases.0.for=1s", "--set", "phases.1.for=6s", "--set", "phases.2.for=1s",
    "--set", "claims.latency={p50: {margin: +900%, required: false}}", "--set", "abort_if={errors: 90%}",
    "--set", "cohorts.everyone.headers={authorization: 'Bearer ${MESH_TOKEN}'}",
    "--load", "in-cluster", "--load-image", "registry.example/splitproof-load:1", "--workers", "2",
)  # fmt: skip


@pytest.fixture
def load_pods(mesh, digits):
    """The pods of the load of digits are our Locust; what a DNS would resolve is put in their arguments."""
    with mesh.inside():
        names = {GATEWAY: mesh.gateway_url}
    rule = load_rule(mesh.place, mesh.api, f"{digits.experiment.name}-load", names)
    mesh.kubelet.rules.insert(0, rule)
    yield
    mesh.kubelet.rules.remove(rule)


def test_a_load_in_the_cluster_is_judged_here_and_leaves_nothing_there(mesh, load_pods, tmp_path):  # noqa: ARG001
    """As the deployer's account with the loader's role: two workers send, the brakes look, the records come whole."""
    with mesh.inside():
        grant(mesh, "deployer", "loader")
        kubeconfig = kubeconfig_of(mesh, "splitproof-deployer", tmp_path)
        done = subprocess.run(
            [sys.executable, "-m", "experiments", "run", "digits", "--target", "kubernetes", *OPTIONS,
             "--gateway", mesh.gateway_url, "--runs", str(tmp_path / "runs")],
            capture_output=True, text=True, cwd=CHECKOUT, check=False, timeout=400,
            env={**environment(mesh.place), "KUBECONFIG": str(kubeconfig),
                 "MESH_TOKEN": TOKEN},
        )  # fmt: skip
    text = done.stdout + done.stderr
    assert done.returncode in (0, 3), text
    (path,) = (tmp_path / "runs").glob("*/*")
    run = records.RunDir(path)
    shards = [records.read_shard(shard) for shard in run.shards()]
    info, report = records.read_info(run), json.loads((path / "report.json").read_text())
    assert [shard.complete for shard in shards] == [True, True]
    assert {shard.header.workers for shard in shards} == {2}
    assert info.locust_requests == sum(len(shard.rows) for shard in shards) > 500
    assert report["records"]["judged"] > 300
    checked = {check["name"]: check["sentence"] for check in report["checks"]}
    assert "all " in checked["answers attributed"]
    assert "the load's clock is" in text
    with mesh.inside():
        for version, kind in (("batch/v1", "Job"), ("v1", "Secret"), ("v1", "Service"), ("v1", "Pod")):
            assert api.listed(mesh.api, version, kind, "splitproof-load") == []
        assert not may(mesh, "splitproof-deployer", "get", "secrets", "istio-system")
    written = [each.read_text("latin-1") for each in (tmp_path / "runs").rglob("*") if each.is_file()]
    assert not [each[:200] for each in [*written, text] if TOKEN in each]
