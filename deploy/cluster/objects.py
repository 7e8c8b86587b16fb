"""Objects of any kind: read, listed, applied server-side under our name, deleted by uid, watched."""

from collections.abc import Iterator, Mapping
from typing import Any

from deploy.cluster.client import Cluster, Json, request, stream
from deploy.cluster.refusals import NOT_FOUND, ApiError, Asked
from experiments.core.errors import StackError

MANAGER = "splitproof"
"""The field manager under which everything of ours is applied."""


def get(cluster: Cluster, manifest: Mapping[str, Any]) -> Json | None:
    """The object that a manifest names, as the server has it; None where there is none."""
    try:
        return request(cluster, _asked(cluster, "get", manifest), "GET", path_of(cluster, manifest))
    except ApiError as error:
        if error.status == NOT_FOUND:
            return None
        raise


def apply(cluster: Cluster, manifest: Json, *, force: bool = False, dry: bool = False) -> Json:
    """Server-side apply; the object as it is (or, dry, would be) afterwards.

    Raises:
        ApiError: the schema, an admission webhook, or another owner of a field refuses it.
    """
    query = {"fieldManager": MANAGER, "force": str(force).lower(), **({"dryRun": "All"} if dry else {})}
    asked = _asked(cluster, "patch", manifest)
    path = path_of(cluster, manifest)
    return request(cluster, asked, "PATCH", path, query=query, body=manifest, content="application/apply-patch+yaml")


def merge(cluster: Cluster, manifest: Mapping[str, Any], changes: Json) -> Json:
    """A JSON merge patch of the object that a manifest names, whoever owns the fields; the object afterwards."""
    asked, query = _asked(cluster, "patch", manifest), {"fieldManager": MANAGER}
    path = path_of(cluster, manifest)
    return request(cluster, asked, "PATCH", path, query=query, body=changes, content="application/merge-patch+json")


def delete(cluster: Cluster, found: Mapping[str, Any]) -> None:
    """Delete this very object: one of the same name that came after it is not touched."""
    options = {"preconditions": {"uid": found["metadata"]["uid"]}, "propagationPolicy": "Foreground"}
    try:
        request(cluster, _asked(cluster, "delete", found), "DELETE", path_of(cluster, found), body=options)
    except ApiError as error:
        if error.status != NOT_FOUND:
            raise


def listed(
    cluster: Cluster, version: str, kind: str, namespace: str = "", labels: str = "", fields: str = ""
) -> list[Json]:
    """The objects of a kind, in a namespace or in all, by label and field selector."""
    items, _ = listing(cluster, version, kind, namespace, labels, fields)
    return items


def listing(
    cluster: Cluster, version: str, kind: str, namespace: str = "", labels: str = "", fields: str = ""
) -> tuple[list[Json], str]:
    """The same, with the resource version from which a watch can go on."""
    query = {name: value for name, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
    asked = Asked("list", resource_of(cluster, version, kind), "", namespace)
    answer = request(cluster, asked, "GET", _collection(cluster, version, kind, namespace), query=query)
    items = [{"apiVersion": version, "kind": kind, **item} for item in answer["items"]]
    return items, str(answer["metadata"].get("resourceVersion", ""))


def watched(cluster: Cluster, version: str, kind: str, namespace: str, since: str, seconds: int) -> Iterator[Json]:
    """The events of a kind in a namespace after a resource version, until `seconds` are over."""
    asked = Asked("watch", resource_of(cluster, version, kind), "", namespace)
    query = {"resourceVersion": since, "allowWatchBookmarks": "true"}
    return stream(cluster, asked, _collection(cluster, version, kind, namespace), query, seconds)


def serves(cluster: Cluster, version: str, kind: str) -> bool:
    """Whether the API server knows a kind."""
    try:
        _resource(cluster, version, kind)
    except StackError as error:
        if isinstance(error, ApiError) and error.status != NOT_FOUND:
            raise
        return False
    return True


def path_of(cluster: Cluster, manifest: Mapping[str, Any]) -> str:
    """The URL path of the object that a manifest names."""
    metadata = manifest["metadata"]
    root = _collection(cluster, manifest["apiVersion"], manifest["kind"], metadata.get("namespace", ""))
    return f"{root}/{metadata['name']}"


def name_of(manifest: Mapping[str, Any]) -> str:
    """An object, for people: `Deployment web`."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def _collection(cluster: Cluster, version: str, kind: str, namespace: str) -> str:
    plural, namespaced = _resource(cluster, version, kind)
    scope = f"namespaces/{namespace}/" if namespaced and namespace else ""
    return f"{_root(version)}/{scope}{plural}"


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def resource_of(cluster: Cluster, version: str, kind: str) -> str:
    """The name by which roles speak of a kind: `deployments.apps`."""
    group = version.partition("/")[0] if "/" in version else ""
    return ".".join(filter(None, (_resource(cluster, version, kind)[0], group)))


def _asked(cluster: Cluster, verb: str, manifest: Mapping[str, Any]) -> Asked:
    metadata = manifest["metadata"]
    resource = resource_of(cluster, manifest["apiVersion"], manifest["kind"])
    return Asked(verb, resource, metadata["name"], metadata.get("namespace", ""))


def _resource(cluster: Cluster, version: str, kind: str) -> tuple[str, bool]:
    """The name in URLs of a kind, and whether it lives in namespaces; asked once a cluster."""
    if (version, kind) not in cluster.resources:
        try:
            answer = request(cluster, Asked("get", f"the API {version}"), "GET", _root(version))
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            raise ApiError(NOT_FOUND, f"{cluster}: does not serve {version}{_hint(version)}") from error
        for each in answer["resources"]:
            if "/" not in each["name"]:
                cluster.resources[version, each["kind"]] = (each["name"], each["namespaced"])
    if (version, kind) not in cluster.resources:
        raise ApiError(NOT_FOUND, f"{cluster}: does not know {kind} of {version}{_hint(version)}")
    return cluster.resources[version, kind]


def _hint(version: str) -> str:
    if ".istio.io/" in version:
        return "; Istio is not installed there, or too old: see python -m deploy istio."
    return "; use a cluster that does."
