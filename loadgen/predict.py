"""One prediction over REST: request bytes prepared beforehand, one answer, never a retry, redirects not followed.

It stands on geventhttpclient's parser, as Locust's FastHttpUser does, without the layers that build each request anew.
"""

import contextlib
import errno
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import SplitResult, urlsplit

import gevent
import msgspec
from gevent import socket as gsocket
from gevent import ssl as gssl
from gevent.lock import BoundedSemaphore
from geventhttpclient._parser import HTTPParseError, HTTPResponseParser

from experiments.core.access import DIRECT, Access, equip
from experiments.core.errors import StackError
from experiments.core.routing import ROUTE_HEADER

REQUEST_ID = "x-request-id"
_UPSTREAM_TIME = "x-envoy-upstream-service-time"
_ATTEMPTS = "x-envoy-attempt-count"
_BLOCK = 64 * 1024
_DIGITS = 9
_CLIENT_ERRORS, _SERVER_ERRORS, _REDIRECTS, _SUCCESS = 400, 500, 300, 200
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""RFC 9110, sections 5.1 and 5.5: what the name and the value of a header may hold."""

_HOST = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?")
_LONGEST_LABEL = 63
_PATH = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*")
"""RFC 3986, section 3: what a host (by name, or IPv6) and a path may hold."""

_OURS = (REQUEST_ID, "content-length", "transfer-encoding")
"""Headers that each request has of its own; a second one would contradict it."""

_BROKEN = (errno.ECONNRESET, errno.EPIPE)


@dataclass(frozen=True)
class Target:
    """Where predictions go: a parsed base URL."""

    url: str
    host: str
    port: int
    tls: bool
    base_path: str
    access: Access = DIRECT

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        if self.access.host:
            return self.access.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def target(url: str, access: Access = DIRECT) -> Target:
    """The target that a base URL names, and how it is to be spoken to.

    >>> target("http://localhost:8080/").authority
    'localhost:8080'
    >>> target("http://localhost:8080/", Access(host="models.example")).authority
    'models.example'

    Raises:
        StackError: it is no http or https URL, or one that cannot be asked.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise StackError(f"--host {url}: {error}; must be such as http://127.0.0.1:8080; mend it.") from error
    if parts.scheme not in ("http", "https") or not host:
        raise StackError(f"--host {url}: must be a URL such as http://127.0.0.1:8080; mend it.")
    _check_parts(url, host, parts)
    tls = parts.scheme == "https"
    return Target(url, host, port or (443 if tls else 80), tls, parts.path.rstrip("/"), access)


def _check_parts(url: str, host: str, parts: SplitResult) -> None:
    """Refuse what can be no host, cannot stand in a request line, or would be left out of it.

    Raises:
        StackError: it holds such a thing.
    """
    rule = None
    labels = host.removesuffix(".").split(".")
    if not _HOST.fullmatch(host) or not all(labels) or max(map(len, labels)) > _LONGEST_LABEL:
        rule = f"{host} can be no host's name; must be ASCII (xn--… for others), in labels of 1 to {_LONGEST_LABEL}"
    elif not _PATH.fullmatch(parts.path):
        rule = "its path must be ASCII without spaces (write others as %XX)"
    elif parts.port == 0:
        rule = "its port must be 1 to 65535"
    elif parts.username is not None or parts.query or parts.fragment:
        rule = "must have no user, query or fragment"
    if rule:
        raise StackError(f"--host {url}: {rule}; mend it.")


