"""Processes of a stack, recognised by their id and command line: an id alone may by now be somebody else's."""

import contextlib
import os
import signal
import time
from collections.abc import Sequence

import msgspec
import psutil

from experiments.core.home import CHECKOUT


class Running(msgspec.Struct, frozen=True):
    """A process that we started: what it is for, its id, its command line."""

    name: str
    pid: int
    arguments: list[str]


def spawn_detached(arguments: Sequence[str], log: str) -> int:
    """Start a process in a session of its own that outlives us; its id.

    Its output goes to `log`, and it inherits nothing but the environment and the folder.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # This checkout first: a process must find us whatever folder it is started in.
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    return os.posix_spawn(arguments[0], list(arguments), environment, file_actions=actions, setsid=True)


def alive(process: Running) -> bool:
    """Whether that very process still runs."""
    _reap(process.pid)
    try:
        found = psutil.Process(process.pid)
        # For an instant after its start a process has no command line yet.
        return found.cmdline() in (process.arguments, []) and found.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def end(process: Running, patience_s: float) -> None:
    """End that very process: in order, and by force if it does not end within `patience_s`."""
    for number, patience in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 10.0)):
        if not alive(process):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        _await_end(process, patience)


def _await_end(process: Running, patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while alive(process) and time.monotonic() < until:
        time.sleep(0.02)


def _reap(pid: int) -> None:
    """If it is our own child and has ended, let the kernel forget it."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)


def how_it_ended(code: int) -> str:
    """An exit code of `subprocess` in words.

    >>> how_it_ended(-9), how_it_ended(1)
    ('was killed by SIGKILL', 'ended with exit code 1')
    """
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
