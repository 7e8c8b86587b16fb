"""Child processes that never outlive their parent, and that are ended by their ids alone."""

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def _die_with_parent(parent: int, number: int) -> None:
    """Ask the kernel to end this process when its parent dies (Linux; elsewhere the parent's own care must do)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), number)


def spawn(
    arguments: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    death: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, so that a Ctrl-C at the terminal reaches only us.

    Args:
        arguments: Program and arguments; no shell is involved.
        log: Where its output goes; it is replaced.
        environment: Variables to add to ours.
        death: The signal that the kernel sends it when this process dies.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            # One prctl call, before any thread exists in the child.
            preexec_fn=functools.partial(_die_with_parent, os.getpid(), death),  # noqa: PLW1509
        )


def end(process: subprocess.Popen[bytes], patience_s: float, first: int = signal.SIGTERM) -> int:
    """End a child in order; kill it if it does not end within `patience_s`. Returns its exit code."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(first)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            _kill_session(process.pid)
            process.wait()
    return process.returncode


def _kill_session(pid: int) -> None:
    """Kill a child and its own children: it leads its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def last_lines(log: Path, count: int = 1) -> str:
    """The last lines of a log that say something, for an error message."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return " | ".join(lines[-count:])
