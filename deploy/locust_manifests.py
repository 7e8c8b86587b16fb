"""Experiment → the Kubernetes objects of its load: Locust's master and workers, two Jobs that end when the load does.

Workers keep their shards on a volume that dies with them, and send them to the master at the end over Locust's own
messages: only the master's run directory needs a claim, and nothing is shared between nodes. The pods stand outside
the mesh, in a namespace of their own, as clients do: a sidecar beside them would route, retry and balance too.
"""

import base64
import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.manifests import MANAGED_BY, Manifest
from experiments.core.access import DIRECT, Access
from experiments.core.errors import ProvisionError
from experiments.core.reading import to_mapping
from experiments.core.spec import Experiment

PORT = 5557
"""Where Locust's master hears its workers."""

PAGE_PORT = 8089
"""Where Locust's master shows its page, and gives records away to a conductor."""

MOST_BYTES = 1_000_000
"""A ConfigMap holds 1 MiB, its own names included."""

_LATER_S = 600
"""How long a conducted load goes on without its conductor, and its master after that."""

_HELD_S = 20
"""How long a conductor may hold a phase beyond its time."""

_FILES = {"ca_file": "ca.crt", "client_cert": "client.crt", "client_key": "client.key"}
"""The files of an access, by their names in the Secret."""

_PORTS = {"master": (("locust", PORT), ("page", PAGE_PORT))}
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
        payloads: File name to request body, put into ConfigMaps; what is too large for one is compressed.
        payloads_claim: In their place, a claim that holds the request bodies.
        run_id: The run of a conductor, which fetches the records: then no claim is needed for them.
        secrets: Variable to value, for headers that hold `${VARIABLE}`.
        access: How the gateway is spoken to; its files are of this machine, and go into the Secret.
    """

    image: str
    host: str = "http://istio-ingressgateway.istio-system"
    workers: int = 3
    namespace: str = "splitproof-load"
    storage: str = "2Gi"
    payloads: Mapping[str, bytes] = field(default_factory=dict)
    payloads_claim: str | None = None
    run_id: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    access: Access = DIRECT


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
        *_payload_maps(experiment, form),
        *([_secret(experiment, form)] if _secret_data(form) else []),
        *([] if form.run_id else [_claim(experiment, form)]),
        _service(experiment, form),
        _job(experiment, form, "master"),
        _job(experiment, form, "worker"),
    ]


def run_seconds(experiment: Experiment) -> int:
    """How long a load takes that goes through all phases."""
    return round(experiment.load.warmup + sum(phase.duration for phase in experiment.phases))


def _head(experiment: Experiment, form: LoadForm, api: str, kind: str, part: str) -> Manifest:
    labels = {**_labels(experiment, part), **labels_of_load(experiment)}
    metadata = {"name": f"{experiment.name}-{part}", "namespace": form.namespace, "labels": labels}
    return {"apiVersion": api, "kind": kind, "metadata": metadata}


def labels_of_load(experiment: Experiment) -> dict[str, str]:
    """The labels by which the objects of an experiment's load are known to be ours."""
    return {**MANAGED_BY, "app.kubernetes.io/part-of": f"{experiment.name}-load"}


def _labels(experiment: Experiment, part: str) -> dict[str, str]:
    return {"app": f"{experiment.name}-load", "part": part}


def _config_map(experiment: Experiment, form: LoadForm) -> Manifest:
    text = json.dumps(to_mapping(experiment), indent=2)
    return {**_head(experiment, form, "v1", "ConfigMap", "experiment"), "data": {"experiment.json": text}}


def _payload_maps(experiment: Experiment, form: LoadForm) -> list[Manifest]:
    """ConfigMaps of request bodies, as few as hold them."""
    return [
        {**_head(experiment, form, "v1", "ConfigMap", f"payloads-{number}"), **content}
        for number, content in enumerate(_packed(form.payloads), start=1)
    ]


def _packed(payloads: Mapping[str, bytes]) -> Iterator[dict[str, dict[str, str]]]:
    content: dict[str, dict[str, str]] = {}
    size = 0
    for name, body in payloads.items():
        kind, file, text, length = _written(name, body)
        if content and size + length > MOST_BYTES:
            yield content
            content, size = {}, 0
        content.setdefault(kind, {})[file] = text
        size += length
    if content:
        yield content


def _written(name: str, body: bytes) -> tuple[str, str, str, int]:
    """A body as a ConfigMap holds it: under which key, file name, text, and its bytes."""
    if len(body) <= MOST_BYTES:
        return "data", name, body.decode(), len(body)
    small = gzip.compress(body, mtime=0)
    if len(small) > MOST_BYTES:
        raise ProvisionError(
            f"--payload {name}: {len(small)} bytes even if compressed, a ConfigMap holds {MOST_BYTES}; "
            "put the bodies on a volume, and name its claim with --payloads-claim."
        )
    return "binaryData", f"{name}.gz", base64.b64encode(small).decode(), len(small)


