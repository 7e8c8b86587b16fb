"""etcd, API server, controller manager, scheduler and KWOK: a Kubernetes cluster of one node."""

import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from plane import api, certificates
from plane.api import Api, Json
from plane.certificates import Certificates
from plane.namespace import NODE_ADDRESS, inside
from plane.processes import Place, running
from plane.waiting import MeshError, Told, until
from ruamel.yaml import YAML

from experiments.core.children import last_lines

_STAGES = Path(__file__).parent / "stages.yaml"
_ETCD = "http://127.0.0.1:2379"
_READY_WITHIN_S = 60.0


@contextmanager
def cluster(place: Place, told: Told) -> Iterator[Api]:
    """A Kubernetes API server with everything that makes Deployments into running pods, for as long as the block."""
    files = certificates.make(place.folder / "certificates")
    token = secrets.token_hex(16)
    (place.folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    served = Api(NODE_ADDRESS, files.authority, token)
    _write_kubeconfig(place, served)
    with ExitStack() as stack:
        stack.enter_context(running(place, "etcd", _etcd(place)))
        server = stack.enter_context(running(place, "kube-apiserver", _api_server(place, files)))
        with inside(place.namespace):
            until(lambda: api.healthy(served) or server.poll() is not None, "the API server", _READY_WITHIN_S)
        if server.poll() is not None:
            raise MeshError(f"the API server ended: {last_lines(place.log('kube-apiserver'), 2)}")
        told("the API server answers")
        stack.enter_context(running(place, "kube-controller-manager", _controllers(place, files)))
        stack.enter_context(running(place, "kube-scheduler", _scheduler(place)))
        with inside(place.namespace):
            _make_node(served)
        stack.enter_context(running(place, "kwok", _kwok(place, files)))
        yield served


def _write_kubeconfig(place: Place, served: Api) -> None:
    cluster_entry = {"server": f"https://{served.host}:{api.PORT}", "certificate-authority": str(served.authority)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "mesh", "cluster": cluster_entry}],
        "users": [{"name": "admin", "user": {"token": served.token}}],
        "contexts": [{"name": "mesh", "context": {"cluster": "mesh", "user": "admin"}}],
        "current-context": "mesh",
    }
    place.kubeconfig.write_text(json.dumps(document, indent=2))
    place.kubeconfig.chmod(0o600)


def _etcd(place: Place) -> list[str]:
    return [str(place.programs["server"]), "--data-dir", str(place.folder / "etcd"), "--unsafe-no-fsync"]


def _api_server(place: Place, files: Certificates) -> list[str]:
    return [
        str(place.programs["kube-apiserver"]),
        f"--etcd-servers={_ETCD}",
        f"--bind-address={NODE_ADDRESS}",
        f"--advertise-address={NODE_ADDRESS}",
        f"--secure-port={api.PORT}",
        f"--cert-dir={place.folder / 'certificates'}",
        f"--tls-cert-file={files.server}",
        f"--tls-private-key-file={files.server_key}",
        f"--token-auth-file={place.folder / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={files.accounts_key}",
        f"--service-account-signing-key-file={files.accounts_key}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--allow-privileged=true",
        # Calls to webhooks go to the address of a pod; those of Services need a kube-proxy.
        "--enable-aggregator-routing=true",
        "--kubelet-preferred-address-types=InternalIP",
        "--shutdown-delay-duration=0s",
    ]


def _controllers(place: Place, files: Certificates) -> list[str]:
    return [
        str(place.programs["kube-controller-manager"]),
        f"--kubeconfig={place.kubeconfig}",
        f"--service-account-private-key-file={files.accounts_key}",
        f"--root-ca-file={files.authority}",
        "--leader-elect=false",
        "--use-service-account-credentials=false",
        "--concurrent-deployment-syncs=2",
    ]


def _scheduler(place: Place) -> list[str]:
    return [str(place.programs["kube-scheduler"]), f"--kubeconfig={place.kubeconfig}", "--leader-elect=false"]


def _kwok(place: Place, files: Certificates) -> list[str]:
    return [
        str(place.programs["kwok"]),
        f"--kubeconfig={place.kubeconfig}",
        f"--config={_STAGES}",
        "--manage-all-nodes=true",
        # Without a lease the node counts as lost after 40 s, and all of its endpoints with it.
        "--node-lease-duration-seconds=40",
        f"--node-ip={NODE_ADDRESS}",
        "--cidr=10.244.1.0/24",
        "--node-port=10250",
        f"--server-address={NODE_ADDRESS}:10250",
        f"--tls-cert-file={files.server}",
        f"--tls-private-key-file={files.server_key}",
        "--enable-crds=PortForward",
    ]


def _make_node(served: Api) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "labels": {"kubernetes.io/os": "linux"}}}
    api.apply(served, node)
    api.apply(served, _port_forward_kind())
    until(lambda: _is_served(served), "the kind PortForward", _READY_WITHIN_S)


def _is_served(served: Api) -> bool:
    try:
        api.listed(served, "kwok.x-k8s.io/v1alpha1", "PortForward")
    except (api.RefusedError, LookupError):
        return False
    return True


def _port_forward_kind() -> Json:
    """KWOK's kind that says where a forwarded port of a pod ends; its own definition names each field."""
    text = """
    apiVersion: apiextensions.k8s.io/v1
    kind: CustomResourceDefinition
    metadata: {name: portforwards.kwok.x-k8s.io}
    spec:
      group: kwok.x-k8s.io
      names: {kind: PortForward, listKind: PortForwardList, plural: portforwards, singular: portforward}
      scope: Namespaced
      versions:
      - name: v1alpha1
        served: true
        storage: true
        subresources: {status: {}}
        schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    """
    found: Json = YAML(typ="safe").load(text)
    return found
