"""Istio on a cluster: is it there, which version, does it inject, and where does traffic come in?"""

import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from deploy.cluster.client import Cluster, Json
from deploy.cluster.objects import get, listed, serves
from deploy.cluster.readiness import is_ready
from experiments.core.errors import StackError
from experiments.core.stack import PLAIN, Front

VERSIONS = tuple(f"networking.istio.io/{version}" for version in ("v1", "v1beta1", "v1alpha3"))
"""API versions of Istio's routing, the newest first."""

OLDEST = {
    "networking.istio.io/v1": (1, 22),
    "networking.istio.io/v1beta1": (1, 5),
    "networking.istio.io/v1alpha3": (1, 0),
}
"""The release of Istio that first served each."""

_REACHED_WITHIN_S = 2.0
_INSTALLED_WITHIN_S = 600.0


@dataclass(frozen=True)
class Istio:
    """What is installed: the API version to write, istiod's own version, and who injects."""

    api: str
    version: str | None
    revisions: Sequence[str]


@dataclass(frozen=True)
class Ingress:
    """Where traffic comes in, and how that was found; `url` None where only a forwarded port is left."""

    url: str | None
    how: str
    selector: Mapping[str, str]
    front: Front = PLAIN


def find(cluster: Cluster) -> Istio:
    """The Istio of a cluster.

    Raises:
        StackError: there is none, or none of our API versions is served.
    """
    served = [version for version in VERSIONS if serves(cluster, version, "VirtualService")]
    if not served:
        raise StackError(f"{cluster}: Istio is not installed; install it: python -m deploy istio --install.")
    pods = listed(cluster, "v1", "Pod", "", "app=istiod")
    if not any(is_ready(pod) for pod in pods):
        state = "no istiod pod is ready" if pods else "it has no istiod"
        raise StackError(f"{cluster}: has Istio's API, but {state}; see: kubectl get pods -A -l app=istiod")
    webhooks = listed(
        cluster, "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "", "app=sidecar-injector"
    )
    labels = [each["metadata"].get("labels") or {} for each in webhooks]
    # A namespace may name a revision, or a tag that stands for one.
    tags = {str(each["istio.io/tag"]) for each in labels if each.get("istio.io/tag")}
    revisions = sorted({str(each.get("istio.io/rev", "default")) for each in labels} | tags)
    return Istio(served[0], _version(pods), revisions)


def _version(pods: Sequence[Json]) -> str | None:
    """The version of istiod, from the tag of its image: `1.24.2` or `1.31-alpha.abc`."""
    for pod in pods:
        for container in pod["spec"]["containers"]:
            found = re.search(r":(\d+\.\d+[\w.-]*?)(?:-distroless|-debug)?(?:@.*)?$", str(container.get("image", "")))
            if found:
                return found[1]
    return None


def refuse_too_old(istio: Istio, manifests: Sequence[Json]) -> None:
    """Raise if this Istio cannot serve what the manifests are written in.

    Raises:
        StackError: with both versions and the way out.
    """
    numbers = re.match(r"(\d+)\.(\d+)", istio.version or "")
    for manifest in manifests:
        oldest = OLDEST.get(manifest["apiVersion"])
        if oldest and numbers and (int(numbers[1]), int(numbers[2])) < oldest:
            raise StackError(
                f"Istio {istio.version} is too old for {manifest['kind']} {manifest['metadata']['name']}: "
                f"{manifest['apiVersion']} came with {oldest[0]}.{oldest[1]}; upgrade it, or use its own {istio.api}."
            )


