"""A word to whoever waits: on a terminal only, and only once there was something to wait for."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from experiments.core import command

AFTER_S = 2.0


class Patience:
    """What is being done; told from `AFTER_S` on, each thing once."""

    def __init__(self) -> None:
        self._doing, self._told, self._late = "", "", False

    def doing(self, what: str) -> None:
        """Say what is being done now."""
        self._doing = what
        if self._late:
            self._tell()

    def _is_late(self) -> None:
        self._late = True
        self._tell()

    def _tell(self) -> None:
        if self._doing != self._told:
            self._told = self._doing
            command.say(f"{self._doing} …")


@contextmanager
def patience() -> Iterator[Patience]:
    """Tell what is being done where it takes longer than two seconds and stderr is a terminal."""
    telling = Patience()
    timer = threading.Timer(AFTER_S, telling._is_late)  # noqa: SLF001 - its own
    timer.daemon = True
    if sys.stderr.isatty():
        timer.start()
    try:
        yield telling
    finally:
        timer.cancel()
