"""What is said of a cluster's refusals, and which context is used: no cluster is needed to know."""

import json

import pytest

from deploy.cluster.client import IN_CLUSTER, connect
from deploy.cluster.refusals import Asked, refusal
from experiments.core.errors import Exit, StackError

ASKED = Asked("patch", "virtualservices.networking.istio.io", "web", "shop")


def status(message, **more):
    return json.dumps({"kind": "Status", "message": message, **more}).encode()


@pytest.mark.parametrize(
    ("code", "body", "said"),
    [
        (401, status("Unauthorized"), "does not accept the context's credentials (401"),
        (403, status("no"), "grant the verb 'patch' on 'virtualservices.networking.istio.io'"),
        (403, status("admission webhook denied"), "refuses to patch virtualservices.networking.istio.io web"),
        (
            403,
            status("exceeded quota: small, requested: pods=1"),
            "quota: small, requested: pods=1; mend",
        ),
        (403, status('namespace "shop" because it is being terminated'), "it is being terminated; mend what it names"),
        (404, status("not found"), "there is none (404): not found; create it first."),
        (422, status("weight -30 < 0"), "as invalid (422): weight -30 < 0; mend the experiment."),
        (429, status("slow down"), "too many requests to patch"),
        (503, b"<html>upstream\nis down</html>", "failed to patch"),
        (500, b"", "failed to patch"),
    ],
)
def test_each_status_is_one_sentence_with_what_to_do(code, body, said):
    error = refusal("context c (https://here)", ASKED, code, body)
    assert str(error).startswith("context c (https://here): ")
    assert said in str(error)
    assert "\n" not in str(error)
    assert (error.status, error.exit_code) == (code, Exit.USAGE)


def test_a_conflict_names_the_fields_and_their_owners():
    causes = [{"field": ".spec.http", "message": 'conflict with "kubectl-edit"'}]
    error = refusal("context c", ASKED, 409, status("Apply failed", details={"causes": causes}))
    assert '.spec.http: conflict with "kubectl-edit"' in str(error)
    assert "--force-conflicts" in str(error)


def kubeconfig(path, *names):
    clusters = [{"name": name, "cluster": {"server": f"https://{name}.example:6443"}} for name in names]
    contexts = [{"name": name, "context": {"cluster": name, "user": "me"}} for name in names]
    document = {"apiVersion": "v1", "kind": "Config", "clusters": clusters, "contexts": contexts,
                "users": [{"name": "me", "user": {"token": "t"}}], "current-context": names[0]}  # fmt: skip
    path.write_text(json.dumps(document))
    return str(path)


def test_the_only_context_is_used_and_none_of_several(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path / "one", "lab"))
    assert str(connect()) == "context lab (https://lab.example:6443)"
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path / "two", "lab", "production"))
    with pytest.raises(StackError, match="choose one with --context"):
        connect()
    assert connect("production").server == "https://production.example:6443"
    with pytest.raises(StackError, match="--context prod: is not in the kubeconfig"):
        connect("prod")


def test_what_is_no_kubeconfig_is_told(tmp_path, monkeypatch):
    (tmp_path / "broken").write_text("contexts: [")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "broken"))
    with pytest.raises(StackError):
        connect()
    with pytest.raises(StackError, match="run in a pod"):
        connect(IN_CLUSTER)
