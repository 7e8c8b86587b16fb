"""One question over HTTP on a connection of its own: to a pod, through the gateway, to Envoy's admin page.

Many questions to one pod share a connection.
"""

import contextlib
import http.client
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from experiments.core.access import DIRECT, Access, equip

_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Answer:
    """What came back; header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def ask(
    url: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = _TIMEOUT_S,
    access: Access | None = None,
) -> Answer | None:
    """The answer to one request on a connection of its own; None where there is none.

    No proxy of the environment stands in between. `access` says what to ask for, and over TLS whom to trust.

    Raises:
        StackError: the access names a file that cannot be used.
    """
    parts, access = urlsplit(url), access or DIRECT
    headers = dict(headers or {})
    if access.host and "host" not in {name.lower() for name in headers}:
        headers["Host"] = access.host
    connection = _connection(parts, timeout_s, access)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    try:
        return _exchanged(connection, method, target, body, headers)
    finally:
        connection.close()


def _exchanged(
    connection: http.client.HTTPConnection, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
) -> Answer | None:
    try:
        connection.request(method, target, body, dict(headers))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())
    except (OSError, http.client.HTTPException):
        return None


@contextlib.contextmanager
def kept(url: str, timeout_s: float = _TIMEOUT_S) -> Iterator[Callable[[str, bytes], Answer | None]]:
    """A function that posts JSON to paths of a host over one connection: setting one up may cost many times the answer.

    After no answer the next question has a connection of its own again.
    """
    connection = _connection(urlsplit(url), timeout_s, DIRECT)

    def post(path: str, body: bytes) -> Answer | None:
        answer = _exchanged(connection, "POST", path, body, {"Content-Type": "application/json"})
        if answer is None:
            connection.close()
        return answer

    try:
        yield post
    finally:
        connection.close()


class _Named(http.client.HTTPConnection):
    """HTTP over TLS that asks for, and verifies, a name of its own, whatever address it connects to."""

    default_port = 443

    def __init__(self, host: str, port: int | None, timeout: float, context: ssl.SSLContext, name: str) -> None:
        super().__init__(host, port, timeout=timeout)
        self._trust, self._name = context, name

    def connect(self) -> None:
        super().connect()
        self.sock = self._trust.wrap_socket(self.sock, server_hostname=self._name)


def _connection(parts: SplitResult, timeout_s: float, access: Access) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme != "https":
        return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    equip(context, access)
    return _Named(host, parts.port, timeout_s, context, access.server_name(host))
