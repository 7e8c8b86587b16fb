"""What a run says while it goes on: one line a step, and a moving line while it waits, where there is a terminal."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

_TICK_S = 0.2


def _console() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Narrator:
    """Tells on stderr what goes on; results go to stdout and are nobody's business here."""

    console: Console = field(default_factory=_console)
    started: float = field(default_factory=time.monotonic)

    @property
    def moving(self) -> bool:
        """Whether lines may be redrawn: on a terminal, and not in CI, whose logs keep every frame."""
        return self.console.is_terminal and not os.environ.get("CI")

    def say(self, text: str) -> None:
        """Print one line, with the seconds since the start."""
        self.console.print(f"{time.monotonic() - self.started:6.1f} s  {text}", markup=False)

    def wait(self, label: str, seconds: float, check: Callable[[], T | None]) -> T | None:
        """Let time pass, calling `check` several times a second: the first thing that it returns ends the wait."""
        end = time.monotonic() + seconds
        if not self.moving:
            self.say(f"{label} ({seconds:.0f} s)")
            return _pass_time(end, check, lambda _left: None)
        columns = (TextColumn("         {task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(label, total=seconds)
            found = _pass_time(end, check, lambda left: bar.update(task, completed=seconds - left))
        self.say(f"{label}: done")
        return found


def _pass_time(end: float, check: Callable[[], T | None], show: Callable[[float], None]) -> T | None:
    while (left := end - time.monotonic()) > 0:
        found = check()
        if found is not None:
            return found
        show(left)
        time.sleep(min(_TICK_S, left))
    return None
