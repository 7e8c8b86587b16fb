"""Look at a run again and again while it goes on: on the terminal, as lines of JSON, or into its own `live.json`."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from analysis.following import Following
from analysis.look import ENDED, WAITING, Look, to_json
from analysis.looking import Looking
from analysis.publish import show
from analysis.telling import in_words, lines_of_json, on_terminal
from experiments.core import command
from experiments.core.errors import Exit
from experiments.core.records import RunDir

LIVE_FILE = "live.json"

FREE = 3.0
"""A look is followed by at least this many times as long without one: at most a quarter of one core is used."""

_WAIT_S = 0.3


@dataclass(frozen=True)
class Pace:
    """How often to look. `wait` is called with seconds."""

    every_s: float = 2.0
    wait: Callable[[float], None] = time.sleep


def looks(run: RunDir, pace: Pace) -> Iterator[Look]:
    """Look after look until the run has ended; the last one holds its final report.

    Raises:
        RecordsError: what is there is damaged, foreign or of a newer schema, or was taken away.
        ExperimentError: the experiment in it breaks rules.
    """
    looking = Looking(Following(run))
    while True:
        began = time.monotonic()
        found = looking.look()
        yield found
        if found.state == ENDED:
            return
        took = time.monotonic() - began
        pace.wait(_WAIT_S if found.state == WAITING else max(pace.every_s - took, FREE * took))


def watch(run: RunDir, pace: Pace, *, as_json: bool, into_run: bool) -> int:
    """Show every look until the run has ended; the exit code of its verdict.

    Args:
        run: The run directory; it need not be there yet.
        pace: How often.
        as_json: A line of JSON for each look on stdout, instead of a report.
        into_run: Write each look into `live.json` of the run directory, replaced at once.
    """
    last = None
    shown = lines_of_json() if as_json else on_terminal() if _moving() else in_words()
    with shown as tell:
        for last in looks(run, pace):
            if into_run and last.state != WAITING:
                _replace(run.path / LIVE_FILE, to_json(last))
            tell(last)
    if last is None or last.report is None:
        return int(Exit.USAGE)
    if not as_json:
        show(last.report)
    return last.report.verdict.exit_code


def _moving() -> bool:
    """Whether what was said may be redrawn: on a terminal, and not in CI, whose logs keep every frame."""
    return sys.stdout.isatty() and not os.environ.get("CI")


def _replace(path: Path, content: bytes) -> None:
    """A reader sees the old or the new look, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content + b"\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        command.say(f"{path}: not written: {error.strerror}.")