def injection(cluster: Cluster, namespace: str, istio: Istio) -> str | None:
    """Why pods of a namespace would get no sidecar; None where they do."""
    found = get(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    labels = ((found or {}).get("metadata") or {}).get("labels") or {}
    if not istio.revisions:
        return "no sidecar injector is installed"
    if labels.get("istio-injection") == "enabled":
        return None
    revision = labels.get("istio.io/rev")
    if revision in istio.revisions:
        return None
    if revision:
        return f"its label istio.io/rev={revision} names no injector; there are: {', '.join(istio.revisions)}"
    return "it has no label istio-injection=enabled"


def ingress(cluster: Cluster, selector: Mapping[str, str], front: Front = PLAIN) -> Ingress:
    """Where a Gateway with this selector takes traffic in: a load balancer, a node port, or only a forwarded port.

    Raises:
        StackError: no ready pod has the selector's labels.
    """
    pod, services = _services(cluster, selector)
    front = _targeted(front, pod, services)
    for service in services:
        for url, how in _ways(cluster, service, front):
            if _reached(url):
                return Ingress(url, how, selector, front)
    return Ingress(None, _advice(cluster), selector, front)


def given(cluster: Cluster, selector: Mapping[str, str], front: Front, url: str) -> Ingress:
    """The same where the user names the way in; where the gateway's own pods listen is read if they can be seen."""
    with contextlib.suppress(StackError):
        front = _targeted(front, *_services(cluster, selector))
    return Ingress(url.rstrip("/"), "as given by --gateway", selector, front)


def _targeted(front: Front, pod: Json, services: Sequence[Json]) -> Front:
    """The port of a Gateway with the one at which its pods listen: Istio opens the `targetPort` of the Service."""
    for service in services:
        port = _port(service, front)
        target = port.get("targetPort", port["port"]) if port else None
        if isinstance(target, str):
            target = _named_port(pod, target)
        if target is not None:
            return Front(front.port, front.tls, int(target))
    return front


def _named_port(pod: Json, name: str) -> int | None:
    ports = (each for container in pod["spec"]["containers"] for each in container.get("ports") or ())
    return next((int(each["containerPort"]) for each in ports if each.get("name") == name), None)


def _port(service: Json, front: Front) -> Json | None:
    return next((each for each in service["spec"].get("ports") or () if each.get("port") == front.port), None)


def from_inside(cluster: Cluster, selector: Mapping[str, str], front: Front = PLAIN) -> str:
    """The URL of the same way in for those in the cluster: the gateway's Service by its name.

    Raises:
        StackError: no ready pod has the selector's labels, or no Service with that port leads to it.
    """
    for service in _services(cluster, selector)[1]:
        if _port(service, front):
            name, space = service["metadata"]["name"], service["metadata"]["namespace"]
            return f"{front.scheme}://{name}.{space}:{front.port}"
    raise StackError(
        f"{cluster}: no Service of the gateway has port {front.port}; name the way in with --load-host URL."
    )


def _services(cluster: Cluster, selector: Mapping[str, str]) -> tuple[Json, list[Json]]:
    """A pod of the gateway, and the Services that lead to it.

    Raises:
        StackError: no ready pod has the selector's labels.
    """
    labels = ",".join(f"{name}={value}" for name, value in selector.items())
    pods = [pod for pod in listed(cluster, "v1", "Pod", "", labels) if is_ready(pod)]
    if not pods:
        raise StackError(f"{cluster}: no ready pod has the Gateway's labels {labels}; install an ingress gateway.")
    own = dict(pods[0]["metadata"].get("labels") or {})
    services = listed(cluster, "v1", "Service", pods[0]["metadata"]["namespace"])
    return pods[0], [
        each for each in services if each["spec"].get("selector") and each["spec"]["selector"].items() <= own.items()
    ]


def _ways(cluster: Cluster, service: Json, front: Front) -> Iterator[tuple[str, str]]:
    """URLs that may lead to a gateway's Service, the best first."""
    name = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
    port = _port(service, front)
    if port is None:
        return
    for entry in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
        address = entry.get("ip") or entry.get("hostname")
        yield f"{front.scheme}://{address}:{front.port}", f"the load balancer of Service {name}"
    if port.get("nodePort"):
        for node in listed(cluster, "v1", "Node"):
            for address in (node.get("status") or {}).get("addresses") or ():
                if address["type"] in {"ExternalIP", "InternalIP"}:
                    url = f"{front.scheme}://{address['address']}:{port['nodePort']}"
                    yield url, f"the node port of Service {name}"


def _reached(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), _REACHED_WITHIN_S).close()
    except OSError:
        return False
    return True


def _advice(cluster: Cluster) -> str:
    nodes = listed(cluster, "v1", "Node")
    remedy = "give its Service a load balancer, or name the way in with --gateway URL"
    if any("minikube.k8s.io/name" in (node["metadata"].get("labels") or {}) for node in nodes):
        remedy = "for a load balancer's address, run: minikube tunnel"
    return (
        "a forwarded port, since neither load balancer nor node port answers; what it adds is in every latency; "
        f"{remedy}"
    )


def install(cluster: Cluster, told: Callable[[str], None]) -> None:
    """Run `istioctl install` with the profile that the canary lab uses, on this very context.

    Raises:
        StackError: there is no istioctl, or it fails; the message has the commands that do the same with Helm.
    """
    program = shutil.which("istioctl")
    if program is None:
        raise StackError(f"istioctl is not on the PATH; get it from istio.io/downloadIstio, or: {' && '.join(HELM)}")
    arguments = [program, "install", "--context", cluster.context, "--set", "profile=default", "-y"]
    told(f"{cluster}: {' '.join(['istioctl', *arguments[1:]])}")
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=_INSTALLED_WITHIN_S)
    except subprocess.TimeoutExpired as error:
        raise StackError(f"istioctl has not ended within {_INSTALLED_WITHIN_S:.0f} s; see: istioctl version") from error
    if done.returncode:
        last = " | ".join((done.stderr or done.stdout).strip().splitlines()[-2:])
        raise StackError(f"istioctl ended with {done.returncode}: {last}; mend it and run it again.")
    told("Istio is installed")


HELM = (
    "helm repo add istio https://istio-release.storage.googleapis.com/charts",
    "helm install istio-base istio/base -n istio-system --create-namespace",
    "helm install istiod istio/istiod -n istio-system --wait",
    "helm install istio-ingressgateway istio/gateway -n istio-system",
)
"""The same installation by Helm, for clusters whose owners want charts."""