def request_head(to: Target, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The request up to the value of its request id, which is the last header.

    Raises:
        StackError: a header's name or value cannot be sent, or is every request's own.
    """
    _check_names(headers)
    fields = {
        "host": to.authority,
        "content-type": "application/json",
        "accept": "application/json",
        "user-agent": "splitproof",
        **{name.lower(): value for name, value in headers.items()},
        "content-length": str(len(body)),
    }
    lines = [f"POST {to.base_path}{path} HTTP/1.1", *(_header_line(name, value) for name, value in fields.items())]
    return ("\r\n".join(lines) + f"\r\n{REQUEST_ID}: ").encode("latin-1")


def _check_names(headers: Mapping[str, str]) -> None:
    for name in headers:
        if name.lower() in _OURS:
            raise StackError(f"header {name!r}: every request has one of its own already; leave it out.")


def _header_line(name: str, value: str) -> str:
    if not (_TOKEN.fullmatch(name) and _FIELD_VALUE.fullmatch(value)):
        # Not the value: it may come from a variable that is nobody's to read.
        raise StackError(f"header {name!r}: its value cannot be sent over HTTP; mend it in the experiment's cohorts.")
    return f"{name}: {value}"


class PredictionError(Exception):
    """A prediction failed; Locust groups failures by this text."""


class Fields(dict[str, str]):
    """Response headers by their lower-case names, to be asked for in any case.

    >>> Fields({"content-type": "text/plain"})["Content-Type"]
    'text/plain'
    """

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a header, else the default."""
        return super().get(name.lower(), default)


class Reply(HTTPResponseParser):
    """An answer as it comes in; to listeners of Locust's `request` event it looks like a response.

    Whatever follows the answer's end is no part of it: it only makes the connection unfit for another request.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.complete = False
        self.surplus = False
        self.started_ns = 0
        self.first_byte_ns = 0
        self._status = 0
        self._in_head = True
        self._names: list[str] = []
        self._values: list[str] = []
        self._body: list[bytes] = []
        self._in_name = False

    def _on_status(self, _message: str) -> None: ...

    def _on_message_begin(self) -> None:
        # An interim 1xx message may have gone before: the first one that is none is the answer.
        self.surplus = self.complete
        if not self.surplus:
            self._status, self._in_head = 0, True
            self._names.clear()
            self._values.clear()

    def _on_header_field(self, text: str) -> None:
        if not self._in_head:
            return  # a trailer, which may say otherwise than the header did
        if self._in_name:
            self._names[-1] += text
        else:
            self._names.append(text)
            self._in_name = True

    def _on_header_value(self, text: str) -> None:
        if not self._in_head:
            return
        if self._in_name:
            self._values.append(text)
            self._in_name = False
        else:
            self._values[-1] += text

    def _on_headers_complete(self) -> bool:
        self._status = self._status or int(self.get_code())
        self._in_head = False
        return False

    def _on_body(self, piece: bytearray) -> None:
        if not self.surplus:
            self._body.append(bytes(piece))

    def _on_message_complete(self) -> None:
        self.complete = self.complete or self.status_code >= _SUCCESS

    @property
    def status_code(self) -> int:
        """The HTTP status; 0 while none has come."""
        return self._status or int(self.get_code())

    @property
    def headers(self) -> Fields:
        """The response headers; of several of one name the last one."""
        return Fields(self.fields)

    @property
    def fields(self) -> dict[str, str]:
        """The response headers, by their lower-case names."""
        return {name.lower(): value for name, value in zip(self._names, self._values, strict=False)}

    @property
    def content(self) -> bytes:
        """The body, or as much of it as has come."""
        return self._body[0] if len(self._body) == 1 else b"".join(self._body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether there is a status, and it is below 400."""
        return 0 < self.status_code < _CLIENT_ERRORS

    @property
    def elapsed(self) -> timedelta:
        """From the start of the request to the first bytes of the answer; zero where none came."""
        return timedelta(microseconds=max(self.first_byte_ns - self.started_ns, 0) // 1000)

    def raise_for_status(self) -> None:
        """Nothing where the answer is whole and its status is below 400.

        Raises:
            PredictionError: otherwise.
        """
        if not self.ok:
            raise PredictionError(f"status {self.status_code}" if self.status_code else "no answer came")
        if not self.complete:
            raise PredictionError("the answer broke off")

    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.content)


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What came of one prediction; `status` is 0 where no status line came, `error` is None only for a status 2xx."""

    status: int
    body: bytes
    error: str | None
    route: str | None
    upstream_us: int | None
    attempts: int | None
    reply: Reply


class Dialer:
    """Opens connections to one target; its name is resolved once, its certificate verified each time.

    Raises:
        StackError: a file of certificates cannot be used.
    """

    def __init__(self, to: Target) -> None:
        self.target = to
        self._address: Any = None
        self._name = to.access.server_name(to.host)
        self._tls = _verifying(to.access) if to.tls else None

    def resolve(self) -> None:
        """Look the name up now, so that no request has to; where that fails, the requests will say so."""
        with contextlib.suppress(OSError):
            self._address = gsocket.getaddrinfo(self.target.host, self.target.port, 0, socket.SOCK_STREAM)

    def connect(self) -> Any:
        """A new connection.

        Raises:
            OSError: the target cannot be reached.
        """
        if self._address is None:
            self._address = gsocket.getaddrinfo(self.target.host, self.target.port, 0, socket.SOCK_STREAM)
        failure: OSError | None = None
        for family, kind, protocol, _name, address in self._address:
            connection = gsocket.socket(family, kind, protocol)
            try:
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return self._tls.wrap_socket(connection, server_hostname=self._name) if self._tls else connection
            except OSError as error:
                connection.close()
                failure = error
            except BaseException:
                connection.close()
                raise
        raise failure or OSError(f"no address for {self.target.host}")


class Connections:
    """Connections to one target, kept alive (unless `keep` is false), the most recently used first.

    With a `limit` there are never more, and who finds none free waits; `queued` counts them.
    """

    def __init__(self, dialer: Dialer, *, limit: int | None = None, keep: bool = True) -> None:
        self.dialer = dialer
        self.queued = 0
        self._keep = keep
        self._idle: list[Any] = []
        self._free = BoundedSemaphore(limit) if limit else None

    def take(self) -> Any:
        """An idle connection that the other side has not closed, else a new one.

        Raises:
            OSError: the target cannot be reached.
        """
        if self._free is not None:
            self.queued += self._free.locked()
            self._free.acquire()
        try:
            return self._quiet() or self.dialer.connect()
        except BaseException:
            self._release()
            raise

    def _quiet(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if _is_quiet(connection):
                return connection
            connection.close()
        return None

    def put_back(self, connection: Any, *, usable: bool) -> None:
        """Keep a connection whose answer was read to its end; close any other."""
        if usable and self._keep:
            self._idle.append(connection)
        else:
            connection.close()
        self._release()

    def _release(self) -> None:
        if self._free is not None:
            self._free.release()

    def close(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self._idle.pop().close()


def _verifying(access: Access) -> Any:
    """Gevent's own context, whether or not Locust has patched this process; it verifies names and certificates."""
    context = gssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    equip(context, access)
    return context


def _is_quiet(connection: Any) -> bool:
    """An idle connection has nothing to read: neither an end nor stray bytes; TLS may have sent session tickets."""
    try:
        # On the bare socket: gevent's own recv would wait.
        waiting = connection._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)  # noqa: SLF001
    except BlockingIOError:
        return True
    except OSError:
        return False
    return bool(waiting) and isinstance(connection, gssl.SSLSocket)


