"""The parent of a stack's processes: `python -m deploy.embedded.supervisor STATE_DIR`.

It starts what the plan names and takes everything down when one of them ends, when it is told to (SIGTERM), and when
its owner is gone. Killed itself, it takes them along: the kernel ends each child with its parent.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil

from deploy.embedded.logs import keep_bounded
from deploy.embedded.processes import Running, how_it_ended
from deploy.embedded.state import Child, End, Plan, StateDir
from experiments.core.children import end, last_lines, spawn
from experiments.core.records import write_json

_LOOK_EVERY_S = 0.05
_PATIENCE_S = 3.0

Children = Sequence[tuple[Child, subprocess.Popen[bytes]]]


class _Stop:
    """Set by SIGTERM."""

    asked = False

    def __call__(self, _number: int, _frame: object) -> None:
        self.asked = True


def supervise(state: StateDir) -> None:
    """Run the plan of a state directory until something ends it."""
    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    plan = msgspec.json.decode(state.plan.read_bytes(), type=Plan)
    running: list[tuple[Child, subprocess.Popen[bytes]]] = []
    try:
        running.extend((child, _start(child)) for child in plan.children)
        write_json(state.processes, [Running(child.name, process.pid, child.arguments) for child, process in running])
        sentence = _watch(plan, running, stop, state)
        if sentence:
            write_json(state.end, End(time.time_ns() // 1000, sentence))
    finally:
        _end_all(running)


def _start(child: Child) -> subprocess.Popen[bytes]:
    return spawn(child.arguments, Path(child.log), child.environment, death=signal.SIGKILL)


def _watch(plan: Plan, running: Children, stop: _Stop, state: StateDir) -> str:
    """Wait; why the stack must end, or nothing when it was asked to."""
    while not stop.asked:
        keep_bounded(state.envoy)
        for child, process in running:
            if process.poll() is not None:
                last = last_lines(Path(child.log)) or "it said nothing"
                return f"{child.name} (pid {process.pid}) {how_it_ended(process.returncode)}; its last line: {last}"
        if plan.owner_pid is not None and not _owner_lives(plan):
            return f"its owner (pid {plan.owner_pid}) is gone"
        time.sleep(_LOOK_EVERY_S)
    return ""


def _owner_lives(plan: Plan) -> bool:
    try:
        owner = psutil.Process(plan.owner_pid)
        return owner.create_time() == plan.owner_started and owner.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _end_all(running: Children) -> None:
    """Tell all first, then wait for each."""
    for _, process in running:
        if process.poll() is None:
            process.terminate()
    for _, process in running:
        end(process, _PATIENCE_S)


if __name__ == "__main__":
    supervise(StateDir(Path(sys.argv[1])))
