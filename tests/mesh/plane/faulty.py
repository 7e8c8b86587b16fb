"""A way to the API server that fails on demand: statuses, broken connections, watches that end."""

import contextlib
import http.client
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from plane.api import PORT, Api
from plane.namespace import Namespace, inside

_HEAD_END = b"\r\n\r\n"
RESET = 0
"""In place of a status: the connection is broken without an answer."""


@dataclass
class Fault:
    """What happens to requests whose `VERB PATH` matches, so many times; `answered` counts them."""

    pattern: str
    status: int
    times: int = 1
    retry_after: str | None = None
    event: bool = False
    answered: int = 0


@dataclass
class Faulty:
    """A plain-HTTP server in the node's namespace that passes everything on but what a fault says."""

    api: Api
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    url: str = ""

    def fault(self, line: str) -> Fault | None:
        """The fault that a request meets, used up by one."""
        self.seen.append(line)
        for each in self.faults:
            if each.answered < each.times and re.search(each.pattern, line):
                each.answered += 1
                return each
        return None


@contextlib.contextmanager
def faulty(api: Api, namespace: Namespace) -> Iterator[Faulty]:
    """Stand between clients and the API server for as long as the block."""
    made = Faulty(api)
    with inside(namespace):
        listener = socket.create_server(("127.0.0.1", 0))
        made.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=_accept, args=(made, listener), daemon=True)
        thread.start()  # it lives in the namespace of the thread that starts it
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _accept(made: Faulty, listener: socket.socket) -> None:
    while True:
        try:
            here, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(made, here), daemon=True).start()


def _serve(made: Faulty, here: socket.socket) -> None:
    """One request for each connection: every answer closes it, so that no second one passes unseen."""
    with contextlib.suppress(OSError), here:
        head, body = _head(here)
        if not head:
            return
        lines = head.decode("latin-1").split("\r\n")
        fault = made.fault(" ".join(lines[0].split(" ")[:2]))
        if fault is not None:
            _fail(here, fault)
        elif "watch=true" in lines[0] or any(line.lower().startswith("upgrade:") for line in lines):
            _tunnel(made.api, here, head + _HEAD_END + body)
        else:
            _pass_on(made.api, here, lines, body)


def _head(here: socket.socket) -> tuple[bytes, bytes]:
    """The head of a request, and what has come of its body."""
    data = b""
    while _HEAD_END not in data:
        more = here.recv(65536)
        if not more:
            return b"", b""
        data += more
    head, body = data.split(_HEAD_END, 1)
    return head, body


def _tunnel(api: Api, here: socket.socket, sent: bytes) -> None:
    """Streams, of whose end only their ends know."""
    with _upstream(api) as there:
        there.sendall(sent)
        threading.Thread(target=_pump, args=(here, there), daemon=True).start()
        _pump(there, here)


def _pass_on(api: Api, here: socket.socket, lines: Sequence[str], body: bytes) -> None:
    """A plain request and its whole answer."""
    method, target, _ = lines[0].split(" ")
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    wanted = int({name.lower(): value for name, value in headers.items()}.get("content-length", 0))
    while len(body) < wanted:
        body += here.recv(65536)
    trust = ssl.create_default_context(cafile=str(api.authority))
    connection = http.client.HTTPSConnection(api.host, PORT, timeout=30, context=trust)
    try:
        connection.request(method, target, body or None, headers)
        answer = connection.getresponse()
        text = answer.read()
        head = [f"HTTP/1.1 {answer.status} {answer.reason}", f"Content-Length: {len(text)}", "Connection: close"]
        head += [f"Content-Type: {answer.headers.get('Content-Type', 'application/json')}"]
        here.sendall("\r\n".join(head).encode() + _HEAD_END + text)
    finally:
        connection.close()


def _upstream(api: Api) -> ssl.SSLSocket:
    trust = ssl.create_default_context(cafile=str(api.authority))
    return trust.wrap_socket(socket.create_connection((api.host, PORT), 10), server_hostname=api.host)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        source.settimeout(None)
        while data := source.recv(65536):
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _fail(here: socket.socket, fault: Fault) -> None:
    if fault.status == RESET:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return
    phrase = HTTPStatus(fault.status).phrase
    told = {"message": f"injected {phrase}", "reason": phrase, "code": fault.status}
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", **told}
    if fault.event:
        body, line = json.dumps({"type": "ERROR", "object": status}) + "\n", "200 OK"
    else:
        body, line = json.dumps(status), f"{fault.status} {phrase}"
    head = [f"HTTP/1.1 {line}", "Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close"]
    if fault.retry_after:
        head.append(f"Retry-After: {fault.retry_after}")
    here.sendall("\r\n".join(head).encode() + _HEAD_END + body.encode())