def predict(connections: Connections, request: bytes, timeout_s: float) -> Answer:
    """Send a whole request and read its answer; whatever goes wrong becomes the answer's error class.

    Error classes: `timeout`, `connect`, `tls`, `reset` (the connection broke), `protocol` (no HTTP), `http_3xx`,
    `http_4xx`, `http_5xx`.
    """
    reply = Reply(connections.dialer.target.url)
    connection: Any = None
    error: str | None = "connect"
    limit = gevent.Timeout.start_new(timeout_s)
    try:
        connection = connections.take()
        error = "reset"
        _exchange(connection, request, reply)
        error = _status_error(reply.status_code)
    except gevent.Timeout as expired:
        if expired is not limit:
            raise
        error = "timeout"
    except ssl.SSLError:
        error = "tls"
    except HTTPParseError:
        error = "protocol"
    except OSError:
        pass  # `error` says how far it came
    finally:
        limit.close()
        _put_away(connections, connection, reply)
    return _answer(reply, error)


def _exchange(connection: Any, request: bytes, reply: Reply) -> None:
    """Raises OSError where the connection breaks before the answer's end."""
    try:
        connection.sendall(request)
    except OSError as broken:
        # A server may refuse early, answer and close while we still send: its answer counts.
        if broken.errno not in _BROKEN:
            raise
    while not reply.complete:
        block = connection.recv(_BLOCK)
        if not reply.first_byte_ns:
            reply.first_byte_ns = time.monotonic_ns()
        if block:
            _fed(reply, block)
        else:
            _closed(reply)


def _fed(reply: Reply, block: bytes) -> None:
    """Raises HTTPParseError where that comes before the answer's end."""
    try:
        reply.feed(block)
    except HTTPParseError:
        if not reply.complete:
            raise
        reply.surplus = True


def _closed(reply: Reply) -> None:
    """The end of the connection is the end of an answer only where the answer has no length of its own."""
    with contextlib.suppress(HTTPParseError):
        reply.feed(b"")
    if not reply.complete:
        raise ConnectionResetError(errno.ECONNRESET, "closed before the end of the answer")


def _put_away(connections: Connections, connection: Any, reply: Reply) -> None:
    if connection is not None:
        connections.put_back(connection, usable=reply.complete and not reply.surplus and reply.should_keep_alive())


def _status_error(status: int) -> str | None:
    if status >= _SERVER_ERRORS:
        return "http_5xx"
    if status >= _CLIENT_ERRORS:
        return "http_4xx"
    return "http_3xx" if status >= _REDIRECTS else None


def _answer(reply: Reply, error: str | None) -> Answer:
    headers = reply.fields
    served_ms, attempts = _count(headers.get(_UPSTREAM_TIME)), _count(headers.get(_ATTEMPTS))
    upstream_us = None if served_ms is None else served_ms * 1000
    return Answer(reply.status_code, reply.content, error, headers.get(ROUTE_HEADER), upstream_us, attempts, reply)


def _count(text: str | None) -> int | None:
    """A number that a proxy wrote; None for what can be none, such as one of a thousand digits."""
    return int(text) if text is not None and text.isdecimal() and len(text) <= _DIGITS else None


def reachable(to: Target, timeout_s: float = 3.0) -> str | None:
    """None if something listens there, else the reason in a few words."""
    try:
        socket.create_connection((to.host, to.port), timeout_s).close()
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return None
