"""How a look is told: redrawn on a terminal, in a line of words where every line is kept, or as a line of JSON."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.ansi import AnsiDecoder
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from analysis import words
from analysis.findings import BROKEN, SHOWN
from analysis.look import ENDED, WAITING, Look, to_json
from analysis.render.terminal import print_report
from analysis.render.text import safe
from experiments.core import command

Tell = Callable[[Look], None]
_SENTENCE = 400


@contextmanager
def lines_of_json() -> Iterator[Tell]:
    """One document a line, flushed: who reads it may act on it at once."""

    def tell(look: Look) -> None:
        sys.stdout.buffer.write(to_json(look) + b"\n")
        sys.stdout.buffer.flush()

    yield tell


@contextmanager
def in_words() -> Iterator[Tell]:
    """A line on stderr for each look that says something new; the report itself follows when the run has ended."""
    before = ""

    def tell(look: Look) -> None:
        nonlocal before
        line = headline(look)
        news = line.partition(": ")[2] if look.state != WAITING else line
        if look.state != ENDED and news != before:
            command.say(safe(line, _SENTENCE))
        before = news

    yield tell


@contextmanager
def on_terminal() -> Iterator[Tell]:
    """The whole report, redrawn in place; it is printed once more, to stay, when the run has ended."""
    console = Console()
    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:

        def tell(look: Look) -> None:
            if look.state != ENDED:
                live.update(_frame(look, console), refresh=True)

        yield tell


def _frame(look: Look, console: Console) -> Group:
    head = Text(safe(headline(look), _SENTENCE), style="bold")
    if look.report is None:
        return Group(head)
    drawn = _Drawn(console)
    print_report(look.report, drawn, width=console.width)
    return Group(head, Text(), *AnsiDecoder().decode(drawn.text()))


class _Drawn(io.TextIOWrapper):
    """A text in memory that is what the terminal is, as far as a report asks: its encoding, and whether it is one."""

    def __init__(self, console: Console) -> None:
        super().__init__(io.BytesIO(), encoding=console.encoding, newline="")
        self._console = console

    def isatty(self) -> bool:
        """Colours are wanted where the terminal has them."""
        return self._console.is_terminal

    def text(self) -> str:
        """What was drawn."""
        self.seek(0)
        return self.read()


def headline(look: Look) -> str:
    """One line: what is waited for, or where the run is and what it says so far."""
    if look.state == WAITING or look.report is None:
        return look.message
    required = [claim for claim in look.report.claims if claim.required]
    decided = sum(claim.state in (SHOWN, BROKEN) for claim in required)
    place = f"phase {look.phase}, {words.duration(look.phase_s)}" if look.phase else "before the first phase"
    judged = f"{words.requests(look.report.records.judged)} judged"
    note = f" ({look.message})" if look.message else ""
    return f"look {look.look}, {place}, {judged}: {decided} of {len(required)} required claims decided{note}"
