"""What the hardened profile adds to the lab's objects, and the objects that it adds (pure).

The reasons are TensorFlow Serving's own behaviour and Istio's: docs/how-to/kubernetes.md has them one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deploy.form import MANAGED_BY, Form, Manifest
from experiments.core.routing import SERVICE_PORT
from experiments.core.spec import Experiment

GRPC_PORT = 8500
"""TensorFlow Serving's gRPC port, which the Service exposes as `tf-serving-grpc`."""

_USER = 10001
"""Any user but root: the server needs to read the model and to write to /tmp, nothing else."""

_HBONE_PORT = 15008
_ISTIOD_PORT = 15012
_PROTOCOLS = {GRPC_PORT: "grpc", SERVICE_PORT: "http"}


def harden(experiment: Experiment, arms: Sequence[str], found: Sequence[Manifest], form: Form) -> list[Manifest]:
    """The lab's objects with what each kind gets, and policies before the pods that they are for."""
    changes: Mapping[str, Callable[[Manifest], Manifest]] = {
        "Service": _with_protocols,
        "Deployment": lambda deployment: _deployment(experiment, deployment),
    }
    hardened = [changes[each["kind"]](each) if each["kind"] in changes else each for each in found]
    namespace, *rest = hardened
    policies = [
        _network_policy(experiment, form),
        _authorization_policy(experiment, form),
        *(_disruption_budget(experiment, arm) for arm in arms),
    ]
    # The Namespace may have been there before us: it is never ours to remove.
    return [namespace, *(_marked(experiment, each) for each in (*policies, *rest))]


def _marked(experiment: Experiment, manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    ours = {**MANAGED_BY, "app.kubernetes.io/part-of": experiment.name}
    return {**manifest, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **ours}}}


def _with_protocols(service: Manifest) -> Manifest:
    """Name the protocol: by its prefix `tf-serving-grpc` means none, and the gateway would speak HTTP/1.1 to gRPC."""
    ports = [{**port, "appProtocol": _PROTOCOLS[port["port"]]} for port in service["spec"]["ports"]]
    return {**service, "spec": {**service["spec"], "ports": ports}}


def _deployment(experiment: Experiment, deployment: Manifest) -> Manifest:
    spec = deployment["spec"]
    pod = spec["template"]["spec"]
    hardened = {
        **pod,
        "automountServiceAccountToken": False,
        "containers": [_container(experiment, pod["containers"][0])],
        "volumes": [*(_checked(volume) for volume in pod["volumes"]), {"name": "tmp", "emptyDir": {}}],
    }
    return {**deployment, "spec": {**spec, "template": {**spec["template"], "spec": hardened}}}


def _checked(volume: Manifest) -> Manifest:
    """A folder that is not there stops the pod with that reason, instead of starting it with an empty one."""
    if "hostPath" in volume:
        return {**volume, "hostPath": {**volume["hostPath"], "type": "Directory"}}
    return {**volume, "persistentVolumeClaim": {**volume["persistentVolumeClaim"], "readOnly": True}}


def _container(experiment: Experiment, container: Manifest) -> Manifest:
    mounts = [{**mount, "readOnly": True} for mount in container["volumeMounts"]]
    return {
        **container,
        # Looked for once: a version that appears later would change the model under the canary.
        "args": [*container["args"], "--file_system_poll_wait_seconds=0"],
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the container's own
        # Memory asked for is memory allowed: a pod is never killed for what the scheduler promised it. A limit of CPU
        # would throttle, and so change the latencies that are compared.
        "resources": {"requests": {"cpu": "250m", "memory": "2Gi"}, "limits": {"memory": "2Gi"}},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **_probes(experiment),
    }


def _probes(experiment: Experiment) -> dict[str, Any]:
    """Started and ready: a loaded model. `/v1/models/NAME` is 200 in any state; its metadata needs a live servable.

    The server tries to load five times, a minute apart, before it gives up: so long a start may take. Alive: the port
    accepts; a probe that waits for an answer would kill a pod for being busy.
    """
    loaded = {"httpGet": {"path": f"/v1/models/{experiment.model}/metadata", "port": SERVICE_PORT}}
    return {
        "startupProbe": {**loaded, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 72},
        "readinessProbe": {**loaded, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {
            "tcpSocket": {"port": SERVICE_PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
    }


def _head(experiment: Experiment, api: str, kind: str, name: str) -> Manifest:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": experiment.namespace}}


def _disruption_budget(experiment: Experiment, arm: str) -> Manifest:
    """One pod of an arm at a time; `minAvailable: 1` would let a node with the only pod never be drained."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": experiment.service, "version": arm}}}
    return {**_head(experiment, "policy/v1", "PodDisruptionBudget", f"{experiment.service}-{arm}"), "spec": spec}


def _network_policy(experiment: Experiment, form: Form) -> Manifest:
    """In: the gateway's namespace and our own, to the serving ports. Out: names and istiod."""
    ports = [*_PROTOCOLS, _HBONE_PORT]
    callers = [_namespace(form.gateway_namespace), {"podSelector": {}}]
    spec = {
        "podSelector": {"matchLabels": {"app": experiment.service}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": callers, "ports": [{"protocol": "TCP", "port": port} for port in ports]}],
        "egress": [
            {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]},
            {"to": [_namespace(form.istio_namespace)], "ports": [{"protocol": "TCP", "port": _ISTIOD_PORT}]},
        ],
    }
    return {**_head(experiment, "networking.k8s.io/v1", "NetworkPolicy", experiment.service), "spec": spec}


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _authorization_policy(experiment: Experiment, form: Form) -> Manifest:
    """Predictions and status for callers of two namespaces; nobody may reload the server's configuration."""
    rest = {"ports": [str(SERVICE_PORT)], "methods": ["GET", "POST"], "paths": ["/v1/models/*"]}
    grpc = {
        "ports": [str(GRPC_PORT)],
        "paths": ["/tensorflow.serving.PredictionService/*", "/tensorflow.serving.ModelService/GetModelStatus"],
    }
    rule: dict[str, Any] = {"to": [{"operation": rest}, {"operation": grpc}]}
    if form.mutual_tls:
        # A caller's namespace is part of its certificate: without one, no caller would have any.
        namespaces = sorted({form.gateway_namespace, experiment.namespace})
        rule = {"from": [{"source": {"namespaces": namespaces}}], **rule}
    spec = {"selector": {"matchLabels": {"app": experiment.service}}, "action": "ALLOW", "rules": [rule]}
    return {**_head(experiment, _security_api(form), "AuthorizationPolicy", experiment.service), "spec": spec}


def _security_api(form: Form) -> str:
    """`security.istio.io/v1` came with networking's v1; whoever serves only older ones has v1beta1."""
    newest = form.istio_api in {None, "networking.istio.io/v1"}
    return "security.istio.io/v1" if newest else "security.istio.io/v1beta1"
