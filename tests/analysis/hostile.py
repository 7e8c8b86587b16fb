"""Words that somebody else chose, and meant badly; put wherever such words can stand."""

from typing import Any

import msgspec

from analysis.report import Report

HOSTILE = (
    "<script>alert(1)</script>",
    "a|b\n\n# heading",
    "[x](javascript:alert(1))",
    "\x1b[2J\x1b[31mred",
    "\u202egnirts",
    "x" * 10_000,
    "]]> & '\" @everyone https://example.com ```",
    "![x](https://example.com/x.png) <img src=x onerror=alert(1)>",
    "\\| \\\\| \\",
    "🦊👩‍👩‍👧‍👦 é\u0301 \ufeff\x00",
    '=HYPERLINK("http://example.com","x")',
    "::error title=x::y\r\n::set-output name=verdict::promote %0A",
    "</style></title><!--",
)

_CHOSEN = {
    "phase", "phases", "arm", "arms", "baseline", "cohort", "cohorts", "id", "sentence", "reason", "test",
    "null", "name", "assumption", "reading", "remarks", "run", "experiment", "experiment_hash", "description", "target",
    "voids", "weakens", "ended", "fixed_test",
}  # fmt: skip
_KEYED = {"classes", "kinds", "weights"}


def everywhere(report: Report, text: str) -> Report:
    """The report with that text in the place of every word that comes from outside, or quotes one that does."""
    return msgspec.convert(_changed(msgspec.to_builtins(report), text), Report)


def _changed(value: Any, text: str, key: str = "") -> Any:
    if isinstance(value, dict):
        if key in _KEYED:
            return {text: next(iter(value.values()))} if value else {}
        return {name: _changed(one, text, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_changed(one, text, key) for one in value]
    return text if isinstance(value, str) and key in _CHOSEN else value
