"""Report → tables for the page: the same words as every other form, with the numbers to sort by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from analysis import words
from analysis.findings import Failures, Interval, Latency, Share
from analysis.render import lines
from analysis.render.text import safe
from analysis.report import Report

QUANTILES = ("p50", "p90", "p95", "p99")
_LONG = 900
_MOST_ROWS = 600
_OF_LATENCY = ("phase", "arm", ">answers", ">mean", *(f">{q}" for q in QUANTILES))
_UNFOLDED = 24
_NOT_REQUIRED = "A claim that is not required (*) does not keep from promoting; broken, it rolls back all the same."


@dataclass(frozen=True)
class Cell:
    """What a table shows in one place, the value that it sorts by where that is not the text, and what stands below."""

    text: str
    value: float | str | None = None
    kind: str = ""
    bar: Markup | None = None
    below: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page: a table, with pictures and sentences before it; `>` marks columns of numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    pictures: Sequence[str] = ()
    told: Sequence[str] = ()
    folded: bool = False


def sections(report: Report) -> list[Section]:
    """Every table of the page, in its order."""
    return [
        Section(
            "Claims",
            ("state", "what was found", ">found", "interval", "evidence"),
            _most(_claims(report)),
            "" if all(claim.required for claim in report.claims) else _NOT_REQUIRED,
        ),
        Section(
            "Shares",
            ("phase", "cohort", "arm", ">configured", ">got", ">requests", "interval", "0 to 100 %"),
            _most(_shares(report)),
            pictures=("routes",),
            folded=len(report.shares) > _UNFOLDED,
        ),
        *_waited(report),
        Section(
            lines.ANSWERED.capitalize(),
            _OF_LATENCY,
            _most(_latencies(report.latencies)),
            lines.quantiles_note(report.latencies) if report.latencies else "",
            pictures=("heat",),
            folded=len(report.latencies) > _UNFOLDED,
            told=[] if report.latencies else ["No judged request was answered."],
        ),
        Section(
            "Failures by routed arm",
            ("phase", "arm", ">failed", ">requests", "rate", "how"),
            _most(_failures(report)),
            pictures=("failures",),
            folded=len(report.failures) > _UNFOLDED,
            told=_no_failure(report),
        ),
        *_drawn(report),
        Section("Outputs", (), (), pictures=("signatures",), told=_outputs(report)),
        Section("May this be judged?", ("state", "check", "what was found"), _most(_checks(report))),
        Section(
            "Tests",
            ("claim", "test", "null", ">requests", "estimate and interval", "level", "evidence"),
            _most(_tests(report)),
            pictures=("evidence",),
            folded=True,
        ),
    ]


def _no_failure(report: Report) -> list[str]:
    if not report.records.judged:
        return ["No request was judged."]
    return [] if any(row.failed for row in report.failures) else ["No judged request failed."]


def _most(rows: Iterator[Sequence[Cell]]) -> list[Sequence[Cell]]:
    """What a page can hold; what is left out is said."""
    every = list(rows)
    if len(every) <= _MOST_ROWS:
        return every
    left = Cell(f"{len(every) - _MOST_ROWS} more in report.json")
    return [*every[:_MOST_ROWS], [left, *[Cell("")] * (len(every[0]) - 1)]]


def _number(text: str, value: float | None) -> Cell:
    return Cell(text, "" if value is None else float(f"{value:.12g}"), "n")


def _interval(interval: Interval | None) -> tuple[float | None, str]:
    return (None, "") if interval is None else (interval.low, lines.between(interval))


_SIGNS = {"broken": "✗", "failed": "✗", "void": "?", "undecided": "…", "shown": "✓", "ok": "✓"}
"""Of states, the worst first: so they sort."""


def _state(state: str, *, required: bool = True) -> Cell:
    told = f"{_SIGNS[state]} {state}{'' if required else '*'}"
    return Cell(told, list(_SIGNS).index(state), kind=f"state {state}")


def _claims(report: Report) -> Iterator[Sequence[Cell]]:
    for claim in report.claims:
        estimate = claim.interval.estimate if claim.interval else None
        yield [
            _state(claim.state, required=claim.required),
            Cell(safe(claim.sentence + lines.need(claim), _LONG), kind="words"),
            _number(lines.effect(claim).partition(",")[0], estimate),
            Cell(lines.effect(claim).partition(", ")[2], _interval(claim.interval)[0], "whole"),
            Cell(lines.evidence(claim), kind="whole"),
        ]


def _shares(report: Report) -> Iterator[Sequence[Cell]]:
    for share in report.shares:
        yield [
            Cell(safe(share.phase)),
            Cell(safe(", ".join(share.cohorts))),
            Cell(lines.arm_name(share.arm)),
            _number(lines.expected(share), share.expected),
            _number(words.percent(share.share.estimate), share.share.estimate),
            _number(words.count(share.requests), share.requests),
            Cell(lines.between(share.share), share.share.low, "whole"),
            Cell("", share.share.estimate or 0.0, bar=_bar(share)),
        ]


def _bar(share: Share) -> Markup:
    """The interval on a scale from 0 to 1; it repeats the cell before it, so it is hidden from screen readers."""
    low, high = share.share.low, 1.0 if share.share.high is None else share.share.high
    parts = [f'<i style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i>']
    if share.share.estimate is not None:
        parts.append(f'<b style="left:{min(100 * share.share.estimate, 98.5):.2f}%"></b>')
    if share.expected is not None:
        parts.append(f'<u style="left:{min(100 * share.expected, 98.5):.2f}%"></u>')
    return Markup(f'<span class="bar" aria-hidden="true">{"".join(parts)}</span>')  # noqa: S704 - numbers only


def _waited(report: Report) -> Iterator[Section]:
    """Latencies from the intended start, where there was one."""
    if report.waited:
        folded = len(report.waited) > _UNFOLDED
        told = lines.quantiles_note(report.waited)
        yield Section(lines.WAITED.capitalize(), _OF_LATENCY, _most(_latencies(report.waited)), told, folded=folded)


def _latencies(found: Sequence[Latency]) -> Iterator[Sequence[Cell]]:
    for row in found:
        yield [
            Cell(safe(row.phase)),
            Cell(safe(row.arm)),
            _number(words.count(row.requests), row.requests),
            _number(words.milliseconds(row.mean_us), row.mean_us),
            *(_quantile(row, name) for name in QUANTILES),
        ]


def _quantile(row: Latency, name: str) -> Cell:
    found = row.quantiles_us.get(name)
    return replace(_number(lines.quantile(row, name), found), below=lines.quantile_between(row, name))


def _failures(report: Report) -> Iterator[Sequence[Cell]]:
    for row in report.failures:
        low, between = _interval(row.rate)
        yield [
            Cell(safe(row.phase)),
            Cell(lines.arm_name(row.arm)),
            _number(words.count(row.failed), row.failed),
            _number(words.count(row.requests), row.requests),
            Cell(between, low, "whole"),
            Cell(_how(row)),
        ]


def _how(row: Failures) -> str:
    return lines.classes(row)


def _outputs(report: Report) -> list[str]:
    told = [lines.outputs(row) for row in report.outputs] if report.outputs_applicable else []
    told += [] if report.outputs_applicable else ["Outputs: not applicable, the weights are random."]
    return told


def _drawn(report: Report) -> Iterator[Section]:
    """How evenly shares came, where they were looked at over time."""
    moved = [lines.drift(one) for one in report.drifts if not one.reading.startswith("the share stayed")]
    if report.dispersions:
        yield Section(
            "Were arms drawn independently?",
            ("phase", "cohort", "arm", ">windows", ">index", "reading"),
            _most(_dispersions(report)),
            "The variation of an arm's share from window to window, where 1 is what independent draws give. "
            "Described, not judged.",
            told=moved,
            folded=len(report.dispersions) > _UNFOLDED,
        )


def _dispersions(report: Report) -> Iterator[Sequence[Cell]]:
    for one in report.dispersions:
        yield [
            Cell(safe(one.phase)),
            Cell(safe(one.cohort)),
            Cell(lines.arm_name(one.arm)),
            _number(words.count(one.windows), one.windows),
            _number(f"{one.index:.2f}", one.index),
            Cell(safe(one.reading)),
        ]


def _checks(report: Report) -> Iterator[Sequence[Cell]]:
    for check in report.checks:
        yield [
            _state("ok" if check.ok else "failed"),
            Cell(safe(check.name)),
            Cell(safe(check.sentence, _LONG), kind="words"),
        ]


def _tests(report: Report) -> Iterator[Sequence[Cell]]:
    for claim in report.claims:
        yield [
            Cell(safe(claim.id, 100)),
            Cell(safe(claim.test, 200)),
            Cell(safe(claim.null, 300)),
            _number(words.count(claim.requests), claim.requests),
            Cell(lines.effect(claim)),
            Cell(lines.level(claim)),
            Cell(lines.evidence(claim)),
        ]


def run_cells(place: int, report: Report, started: str) -> Sequence[Cell]:
    """A run in a comparison."""
    subject, verdict = report.subject, report.verdict
    return [
        Cell(str(place)),
        Cell(safe(subject.run)),
        Cell(safe(subject.experiment)),
        Cell(started, kind="whole"),
        Cell(verdict.word, kind=f"state {verdict.word.replace(' ', '-')}"),
        Cell(safe(verdict.sentence, _LONG), kind="words"),
    ]


def trend_cells(row: dict[str, Any]) -> Sequence[Cell]:
    """A claim of one run in a comparison."""
    found, _, between = row["told"].partition(", ")
    return [
        Cell(safe(row["claim"], 100)),
        Cell(str(row["at"]), row["at"], "n"),
        _state(row["state"]),
        _number(found, row["estimate"]),
        Cell(between, row["low"], "whole"),
    ]
