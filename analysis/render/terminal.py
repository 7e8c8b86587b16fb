"""Report → terminal: the verdict first; tables that fit 80 columns; no colour and ASCII where the stream asks."""

import os
from collections.abc import Sequence
from typing import IO, Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis import words
from analysis.findings import BROKEN, SHOWN, UNDECIDED, VOID, Latency
from analysis.render import lines
from analysis.render.text import interval_bar, safe, spelt
from analysis.report import Report
from analysis.verdict import HOLD, INVALID, PROMOTE, ROLL_BACK

STYLES = {PROMOTE: "bold green", ROLL_BACK: "bold red", HOLD: "bold yellow", INVALID: "bold magenta"}
STATE_STYLES = {SHOWN: "green", BROKEN: "red", UNDECIDED: "yellow", VOID: "magenta"}
_PLAIN_WIDTH = 100
_WIDE = 110
_SENTENCE = 600


def print_report(report: Report, stream: IO[str], *, quiet: bool = False, width: int | None = None) -> None:
    """Print a report.

    Args:
        report: What to say.
        stream: Where; its encoding and whether it is a terminal decide about signs and colour.
        quiet: The verdict's line only.
        width: Columns; the terminal's own, else `COLUMNS`, else 100.
    """
    if not _speaks_unicode(stream):
        report = msgspec.convert(spelt(msgspec.to_builtins(report), _encoding(stream)), Report)
    console = _console(stream, width)
    sentence = Text(safe(report.verdict.sentence, _SENTENCE), style=STYLES[report.verdict.word])
    console.print(sentence, soft_wrap=quiet)
    if quiet:
        return
    for remark in report.remarks:
        console.print(Text(safe(remark, _SENTENCE), style="italic"))
    subject = f"{safe(report.subject.experiment)}, run {safe(report.subject.run)} ({safe(report.subject.target)}). "
    console.print(Text(subject + lines.records(report), style="dim"))
    ascii_only = not _speaks_unicode(stream)
    for table in (
        _claims(report, console),
        _shares(report, ascii_only=ascii_only, wide=console.width >= _WIDE),
        _latencies(lines.WAITED, report.waited, wide=console.width >= _WIDE),
        _latencies(lines.ANSWERED, report.latencies, wide=console.width >= _WIDE),
        _failures(report),
        _checks(report),
    ):
        if table.row_count:
            console.print()
            console.print(table)
    _remainder(report, console)


class _Narrow:
    """A stream that has few signs: what it lacks is spelt with those that it has, and is no error."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        return self._stream.write(spelt(text, _encoding(self._stream)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Patient(Console):
    """A console whose reader may go away, as `head` does: rich would end the process with 1, which means roll back."""

    def on_broken_pipe(self) -> None:
        """Say the rest to nobody; the exit code stays the verdict's."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def _console(stream: IO[str], width: int | None) -> Console:
    if width is None and not stream.isatty():
        width = int(os.environ.get("COLUMNS") or _PLAIN_WIDTH)
    kind: Any = stream if _speaks_unicode(stream) else _Narrow(stream)
    return _Patient(file=kind, width=width, highlight=False, safe_box=True, emoji=False, markup=False, soft_wrap=False)


def _speaks_unicode(stream: IO[str]) -> bool:
    return _encoding(stream).lower().replace("-", "").startswith("utf")


def _encoding(stream: IO[str]) -> str:
    return getattr(stream, "encoding", None) or "ascii"


def _table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", header_style="dim", overflow="fold")
    return table


def _claims(report: Report, console: Console) -> Table:
    del console
    table = _table("claims", "state", "what was found")
    table.columns[0].no_wrap = True
    for claim in report.claims:
        state = claim.state if claim.required else f"{claim.state}*"
        told = safe(claim.sentence, _SENTENCE) + lines.need(claim)
        table.add_row(Text(state, style=STATE_STYLES[claim.state]), Text(told))
    if any(not claim.required for claim in report.claims):
        table.caption, table.caption_justify = "* not required to promote; broken, it rolls back all the same", "left"
    return table


