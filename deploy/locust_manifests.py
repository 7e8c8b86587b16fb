"""Experiment → the Kubernetes objects of its load: Locust's master and workers, two Jobs that end when the load does.

Workers keep their shards on a volume that dies with them, and send them to the master at the end over Locust's own
messages: only the master's run directory needs a claim, and nothing is shared between nodes. The pods stand outside
the mesh, in a namespace of their own, as clients do: a sidecar beside them would route, retry and balance too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.manifests import MANAGED_BY, Manifest
from experiments.core.errors import ProvisionError
from experiments.core.reading import to_mapping
from experiments.core.spec import Experiment

PORT = 5557
"""Where Locust's master hears its workers."""

MOST_BYTES = 1_000_000
"""A ConfigMap holds 1 MiB, its own names included."""

_CHECKOUT = "/splitproof"
_GRACE_S = 10


@dataclass(frozen=True)
class LoadForm:
    """How the load is to run.

    Attributes:
        image: A container image with this checkout in /splitproof, installed.
        host: Base URL of the ingress gateway, as seen from inside the cluster.
        workers: Load processes; each may use one core.
        namespace: Where they run; not a namespace of the mesh.
        storage: Size of the claim that holds the run directories.
        payloads: File name to request body, put into ConfigMaps.
        payloads_claim: In their place, a claim that holds the request bodies.
    """

    image: str
    host: str = "http://istio-ingressgateway.istio-system"
    workers: int = 3
    namespace: str = "splitproof-load"
    storage: str = "2Gi"
    payloads: Mapping[str, bytes] = field(default_factory=dict)
    payloads_claim: str | None = None


def load_manifests(experiment: Experiment, form: LoadForm) -> list[Manifest]:
    """The objects of a load, in the order in which they depend on each other.

    Raises:
        ProvisionError: there is no request body, or one is too large for a ConfigMap.
    """
    if not (form.payloads or form.payloads_claim):
        raise ProvisionError("no request bodies: name some with --payload FILE.json, or a claim with --payloads-claim.")
    namespace = {"name": form.namespace, "labels": dict(MANAGED_BY)}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": namespace},
        _config_map(experiment, form),
        *(_payload(experiment, form, name, body) for name, body in form.payloads.items()),
        _claim(experiment, form),
        _service(experiment, form),
        _job(experiment, form, "master"),
        _job(experiment, form, "worker"),
    ]


def run_seconds(experiment: Experiment) -> int:
    """How long a load takes that goes through all phases."""
    return round(experiment.load.warmup + sum(phase.duration for phase in experiment.phases))


def _head(experiment: Experiment, form: LoadForm, api: str, kind: str, part: str) -> Manifest:
    labels = {**_labels(experiment, part), **MANAGED_BY}
    metadata = {"name": f"{experiment.name}-{part}", "namespace": form.namespace, "labels": labels}
    return {"apiVersion": api, "kind": kind, "metadata": metadata}


def _labels(experiment: Experiment, part: str) -> dict[str, str]:
    return {"app": f"{experiment.name}-load", "part": part}


def _config_map(experiment: Experiment, form: LoadForm) -> Manifest:
    text = json.dumps(to_mapping(experiment), indent=2)
    return {**_head(experiment, form, "v1", "ConfigMap", "experiment"), "data": {"experiment.json": text}}


def _payload(experiment: Experiment, form: LoadForm, name: str, body: bytes) -> Manifest:
    if len(body) > MOST_BYTES:
        raise ProvisionError(
            f"--payload {name}: {len(body)} bytes, a ConfigMap holds {MOST_BYTES}; "
            "put the bodies on a volume, and name its claim with --payloads-claim."
        )
    return {**_head(experiment, form, "v1", "ConfigMap", _volume(name)), "data": {name: body.decode()}}


def _volume(name: str) -> str:
    """A DNS label for a payload's file."""
    kept = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name.lower())
    return f"payload-{kept.removesuffix('-json').strip('-')}"[:60].rstrip("-")


