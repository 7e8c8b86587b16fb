"""`experiments run --load in-cluster`: the load's pods are real Locusts, conducted through the API server alone."""

import json
import subprocess
import sys

import pytest
from plane import api
from plane.accounts import grant, kubeconfig_of, may
from plane.loading import load_rule
from plane.mesh import serving
from plane.processes import environment

from deploy import models as provisioning
from experiments.core import reading, records
from experiments.core.home import CHECKOUT

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

TOKEN = "hush-91c3-nobody-reads-this"  # noqa: S105 - nobody's
GATEWAY = "http://istio-ingressgateway.istio-system:80"
OPTIONS = (
    "--set", "load.warmup=1s", "--set", "phases.0.for=2s", "--set", "phases.1.for=8s", "--set", "phases.2.for=2s",
    "--set", "claims.latency={p50: {margin: +900%, required: false}}", "--set", "abort_if={errors: 90%}",
    "--set", "cohorts.everyone.headers={authorization: 'Bearer ${MESH_TOKEN}'}",
    "--load", "in-cluster", "--load-image", "registry.example/splitproof-load:1", "--workers", "2",
)  # fmt: skip


@pytest.fixture
def rules(mesh, tmp_path, models, monkeypatch):
    """The pods of digits are our serving processes, those of its load our Locust."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "models").symlink_to(models)
    monkeypatch.setenv("SPLITPROOF_HOME", str(tmp_path / "home"))
    loaded = reading.load("digits")
    found = {arm: model.base_path for arm, model in provisioning.ensure(loaded, lambda _: None).items()}
    with mesh.inside():
        names = {GATEWAY: mesh.gateway_url}
    given = [
        serving(loaded.experiment.model, found),
        load_rule(mesh.place, mesh.api, "digits-load", names),
    ]
    mesh.kubelet.rules[:0] = given
    yield
    for rule in given:
        mesh.kubelet.rules.remove(rule)


def test_a_load_in_the_cluster_is_judged_here_and_leaves_nothing_there(mesh, rules, tmp_path):  # noqa: ARG001
    """As the deployer's account with the loader's role: two workers send, the brakes look, the records come whole."""
    with mesh.inside():
        grant(mesh, "deployer", "loader")
        kubeconfig = kubeconfig_of(mesh, "splitproof-deployer", tmp_path)
        done = subprocess.run(
            [sys.executable, "-m", "experiments", "run", "digits", "--target", "kubernetes", *OPTIONS,
             "--gateway", mesh.gateway_url, "--runs", str(tmp_path / "runs")],
            capture_output=True, text=True, cwd=CHECKOUT, check=False, timeout=170,
            env={**environment(mesh.place), "SPLITPROOF_HOME": str(tmp_path / "home"), "KUBECONFIG": str(kubeconfig),
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
    assert info.locust_requests == sum(len(shard.rows) for shard in shards) > 1000
    assert report["records"]["judged"] > 1000
    checked = {check["name"]: check["sentence"] for check in report["checks"]}
    assert "all " in checked["answers attributed"]
    assert "the load's clock is" in text
    with mesh.inside():
        for version, kind in (("batch/v1", "Job"), ("v1", "Secret"), ("v1", "Service"), ("v1", "Pod")):
            assert api.listed(mesh.api, version, kind, "splitproof-load") == []
        assert not may(mesh, "splitproof-deployer", "get", "secrets", "istio-system")
    written = [each.read_text("latin-1") for each in (tmp_path / "runs").rglob("*") if each.is_file()]
    assert not [each[:200] for each in [*written, text] if TOKEN in each]
