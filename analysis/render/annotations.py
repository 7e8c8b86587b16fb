"""Report → GitHub workflow commands: what is broken, void or undecided shows up beside the job."""

from collections.abc import Iterator

from analysis.findings import BROKEN, SHOWN, UNDECIDED, VOID
from analysis.render.text import safe
from analysis.report import Report

LEVELS = {BROKEN: "error", VOID: "error", UNDECIDED: "warning", SHOWN: "notice"}
_LONG = 600
_MOST = 10
"""GitHub shows ten of a kind for a step and drops the others without a word."""


def render_annotations(report: Report) -> str:
    """One line for the verdict and one for each claim that is not shown."""
    return "".join(f"{line}\n" for line in _commands(report))


def _commands(report: Report) -> Iterator[str]:
    level = "notice" if report.verdict.word == "promote" else "error" if report.verdict.exit_code != 3 else "warning"  # noqa: PLR2004 - 3 is hold
    yield _command(level, "Splitproof", report.verdict.sentence)
    missing = [claim for claim in report.claims if claim.state != SHOWN]
    for claim in missing[: _MOST - 1]:
        level = LEVELS[claim.state] if claim.required or claim.state == BROKEN else "notice"
        yield _command(level, f"{claim.state}: {claim.id}", claim.sentence)


def _command(level: str, title: str, text: str) -> str:
    return f"::{level} title={_value(title)}::{_data(safe(text, _LONG))}"


def _data(text: str) -> str:
    r"""Text that cannot end its line or start another command.

    >>> _data("100%")
    '100%25'
    """
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _value(text: str) -> str:
    """A property of a command, where `:` and `,` have a meaning too."""
    return _data(safe(text, 100)).replace(":", "%3A").replace(",", "%2C")