def _claim(experiment: Experiment, form: LoadForm) -> Manifest:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": form.storage}}}
    return {**_head(experiment, form, "v1", "PersistentVolumeClaim", "runs"), "spec": spec}


def _service(experiment: Experiment, form: LoadForm) -> Manifest:
    spec = {
        "selector": _labels(experiment, "master"),
        "ports": [{"name": "locust", "port": PORT, "targetPort": PORT}],
        # Workers may ask for the name before the master is ready, and the master waits for them.
        "publishNotReadyAddresses": True,
    }
    return {**_head(experiment, form, "v1", "Service", "master"), "spec": spec}


def _job(experiment: Experiment, form: LoadForm, part: str) -> Manifest:
    number = form.workers if part == "worker" else 1
    spec = {
        "parallelism": number,
        "completions": number,
        # A load that was lost is not repeated: the report says what is missing.
        "backoffLimit": 0,
        "template": {"metadata": {"labels": _labels(experiment, part)}, "spec": _pod(experiment, form, part)},
    }
    return {**_head(experiment, form, "batch/v1", "Job", part), "spec": spec}


def _pod(experiment: Experiment, form: LoadForm, part: str) -> dict[str, Any]:
    mounts = [{"name": "experiment", "mountPath": "/experiment", "readOnly": True}, *_payload_mounts(form)]
    writable = [{"name": name, "mountPath": path} for name, path in (("runs", "/runs"), ("home", "/home/load"))]
    container = {
        "name": "locust",
        "image": form.image,
        "workingDir": "/home/load",
        "command": ["locust", "-f", f"{_CHECKOUT}/loadgen/canary.py"],
        "args": _arguments(experiment, form, part),
        "env": [{"name": name, "value": "/home/load"} for name in ("HOME", "SPLITPROOF_HOME")],
        "volumeMounts": [*mounts, *writable],
        # One core each: more would not be used, less would make the generator the bottleneck.
        "resources": {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": round(experiment.load.timeout) + _GRACE_S,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app": f"{experiment.name}-load"}},
            }
        ],
        "containers": [container],
        "volumes": _volumes(experiment, form, part),
    }


def _arguments(experiment: Experiment, form: LoadForm, part: str) -> list[str]:
    common = ["--experiment", "/experiment/experiment.json", "--payload", "/payloads", "--runs", "/runs"]
    if part == "worker":
        return ["--worker", "--master-host", f"{experiment.name}-master", "--master-port", str(PORT), *common]
    length = ["--expect-workers", str(form.workers), "--run-time", f"{run_seconds(experiment)}s"]
    return ["--master", "--headless", "--only-summary", *length, "--host", form.host, *common]


def _payload_mounts(form: LoadForm) -> list[dict[str, Any]]:
    if form.payloads_claim:
        return [{"name": "payloads", "mountPath": "/payloads", "readOnly": True}]
    return [
        {"name": _volume(name), "mountPath": f"/payloads/{name}", "subPath": name, "readOnly": True}
        for name in form.payloads
    ]


def _volumes(experiment: Experiment, form: LoadForm, part: str) -> list[dict[str, Any]]:
    runs: dict[str, Any] = {"emptyDir": {}}
    if part == "master":
        runs = {"persistentVolumeClaim": {"claimName": f"{experiment.name}-runs"}}
    if form.payloads_claim:
        claim = {"claimName": form.payloads_claim, "readOnly": True}
        payloads: list[dict[str, Any]] = [{"name": "payloads", "persistentVolumeClaim": claim}]
    else:
        names = {_volume(name): f"{experiment.name}-{_volume(name)}" for name in form.payloads}
        payloads = [{"name": volume, "configMap": {"name": config}} for volume, config in names.items()]
    experiment_map = {"configMap": {"name": f"{experiment.name}-experiment"}}
    return [
        {"name": "experiment", **experiment_map},
        *payloads,
        {"name": "runs", **runs},
        {"name": "home", "emptyDir": {}},
    ]
