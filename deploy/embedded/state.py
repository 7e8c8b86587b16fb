"""What lies in a stack's state directory beside the files that everybody reads: its processes, its end, its lock."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from deploy.embedded.bootstrap import EnvoyFiles
from deploy.embedded.processes import Running
from experiments.core.errors import StackError
from experiments.core.home import home, stack_dir
from experiments.core.stack import StackDir

T = TypeVar("T")
_PATIENCE_S = 300.0


class Child(msgspec.Struct, frozen=True):
    """A process that the supervisor shall start: its name for people, its command, its log, variables to add."""

    name: str
    arguments: list[str]
    log: str
    environment: dict[str, str] = {}


class Plan(msgspec.Struct, frozen=True):
    """What the supervisor shall run, and the process (id, and when it started) without which it ends, if any."""

    children: list[Child]
    owner_pid: int | None = None
    owner_started: float | None = None


class End(msgspec.Struct, frozen=True):
    """Why the supervisor took the stack down by itself, in a sentence."""

    at_us: int
    sentence: str


@dataclass(frozen=True)
class StateDir:
    """The paths inside the state directory of an embedded stack."""

    path: Path
    shared: StackDir = field(init=False)
    envoy: EnvoyFiles = field(init=False)
    logs: Path = field(init=False)
    plan: Path = field(init=False)
    supervisor: Path = field(init=False)
    processes: Path = field(init=False)
    end: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shared", StackDir(self.path))
        object.__setattr__(self, "envoy", EnvoyFiles(self.path / "envoy"))
        object.__setattr__(self, "logs", self.path / "logs")
        for name in ("plan", "supervisor", "processes", "end"):
            object.__setattr__(self, name, self.path / f"{name}.json")

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self.logs / f"{name}.log"


def state_dir(experiment: str) -> StateDir:
    """Where the state of an experiment's embedded stack lies."""
    return StateDir(stack_dir(experiment))


def names() -> list[str]:
    """The experiments that have a state directory, up or not."""
    return sorted(path.name for path in (home() / "stacks").glob("*") if path.is_dir())


def write_atomically(path: Path, value: Any) -> None:
    """Replace a JSON file by a move: its reader sees the old or the new one, and Envoy notices."""
    temporary = path.parent.parent / f".{path.name}.{os.getpid()}"
    temporary.write_bytes(msgspec.json.encode(value))
    temporary.replace(path)


def read_if_there(path: Path, kind: type[T]) -> T | None:
    """A file's content; None where it is missing, or not whole."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None


def read_supervisor(state: StateDir) -> Running | None:
    """The supervisor that was started last, alive or not."""
    return read_if_there(state.supervisor, Running)


@contextlib.contextmanager
def reserved(experiment: str) -> Iterator[None]:
    """Have the routes of a stack for oneself, up or not yet up, until the end; the kernel frees it when we die.

    Two runs of one experiment would change each other's routes, and neither could be judged.

    Raises:
        StackError: another process has them; at once, and it is named.
    """
    descriptor = _open_lock(experiment, "run")
    try:
        if not _reserve(descriptor):
            raise StackError(in_use(experiment, _holder(descriptor)))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _reserve(descriptor: int) -> bool:
    """Take the lock; somebody who only looks, in `refuse_reserved`, holds it for less than all of the tries."""
    for _ in range(10):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def refuse_reserved(experiment: str) -> None:
    """Raise if another process has reserved the stack.

    Raises:
        StackError: naming that process.
    """
    descriptor = _open_lock(experiment, "run")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor)
        if holder != os.getpid():
            raise StackError(in_use(experiment, holder)) from None
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> int | None:
    told = os.pread(descriptor, 20, 0)
    return int(told) if told.isdigit() else None


def in_use(experiment: str, holder: int | None) -> str:
    """The sentence for whoever wants a stack that a run has for itself."""
    who = "" if holder is None else f" (pid {holder})"
    return (
        f"{experiment}: a run{who} uses its stack, and one at a time may change its routes; wait for its end, or give "
        f"this one a name and so a stack of its own: --set name={experiment}-2"
    )


@contextlib.contextmanager
def locked(experiment: str, progress: Callable[[str], None]) -> Iterator[None]:
    """One command at a time changes a stack; another one waits.

    Raises:
        StackError: the state directory cannot be written, or the other command takes too long.
    """
    descriptor = _open_lock(experiment, "lock")
    try:
        _take(descriptor, experiment, progress)
        yield
    finally:
        os.close(descriptor)


def _open_lock(experiment: str, kind: str) -> int:
    path = home() / "stacks" / f".{experiment}.{kind}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StackError(
            f"{path.parent}: cannot be written: {error.strerror}; change permissions, or set SPLITPROOF_HOME."
        ) from error


def _take(descriptor: int, experiment: str, progress: Callable[[str], None]) -> None:
    until = time.monotonic() + _PATIENCE_S
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise StackError(
                    f"{experiment}: another command has worked on this stack for {_PATIENCE_S:.0f} s; end it first."
                ) from None
            if not told:
                progress(f"{experiment}: another command works on this stack; waiting for it")
                told = True
            time.sleep(0.05)
        else:
            return
