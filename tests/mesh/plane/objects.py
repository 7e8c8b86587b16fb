"""An experiment's objects on the mesh: applied as `render` prints them, waited for, and removed."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from plane import api
from plane.api import Json, RefusedError
from plane.mesh import Mesh
from plane.waiting import MeshError, until
from ruamel.yaml import YAML

FEW = "payloads={digits: 12}"
"""For `digits`. Every pod is asked every payload before a load, past the gateway: a dozen tells the arms apart too."""

NAMESPACE = "tf-serving"
VIRTUAL = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "digits-classifier", "namespace": NAMESPACE},
}

_READY_WITHIN_S = 90.0
_GONE_WITHIN_S = 60.0


def rendered(mesh: Mesh, experiment: str, *options: str) -> list[Json]:
    """What `python -m deploy render` prints; the command runs once for the same arguments."""
    key = (experiment, *options)
    if key not in _printed:
        done = mesh.run([sys.executable, "-m", "deploy", "render", *key])
        if done.returncode:
            raise MeshError(done.stderr)
        _printed[key] = done.stdout
    return [document for document in YAML(typ="safe").load_all(_printed[key]) if document]


_printed: dict[tuple[str, ...], str] = {}


def apply_all(mesh: Mesh, manifests: Sequence[Json]) -> None:
    """Apply objects in their order, and wait until every pod of their Deployments is ready."""
    with mesh.inside():
        for manifest in manifests:
            api.apply(mesh.api, manifest, force=True)
    await_all(mesh, manifests)


def await_all(mesh: Mesh, manifests: Sequence[Json]) -> None:
    """Wait until every pod of these objects' Deployments is ready."""
    with mesh.inside():
        for manifest in manifests:
            if manifest["kind"] == "Deployment":
                name = manifest["metadata"]["name"]
                until(partial(_rolled_out, mesh, manifest), f"Deployment {name}", _READY_WITHIN_S)


def _rolled_out(mesh: Mesh, manifest: Json) -> bool:
    found = api.get(mesh.api, manifest)
    status: dict[str, Any] = found.get("status", {})
    wanted = found["spec"]["replicas"]
    seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
    return bool(seen and status.get("updatedReplicas") == wanted == status.get("availableReplicas"))


def _is_empty(mesh: Mesh, namespace: str) -> bool:
    return not api.listed(mesh.api, "v1", "Pod", namespace)


def pods(mesh: Mesh, namespace: str, labels: str = "") -> list[Json]:
    """The pods of a namespace that are not about to go, ready or not."""
    with mesh.inside():
        found = api.listed(mesh.api, "v1", "Pod", namespace, labels)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def remove_all(mesh: Mesh, manifests: Sequence[Json]) -> None:
    """Delete objects, last first, and wait until their pods are gone; the empty Namespaces stay."""
    namespaces = {manifest["metadata"].get("namespace", "") for manifest in manifests}
    with mesh.inside():
        for manifest in reversed(manifests):
            if manifest["kind"] != "Namespace":
                with suppress(RefusedError):
                    api.delete(mesh.api, manifest)
        for name in filter(None, namespaces):
            until(partial(_is_empty, mesh, name), f"no pod in {name}", _GONE_WITHIN_S)