def _secret(experiment: Experiment, form: LoadForm) -> Manifest:
    head = _head(experiment, form, "v1", "Secret", "secrets")
    return {**head, "type": "Opaque", "data": _secret_data(form)}


def _secret_data(form: LoadForm) -> dict[str, str]:
    """Key to base64: the variables of headers, and the files of the access.

    Raises:
        ProvisionError: a file cannot be read.
    """
    found = {name: value.encode() for name, value in form.secrets.items()}
    for name, key in _FILES.items():
        path = getattr(form.access, name)
        try:
            found.update({key: Path(path).read_bytes()} if path else {})
        except OSError as error:
            option = name.replace("_", "-")
            raise ProvisionError(f"--{option} {path}: cannot be read: {error.strerror}; check the path.") from error
    return {name: base64.b64encode(value).decode() for name, value in found.items()}


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
    read = ("experiment", "payloads", *(("access",) if _has_files(form) else ()))
    mounts = [{"name": name, "mountPath": f"/{name}", "readOnly": True} for name in read]
    writable = [{"name": name, "mountPath": path} for name, path in (("runs", "/runs"), ("home", "/home/load"))]
    container = {
        "name": "locust",
        "image": form.image,
        "workingDir": "/home/load",
        "command": ["locust", "-f", f"{_CHECKOUT}/loadgen/canary.py"],
        "args": _arguments(experiment, form, part),
        "env": _environment(experiment, form),
        "ports": [{"name": name, "containerPort": port} for name, port in _PORTS.get(part, ())],
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
        "automountServiceAccountToken": False,
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
    common += _access_arguments(form.access)
    if part == "worker":
        return ["--worker", "--master-host", f"{experiment.name}-master", "--master-port", str(PORT), *common]
    workers = ["--master", "--expect-workers", str(form.workers)]
    if form.run_id:
        kept = ["--autostart", "--autoquit", str(_LATER_S), "--web-port", str(PAGE_PORT), "--run-id", form.run_id]
        # A conductor says when the load ends, and may hold a phase for a last look; without one it ends all the same.
        most = run_seconds(experiment) + _LATER_S + _HELD_S * len(experiment.phases)
        return [*workers, *kept, "--run-time", f"{most}s", "--host", form.host, *common]
    length = ["--run-time", f"{run_seconds(experiment)}s"]
    return [*workers, "--headless", "--only-summary", *length, "--host", form.host, *common]


def _access_arguments(access: Access) -> list[str]:
    """Names as they are, files where the Secret is mounted; an experiment says its own names."""
    found = []
    for name in ("sni", "ca_file", "client_cert", "client_key"):
        value = getattr(access, name)
        if value is not None:
            found += [f"--{name.replace('_', '-')}", f"/access/{_FILES[name]}" if name in _FILES else value]
    return [*(["--host-header", access.host] if access.host else []), *found]


def _environment(experiment: Experiment, form: LoadForm) -> list[dict[str, Any]]:
    home = [{"name": name, "value": "/home/load"} for name in ("HOME", "SPLITPROOF_HOME")]
    secret = f"{experiment.name}-secrets"
    return home + [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}} for name in form.secrets
    ]


def _volumes(experiment: Experiment, form: LoadForm, part: str) -> list[dict[str, Any]]:
    runs: dict[str, Any] = {"emptyDir": {}}
    if part == "master" and not form.run_id:
        runs = {"persistentVolumeClaim": {"claimName": f"{experiment.name}-runs"}}
    if form.payloads_claim:
        payloads: dict[str, Any] = {"persistentVolumeClaim": {"claimName": form.payloads_claim, "readOnly": True}}
    else:
        names = [each["metadata"]["name"] for each in _payload_maps(experiment, form)]
        payloads = {"projected": {"sources": [{"configMap": {"name": name}} for name in names]}}
    found = [
        {"name": "experiment", "configMap": {"name": f"{experiment.name}-experiment"}},
        {"name": "payloads", **payloads},
        {"name": "runs", **runs},
        {"name": "home", "emptyDir": {}},
    ]
    if _has_files(form):
        items = [{"key": key, "path": key} for name, key in _FILES.items() if getattr(form.access, name)]
        found.append({"name": "access", "secret": {"secretName": f"{experiment.name}-secrets", "items": items}})
    return found


def _has_files(form: LoadForm) -> bool:
    return any(getattr(form.access, name) for name in _FILES)
