"""One arm's model behind TensorFlow Serving's REST API, in a process of its own: `python -m deploy.embedded.serving`.

The port is taken at once, so that a conflict shows at once, but listened on only when the model is loaded and warm:
who can connect is served.
"""

import asyncio
import ctypes
import gc
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import uvicorn

from deploy.embedded.rest import Answer, Call, Servable, error_answer, inflate, page, predict, route
from deploy.embedded.signatures import Model, ServingError, TensorSpec
from experiments.core import command
from experiments.core.errors import ProvisionError, StackError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_SHUTDOWN_S = 2
_WARMUPS = 3
_SLEEPERS = 64
_BACKLOG = 2048
_COLLECT_AFTER = 500_000
"""Objects; a photo as JSON is 50,000 lists, none of which is part of a cycle."""


@dataclass(frozen=True)
class Faults:
    """What a self-test breaks: each answer takes `slowdown` × its time; a share of the predictions answers 503."""

    slowdown: float = 1.0
    failure_rate: float = 0.0
    chance: random.Random = field(default_factory=random.Random)


@dataclass(frozen=True)
class Service:
    """What a request needs: the model, the threads that run it, the faults, and threads that only sleep."""

    servable: Servable
    threads: ThreadPoolExecutor
    faults: Faults = Faults()
    sleepers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_SLEEPERS))


def application(service: Service) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The ASGI application."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            path += "?" + scope["query_string"].decode("latin-1")
        body = await _body(receive)
        call = route(scope["method"], path)
        if call is None:
            await _send(send, page(service.servable, scope["method"], path))
            return
        encoding = dict(scope["headers"]).get(b"content-encoding", b"").decode("latin-1")
        answer = await _answer(service, call, body, encoding, receive)
        if answer is not None:
            await _send(send, answer)

    return app


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _send(send: Send, answer: Answer) -> None:
    headers = [(b"content-type", answer.content_type), (b"content-length", str(len(answer.body)).encode())]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _answer(service: Service, call: Call, body: bytes, encoding: str, receive: Receive) -> Answer | None:
    """The answer to a prediction; None when the client has gone before its turn came."""
    faults, loop, began = service.faults, asyncio.get_running_loop(), time.perf_counter()
    if faults.failure_rate and faults.chance.random() < faults.failure_rate:
        return error_answer(ServingError("UNAVAILABLE", "Failed on purpose: --failure-rate"))
    gone = threading.Event()
    watch = asyncio.create_task(_note_leaving(receive, gone))

    def work() -> Answer | None:
        return None if gone.is_set() else _predict(service, call, inflate(body, encoding))

    try:
        answer = await loop.run_in_executor(service.threads, work)
        if faults.slowdown > 1:
            # The event loop rounds its timers up to milliseconds; a thread sleeps as long as it is told.
            extra = (faults.slowdown - 1) * (time.perf_counter() - began)
            await loop.run_in_executor(service.sleepers, time.sleep, extra)
    finally:
        watch.cancel()
    return answer


def _predict(service: Service, call: Call, body: bytes) -> Answer:
    try:
        return predict(service.servable, call, body)
    except Exception as error:  # noqa: BLE001 - one request that we did not foresee must not end in a bare page
        traceback.print_exception(error)
        return error_answer(ServingError("INTERNAL", f"{type(error).__name__}: {error}"))


