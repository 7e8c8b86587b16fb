"""A port of a pod on loopback, through the API server: past the gateway, and past any network in between."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward
from websocket import WebSocketException

from deploy.cluster.client import Cluster, pause_s
from deploy.cluster.refusals import RETRIED, ApiError, Asked, refusal, unreachable
from experiments.core.errors import StackError

_CHUNK = 2**16
_IDLE_S = 120.0
_ATTEMPTS = 4


@dataclass
class _Forward:
    """A listener on loopback whose every connection is one to the pod's port."""

    cluster: Cluster
    namespace: str
    pod: str
    port: int
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    trouble: StackError | None = None


@contextlib.contextmanager
def forwarded(cluster: Cluster, pod: Mapping[str, Any], port: int, scheme: str = "http") -> Iterator[str]:
    """The URL on loopback that leads to a pod's port, for as long as the block.

    Raises:
        ApiError: the API server refuses to forward, or the pod does not take the connection.
    """
    metadata = pod["metadata"]
    forward = _Forward(cluster, metadata["namespace"], metadata["name"], port)
    _open(forward).close()  # a refusal is to be heard now, not as a broken connection later
    thread = threading.Thread(target=_accept, args=(forward,), name=f"forward {forward.pod}", daemon=True)
    thread.start()
    try:
        yield f"{scheme}://127.0.0.1:{forward.listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            forward.listener.shutdown(socket.SHUT_RDWR)
        forward.listener.close()
        thread.join()


def _accept(forward: _Forward) -> None:
    while True:
        try:
            here, _ = forward.listener.accept()
        except OSError:
            return  # closed: the block has ended
        threading.Thread(target=_serve, args=(forward, here), daemon=True).start()


def _serve(forward: _Forward, here: socket.socket) -> None:
    """Pump one connection; whoever waits here sees it end when the other side cannot be had."""
    with here:
        try:
            there = _open(forward)
        except StackError as error:
            forward.trouble = error
            return
        here.settimeout(_IDLE_S)
        threading.Thread(target=_pump, args=(there, here), daemon=True).start()
        _pump(here, there)


def _pump(source: Any, sink: Any) -> None:
    """Copy until the source ends. The far side never tells of its end: the near one does, by closing."""
    try:
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                each.close()


def _open(forward: _Forward) -> Any:
    """A socket to the pod's port; tried again where the API server is busy, or breaks the connection off."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _try(forward)
        except ApiError as error:
            if attempt == _ATTEMPTS or error.status not in {0, *RETRIED}:
                raise
            time.sleep(pause_s(attempt))
    raise AssertionError("the last attempt returns or raises")


def _try(forward: _Forward) -> Any:
    # A client of its own: while it upgrades a connection, the library rewires the one that it is given.
    core = client.CoreV1Api(client.ApiClient(forward.cluster.api.configuration))
    asked = Asked("create", "pods/portforward", forward.pod, forward.namespace)
    try:
        made = portforward(
            core.connect_get_namespaced_pod_portforward, forward.pod, forward.namespace, ports=str(forward.port)
        )
    except ApiException as error:
        status = _status_of(error)
        if status:
            raise refusal(str(forward.cluster), asked, status, str(error.reason or "").encode()) from error
        raise unreachable(str(forward.cluster), asked, error) from error
    except (OSError, WebSocketException) as error:
        raise unreachable(str(forward.cluster), asked, error) from error
    return made.socket(forward.port)


def _status_of(error: ApiException) -> int:
    """The HTTP status of a refused upgrade; the client hides it in a text such as `Handshake status 403 Forbidden`."""
    if error.status:
        return int(error.status)
    words = str(error.reason or "").split()
    return next((int(word) for word in words if word.isdigit() and len(word) == 3), 0)  # noqa: PLR2004 - HTTP
