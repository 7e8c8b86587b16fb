"""`watch` on a real terminal: one report that is redrawn in place, and a terminal as it was when it ends."""

import os
import re
import sys

import pytest

from analysis.judge import judge
from experiments.core.home import CHECKOUT
from tests.analysis.replay import Replay
from tests.analysis.synthetic import experiment
from tests.analysis.terminal import Screen, Terminal

SHORT = experiment(
    phases=[{"name": "split", "route": {"old": 70, "new": 30}, "for": 30.0}],
    load={"arrivals": 60.0, "warmup": 2.0},
)


@pytest.fixture
def watched(tmp_path):
    """A run that goes on as it is told to, and `watch` on a terminal."""
    played = Replay(tmp_path, SHORT)
    played.advance(5)
    variables = {key: value for key, value in os.environ.items() if key not in ("CI", "COLUMNS", "LINES", "NO_COLOR")}
    terminal = Terminal(
        [sys.executable, "-m", "analysis", "watch", str(played.run.path), "--every", "0.3"],
        cwd=CHECKOUT, env={**variables, "TERM": "xterm-256color", "LANG": "C.UTF-8"},
    )  # fmt: skip
    yield played, terminal
    terminal.close()


def headlines(text):
    return [line for line in text.splitlines() if line.startswith("look ")]


def looked(text):
    """The number of the look that is shown; 0 for none yet."""
    found = re.search(r"^look (\d+),", text, re.MULTILINE)
    return int(found[1]) if found else 0


@pytest.mark.slow
def test_the_report_is_redrawn_in_place_and_ctrl_c_leaves_the_terminal_as_it_was(watched):
    played, terminal = watched
    terminal.until(lambda text: looked(text) and "shares" in text)
    first = terminal.screen.text
    assert not terminal.screen.cursor_shown
    played.advance(10)
    terminal.until(lambda text: looked(text) >= looked(first) + 3)
    (head,) = headlines(terminal.screen.text)
    assert head.split(", ", 1)[1] != headlines(first)[0].split(", ", 1)[1]  # more requests are judged
    assert terminal.screen.erased > len(first.splitlines())
    terminal.press(b"\x03")
    assert terminal.ended() == 130
    assert terminal.screen.cursor_shown
    assert terminal.after == terminal.before
    assert headlines(terminal.screen.text) == []
    assert "Traceback" not in terminal.screen.text
    assert len(terminal.screen.text.splitlines()) <= 3, terminal.screen.text


@pytest.mark.slow
def test_the_final_report_stays(watched):
    played, terminal = watched
    terminal.until(lambda text: "phase split" in text)
    played.finish()
    report = judge(played.run)
    assert terminal.ended() == report.verdict.exit_code
    assert (terminal.screen.cursor_shown, terminal.after) == (True, terminal.before)
    assert terminal.screen.text.startswith(report.verdict.sentence[:60])
    assert headlines(terminal.screen.text) == []


def test_the_screen_does_what_a_terminal_does():
    screen = Screen()
    screen.write("one\r\ntwo\x1b[?25l\r\x1b[1A\x1b[2Kuno\n\rdos\x1b[1m!\x1b[0m")
    assert (screen.text, screen.cursor_shown, screen.erased) == ("uno\ndos!", False, 1)
    with pytest.raises(AssertionError, match="unknown sequence"):
        screen.write("\x1b[2J")
