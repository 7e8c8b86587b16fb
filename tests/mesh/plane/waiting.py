"""Wait for something, for so long and no longer."""

import time
from collections.abc import Callable, Sequence
from subprocess import Popen

_PATIENCE = 4.0
"""A limit is there for what never comes. Callers' suit a quiet machine; a busy one may take so many times as long."""

Told = Callable[[str], None]
"""Takes lines that tell a person how far things are."""


class MeshError(Exception):
    """The control plane does not come up, or does not do what was waited for."""


def until(reached: Callable[[], object], what: str, within_s: float, every_s: float = 0.1) -> None:
    """Return once `reached` is true.

    Raises:
        MeshError: it is not true within `within_s` seconds, and some more for a busy machine.
    """
    end = time.monotonic() + _PATIENCE * within_s
    while not reached():
        if time.monotonic() > end:
            raise MeshError(f"waited {_PATIENCE * within_s:.0f} s in vain: {what}")
        time.sleep(every_s)


def ended(processes: Sequence[tuple[str, Popen[bytes]]]) -> list[str]:
    """The names of those that run no more."""
    return [name for name, process in processes if process.poll() is not None]
