"""The API server as its administrator talks to it: JSON over HTTPS, nothing in between.

The code under test has a client of its own. This one is small, so that a test's arrangements and checks do not rest
on what they check.
"""

import http.client
import json
import ssl
import threading
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

Json = dict[str, Any]

PORT = 6443
_PATIENCE_S = 20.0


class RefusedError(Exception):
    """The API server answered with an error; `status` is its HTTP status, the text its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Api:
    """An API server, who signed its certificate, and who we are."""

    host: str
    authority: Path
    token: str = field(repr=False)


def request(api: Api, method: str, path: str, body: Json | None = None, content: str = "application/json") -> Json:
    """One request and its decoded answer. Call it in the node's namespace.

    Raises:
        RefusedError: the status is 400 or more.
    """
    headers = {"Authorization": f"Bearer {api.token}", "Accept": "application/json", "Content-Type": content}
    sent = None if body is None else json.dumps(body)
    kept = _kept().get(api)
    try:
        status, text = _exchange(kept or _connected(api), method, path, sent, headers)
    except _GONE:
        if kept is None:
            raise
        # The server may close a connection that has been idle; on a fresh one it has not.
        status, text = _exchange(_connected(api), method, path, sent, headers)
    if status >= http.client.BAD_REQUEST:
        raise RefusedError(status, _message(text))
    found: Json = json.loads(text) if text.startswith(b"{") else {}
    return found


_connections = threading.local()
"""Of each thread, one to each API server: most of the work of a small request is its handshake."""

_GONE = (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError)


def _kept() -> dict[Api, http.client.HTTPSConnection]:
    found: dict[Api, http.client.HTTPSConnection] = vars(_connections).setdefault("to", {})
    return found


def _connected(api: Api) -> http.client.HTTPSConnection:
    made = http.client.HTTPSConnection(api.host, PORT, timeout=_PATIENCE_S, context=_trust(api.authority))
    _kept()[api] = made
    return made


def _exchange(
    connection: http.client.HTTPSConnection, method: str, path: str, body: str | None, headers: dict[str, str]
) -> tuple[int, bytes]:
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except BaseException:
        connection.close()
        raise


@cache
def _trust(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.decode(errors="replace")[:500]


def healthy(api: Api) -> bool:
    """Whether the API server says that it is ready for work."""
    try:
        request(api, "GET", "/readyz")
    except (OSError, http.client.HTTPException, RefusedError):
        return False
    return True


def get(api: Api, manifest: Json) -> Json:
    """The object that a manifest names, as the server has it."""
    return request(api, "GET", path_of(api, manifest))


def apply(api: Api, manifest: Json, manager: str = "mesh-tests", *, force: bool = False, dry: bool = False) -> Json:
    """Server-side apply; returns the object.

    Raises:
        RefusedError: the schema, an admission webhook, or another owner of a field refuses it.
    """
    query = {"fieldManager": manager, "force": str(force).lower(), **({"dryRun": "All"} if dry else {})}
    return request(
        api, "PATCH", f"{path_of(api, manifest)}?{urlencode(query)}", manifest, "application/apply-patch+yaml"
    )


def patch(api: Api, manifest: Json, changes: Any, part: str = "") -> Json:
    """A JSON merge patch of the object that a manifest names, or of its part such as `status`."""
    path = path_of(api, manifest) + (f"/{part}" if part else "")
    return request(api, "PATCH", path, changes, "application/merge-patch+json")


def delete(api: Api, manifest: Json) -> None:
    """Delete the object that a manifest names."""
    request(api, "DELETE", path_of(api, manifest))


def listed(api: Api, version: str, kind: str, namespace: str = "", labels: str = "") -> list[Json]:
    """The objects of a kind, everywhere or in a namespace, by label selector."""
    manifest = {"apiVersion": version, "kind": kind, "metadata": {"name": "", "namespace": namespace}}
    query = f"?{urlencode({'labelSelector': labels})}" if labels else ""
    found = request(api, "GET", path_of(api, manifest).rstrip("/") + query)["items"]
    return [{"apiVersion": version, "kind": kind, **item} for item in found]


def path_of(api: Api, manifest: Json) -> str:
    """The URL path of the object that a manifest names."""
    version, metadata = manifest["apiVersion"], manifest["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    plural, namespaced = _resource(api, root, manifest["kind"])
    scope = f"namespaces/{metadata['namespace']}/" if namespaced and metadata.get("namespace") else ""
    return f"{root}/{scope}{plural}/{metadata['name']}"


_resources: dict[tuple[Api, str, str], tuple[str, bool]] = {}


def _resource(api: Api, root: str, kind: str) -> tuple[str, bool]:
    """The name in URLs of a kind, and whether it lives in namespaces; remembered once it is found."""
    key = (api, root, kind)
    if key not in _resources:
        for resource in request(api, "GET", root)["resources"]:
            if "/" not in resource["name"]:
                _resources[api, root, resource["kind"]] = (resource["name"], resource["namespaced"])
    return _resources[key]