def _shares(report: Report, *, ascii_only: bool, wide: bool) -> Table:
    columns = ("phase", "cohort", "arm", "expected", "got", "interval", "0 to 100%")
    table = _table("shares", *columns, right=("expected", "got"))
    before = ("", "")
    for share in report.shares:
        place = (share.phase, ", ".join(share.cohorts))
        first = place if place != before else ("", "")
        before = place
        cells = [*map(safe, first), lines.arm_name(share.arm), lines.expected(share)]
        cells += [lines.observed(share) if wide else words.percent(share.share.estimate), lines.between(share.share)]
        marks = share.share.estimate, share.expected
        high = 1.0 if share.share.high is None else share.share.high
        cells.append(interval_bar(share.share.low, high, marks, 20 if wide else 10, ascii_only=ascii_only))
        table.add_row(*map(Text, cells))
    return table


def _latencies(title: str, rows: Sequence[Latency], *, wide: bool) -> Table:
    """Each quantile with its interval below it; the mean where there is room."""
    names = ("p50", "p90", "p95", "p99")
    numbers = ("answers", *(("mean",) if wide else ()), *names)
    table = _table(title, "phase", "arm", *numbers, right=numbers)
    for column in table.columns[2:]:
        column.no_wrap = True  # half a number on each of two lines is another number
    for row in rows:
        mean = [words.milliseconds(row.mean_us)] if wide else []
        cells = [safe(row.phase), safe(row.arm), words.count(row.requests), *mean]
        table.add_row(*map(Text, cells), *(_quantile(row, name) for name in names))
    table.caption, table.caption_justify = lines.quantiles_note(rows), "left"
    return table


def _quantile(row: Latency, name: str) -> Text:
    between = lines.quantile_between(row, name)
    told = Text(lines.quantile(row, name))
    return told.append(f"\n{between}", style="dim") if between else told


def _failures(report: Report) -> Table:
    table = _table("failures by routed arm", "phase", "arm", "failed", "rate", "how", right=("failed", "rate"))
    for row in report.failures:
        failed = f"{words.count(row.failed)} of {words.count(row.requests)}"
        rate = lines.between(row.rate)
        table.add_row(*map(Text, [safe(row.phase), lines.arm_name(row.arm), failed, rate, lines.classes(row)]))
    return table


def _checks(report: Report) -> Table:
    table = _table("may this be judged?", "", "check", "what was found")
    for check in report.checks:
        state = Text("ok", style="green") if check.ok else Text("FAILED", style="magenta")
        table.add_row(state, Text(safe(check.name)), Text(safe(check.sentence, _SENTENCE)))
    return table


def _remainder(report: Report, console: Console) -> None:
    """Outputs and dispersion: described, not judged."""
    told = [lines.outputs(row) for row in report.outputs] if report.outputs_applicable else []
    told += [] if report.outputs_applicable else ["outputs: not applicable, the weights are random."]
    for one in report.dispersions:
        if one.reading != "as independent draws" or one.phase in {s.phase for s in report.shares if s.expected is None}:
            told.append(
                f"phase {one.phase}: the share of {one.arm} among {one.cohort} varies over {one.windows} windows with "
                f"index {one.index:.2f} (1 = independent draws): {one.reading}."
            )
    told += [lines.drift(one) for one in report.drifts if not one.reading.startswith("the share stayed")]
    if told:
        console.print()
    for line in told:
        console.print(Text(safe(line, _SENTENCE)))


def print_trend(
    reports: Sequence[Report], rows: Sequence[dict[str, Any]], stream: IO[str], width: int | None = None
) -> None:
    """Print several runs: their verdicts, then every claim's figures from run to run."""
    console = _console(stream, width)
    runs = _table("runs", "", "run", "verdict")
    for place, report in enumerate(reports, 1):
        sentence = Text(safe(report.verdict.sentence, _SENTENCE), style=STYLES[report.verdict.word])
        runs.add_row(str(place), Text(safe(report.subject.run)), sentence)
    console.print(runs)
    claims = _table("claims", "claim", "run", "state", "found")
    before = ""
    for row in sorted(rows, key=lambda row: (row["claim"], row["at"])):
        told = "" if row["claim"] == before else safe(row["claim"], 100)
        before = row["claim"]
        claims.add_row(
            Text(told), str(row["at"]), Text(row["state"], style=STATE_STYLES[row["state"]]), Text(row["told"])
        )
    console.print()
    console.print(claims)