async def _note_leaving(receive: Receive, gone: threading.Event) -> None:
    """An answer that nobody waits for need not be computed."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


def load(base_path: Path, name: str, intra_op_threads: int = 1) -> Servable:
    """The newest version under a base path, warmed up: its first predictions are behind it.

    Raises:
        ProvisionError: there is no version directory, or its SavedModel cannot be loaded.
    """
    versions = [int(path.name) for path in base_path.glob("*") if path.name.isdigit() and path.is_dir()]
    if not versions:
        raise ProvisionError(f"{base_path}: holds no numbered version directory such as 1/; name the folder above it.")
    newest = max(versions)
    from deploy import savedmodel  # TensorFlow takes its time; the folder was looked at first

    directory = next(path for path in base_path.glob("*") if path.name.isdigit() and int(path.name) == newest)
    model = savedmodel.load(directory, intra_op_threads)
    _warm(model)
    return Servable(name, newest, model)


def _warm(model: Model) -> None:
    """Call the default signature with zeros; a model that wants something else is warmed by its first request."""
    signature = model.signatures.get("serving_default")
    if signature is None:
        return
    inputs = {alias: _zeros(spec) for alias, spec in signature.inputs.items()}
    for _ in range(_WARMUPS):
        try:
            model.callers["serving_default"](inputs)
        except ServingError as error:
            command.say(f"warm-up skipped: {error.message}")
            return


def _zeros(spec: TensorSpec) -> np.ndarray[Any, Any]:
    shape = [1 if size < 0 else size for size in spec.shape or (1,)]
    return np.full(shape, b"", dtype=object) if spec.type == "string" else np.zeros(shape, dtype=spec.dtype)


def die_with_parent(parent: int) -> None:
    """End this process, with SIGTERM, when its parent ends; at once if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        sys.exit(0)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _spare_collector() -> None:
    """Keep the cyclic garbage collector from looking through TensorFlow, or at each list of a large request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


def _take(host: str, port: int) -> socket.socket:
    """The port, held but not listened on."""
    # asyncio turns Nagle's delay (40 ms an answer) off only where the protocol is named.
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StackError(f"{host}:{port}: cannot be listened on: {reason}; choose another --rest-port.") from error
    return taken


def _serve(service: Service, port: socket.socket) -> None:
    config = uvicorn.Config(
        application(service),
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        timeout_keep_alive=3600,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        server_header=False,
    )
    try:
        uvicorn.Server(config).run(sockets=[port])
    finally:
        service.threads.shutdown(wait=False, cancel_futures=True)
        service.sleepers.shutdown(wait=False, cancel_futures=True)


@click.command()
@click.option("--model-name", required=True, help="MODEL_NAME in the URL.")
@click.option("--model-base-path", required=True, type=click.Path(path_type=Path), help="The folder that holds 1/.")
@click.option("--rest-port", required=True, type=click.IntRange(0, 65535), help="Port of the REST API; 0: any.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--threads", type=click.IntRange(1), help="Predictions at once; one for each core, if left out.")
@click.option("--intra-op-threads", type=click.IntRange(1), default=1, show_default=True, help="Threads in each.")
@click.option("--slowdown", type=click.FloatRange(1), default=1.0, help="Fault: times the natural time of an answer.")
@click.option("--failure-rate", type=click.FloatRange(0, 1), default=0.0, help="Fault: share answered 503.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the failures.")
@click.option("--parent-pid", type=int, help="End when this process ends; the parent, if left out.")
def serve(  # noqa: PLR0913 - one argument for each option
    *,
    model_name: str,
    model_base_path: Path,
    rest_port: int,
    host: str,
    threads: int | None,
    intra_op_threads: int,
    slowdown: float,
    failure_rate: float,
    seed: int,
    parent_pid: int | None,
) -> None:
    """Serve the newest SavedModel under a base path behind TensorFlow Serving's REST API."""
    # Also while the model loads, and after uvicorn has shut down and raises the signal again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    die_with_parent(parent_pid or os.getppid())
    port = _take(host, rest_port)
    servable = load(model_base_path, model_name, intra_op_threads)
    faults = Faults(slowdown, failure_rate, random.Random(seed))  # noqa: S311 - faults need no cryptography
    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="predict")
    _spare_collector()
    port.listen(_BACKLOG)
    command.say(f"serving {model_name} at http://{host}:{port.getsockname()[1]}")
    _serve(Service(servable, pool, faults), port)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow does without Keras where it cannot be imported. A graph is served without it, and importing it takes as
    # long as all the rest.
    sys.modules["keras"] = None  # type: ignore[assignment]
    command.main(serve, "python -m deploy.embedded.serving")
