"""What a stack may be put up with and against, where its way in is, what keeps pods waiting, and who may."""

import contextlib
import copy
import json
import socket
import sys
import threading

import pytest
from plane import api
from plane.accounts import grant, kubeconfig_of, may, refused
from plane.faulty import Fault, faulty
from plane.objects import FEW, pods, remove_all, rendered
from plane.traffic import ask

from deploy import istio
from deploy.cluster import readiness, stack
from deploy.cluster.client import connect
from deploy.cluster.refusals import ApiError
from deploy.cluster.stack import Wanted
from experiments.core import reading
from experiments.core.errors import StackError
from experiments.core.routing import predict_path

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

NAMESPACE = "tf-serving"
SELECTOR = {"istio": "ingressgateway"}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "istio-ingressgateway", "namespace": "istio-system"},
}
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
IMAGE = f"tensorflow/serving@sha256:{'0' * 64}"
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "models", "namespace": NAMESPACE},
    "spec": {
        "accessModes": ["ReadOnlyMany"],
        "storageClassName": "",
        "volumeName": "models",
        "resources": {"requests": {"storage": "1Gi"}},
    },
}
VOLUME = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "metadata": {"name": "models"},
    "spec": {"accessModes": ["ReadOnlyMany"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data/models"}},
}


@contextlib.contextmanager
def listening(address, port):
    """Somebody who takes connections and says nothing: enough for a way in to count as reached."""
    with socket.create_server((address, port)) as server:
        thread = threading.Thread(target=_take, args=(server,), daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def _take(server):
    with contextlib.suppress(OSError):
        while True:
            server.accept()[0].close()


def test_the_way_in_is_a_load_balancer_else_a_node_port_else_a_forwarded_port(mesh, digits):  # noqa: ARG001
    with mesh.inside():
        service = api.get(mesh.api, SERVICE)
        (port,) = [each["nodePort"] for each in service["spec"]["ports"] if each["port"] == 80]
        found = istio.ingress(connect(), SELECTOR)
        assert found.url is None
        assert "a forwarded port, since neither load balancer nor node port answers" in found.how
        assert istio.from_inside(connect(), SELECTOR) == "http://istio-ingressgateway.istio-system:80"
        with listening("10.244.0.1", port):
            found = istio.ingress(connect(), SELECTOR)
        assert found.url == f"http://10.244.0.1:{port}"
        assert found.how == "the node port of Service istio-system/istio-ingressgateway"
        api.patch(mesh.api, SERVICE, {"status": {"loadBalancer": {"ingress": [{"ip": "10.244.0.1"}]}}}, "status")
        api.patch(mesh.api, NODE, {"metadata": {"labels": {"minikube.k8s.io/name": "minikube"}}})
        try:
            with listening("10.244.0.1", 80):
                found = istio.ingress(connect(), SELECTOR)
            assert (found.url, found.how[:17]) == ("http://10.244.0.1:80", "the load balancer")
            # An address that nobody answers at is what minikube has without its tunnel.
            assert "run: minikube tunnel" in istio.ingress(connect(), SELECTOR).how
        finally:
            api.patch(mesh.api, SERVICE, {"status": {"loadBalancer": {"ingress": None}}}, "status")
            api.patch(mesh.api, NODE, {"metadata": {"labels": {"minikube.k8s.io/name": None}}})


def test_the_command_tells_what_is_installed_and_the_servers_dry_run_changes_nothing(mesh, digits):  # noqa: ARG001
    told = mesh.run([sys.executable, "-m", "deploy", "istio"])
    assert told.returncode == 0, told.stderr
    assert "routing API networking.istio.io/v1" in told.stdout
    assert "injects  default" in told.stdout
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    with mesh.inside():
        api.apply(mesh.api, space, force=True)
    tried = mesh.run(
        [sys.executable, "-m", "deploy", "up", "digits", "--target", "kubernetes", "--dry-run",
         "--model-claim", "models", "--image", IMAGE]
    )  # fmt: skip
    assert tried.returncode == 0, tried.stderr
    lines = tried.stdout.splitlines()
    assert lines[0].endswith("dry run, nothing is changed")
    assert len(lines) > 8
    assert all(line.endswith(": accepted") for line in lines[1:])
    with mesh.inside():
        assert api.listed(mesh.api, "apps/v1", "Deployment", NAMESPACE) == []


def test_a_pod_that_cannot_be_scheduled_is_named_with_the_schedulers_reason(mesh, digits):  # noqa: ARG001
    (deployment,) = [
        each for each in rendered(mesh, "digits")
        if each["kind"] == "Deployment" and each["metadata"]["name"].endswith("small")
    ]  # fmt: skip
    deployment = copy.deepcopy(deployment)
    deployment["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "none-has-it"}
    said = []
    try:
        with mesh.inside():
            api.apply(mesh.api, deployment, force=True)
            with pytest.raises(StackError, match=r"waited 2 s in vain for Deployment digits-classifier-small: 0 of 1"):
                readiness.await_ready(connect(), [deployment], 2, said.append)
        assert any("cannot be scheduled: 0/1 nodes are available" in line for line in said), said
    finally:
        remove_all(mesh, [deployment])


ONLY_V1BETA1 = Fault(r" /apis/(networking|security)\.istio\.io/(v1|v1alpha3)(/|$)", 404, times=1_000_000)


def test_where_only_v1beta1_is_served_a_claim_and_an_image_stay_what_up_was_told_and_on_end_leaves_what_it_says(
    mesh, digits, tmp_path, monkeypatch
):
    """An API server that answers 404 to every other version of Istio's: up, route, status and down all go through."""
    said, loaded = [], reading.load("digits", [FEW, "on_end=canary"])
    with faulty(mesh.api, mesh.place.namespace) as between, mesh.inside():
        grant(mesh)
        for each in (VOLUME, CLAIM):
            api.apply(mesh.api, each, force=True)
        between.faults.append(ONLY_V1BETA1)
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig_at(mesh, between.url, tmp_path)))
        wanted = Wanted(gateway=mesh.gateway_url, model_claim="models", image=IMAGE, mutual_tls=False)
        try:
            info = stack.up(loaded, wanted, progress=said.append)
            assert info.cluster.istio == "networking.istio.io/v1beta1"
            assert any("kubectl -n tf-serving cp" in line for line in said)
            before = stack.routing("digits")
            stack.route("digits", "split")
            check_pods(mesh)
            assert stack.status("digits").drift == ()
            stack.settle("digits", before)
            path = predict_path(digits.experiment.model)
            assert {each.route for each in ask(mesh.gateway_url, 30, path)} == {"on-end/large"}
            found = stack.status("digits")
            assert (found.phase, found.drift) == ("on-end", ())
        finally:
            stack.down("digits", digits, None)
            for each in (CLAIM, VOLUME):
                api.delete(mesh.api, each)
        for kind in ("VirtualService", "DestinationRule", "Gateway"):
            assert api.listed(mesh.api, "networking.istio.io/v1", kind, NAMESPACE) == []
        assert api.listed(mesh.api, "security.istio.io/v1", "AuthorizationPolicy", NAMESPACE) == []
    written = {line.split("?")[0].rpartition("/")[0] for line in between.seen if line.startswith("PATCH")}
    for group, plural in (("networking", "virtualservices"), ("security", "authorizationpolicies")):
        assert f"PATCH /apis/{group}.istio.io/v1beta1/namespaces/{NAMESPACE}/{plural}" in written


def check_pods(mesh):
    """Image and claim are what they were told to be."""
    for name in ("small", "large"):
        (pod,) = pods(mesh, NAMESPACE, f"version={name}")
        (container,) = [each for each in pod["spec"]["containers"] if each["name"] == "tf-serving"]
        assert container["image"] == IMAGE
        claims = [each.get("persistentVolumeClaim", {}).get("claimName") for each in pod["spec"]["volumes"]]
        assert "models" in claims


def kubeconfig_at(mesh, url, folder):
    """A kubeconfig that leads to another address."""
    document = json.loads(mesh.kubeconfig.read_text())
    document["clusters"][0]["cluster"] = {"server": url}
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    return path


FORBIDDEN = [
    *((verb, "deployments.apps", NAMESPACE) for verb in ("create", "patch", "delete")),
    *((verb, "services", NAMESPACE) for verb in ("create", "patch", "delete")),
    *((verb, "pods", NAMESPACE) for verb in ("create", "delete")),
    *((verb, "virtualservices.networking.istio.io", NAMESPACE) for verb in ("create", "delete")),
    ("patch", "virtualservices.networking.istio.io", "istio-system"),
    ("get", "secrets", NAMESPACE),
]


def test_each_role_allows_what_its_mode_does_and_no_more(mesh, digits, tmp_path, monkeypatch):  # noqa: ARG001
    with mesh.inside():
        grant(mesh, "deployer", "attacher", "viewer", "loader")
        for account in ("splitproof-deployer", "splitproof-attacher"):
            assert may(mesh, account, "create", "jobs.batch", "splitproof-load")
            assert may(mesh, account, "create", "pods/portforward", "splitproof-load")
            assert not may(mesh, account, "create", "jobs.batch")
            assert not may(mesh, account, "get", "secrets", "istio-system")
        more = [("create", "pods/portforward", NAMESPACE), ("patch", "virtualservices.networking.istio.io", NAMESPACE)]
        assert refused(mesh, "splitproof-viewer", [*FORBIDDEN, *more]) == []
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig_of(mesh, "splitproof-viewer", tmp_path)))
        with pytest.raises(ApiError, match="grant the verb") as told:
            stack.up(reading.load("digits"), Wanted(gateway=mesh.gateway_url))
        assert "deploy/rbac" in str(told.value)
