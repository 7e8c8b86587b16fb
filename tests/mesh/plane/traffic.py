"""Requests to a gateway, counted by what came back: few, one after another, and only to addresses in the namespace."""

import http.client
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from plane.waiting import MeshError

_MOST = 5_000
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Seen:
    """What an answer says of its way: status, the version of the pod, the route header if it has one."""

    status: int
    version: str | None
    route: str | None


def ask(url: str, count: int, path: str, headers: Mapping[str, str] | None = None) -> Counter[Seen]:
    """Send `count` requests over one connection; how often each kind of answer came.

    Raises:
        MeshError: more were asked for than a test may send.
    """
    if count > _MOST:
        raise MeshError(f"{count} requests are more than the {_MOST} that one call may send")
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE_S)
    seen: Counter[Seen] = Counter()
    try:
        for _ in range(count):
            connection.request("POST", path, b"{}", {"Content-Type": "application/json", **(headers or {})})
            seen[_seen(connection.getresponse())] += 1
    finally:
        connection.close()
    return seen


def _seen(response: http.client.HTTPResponse) -> Seen:
    body = response.read()
    version = json.loads(body).get("version") if response.status == http.client.OK else None
    return Seen(response.status, version, response.headers.get("x-splitproof-route"))


def by_version(seen: Counter[Seen]) -> Counter[str | None]:
    """How many answers each version gave; None counts those of no pod."""
    found: Counter[str | None] = Counter()
    for each, count in seen.items():
        found[each.version] += count
    return found
