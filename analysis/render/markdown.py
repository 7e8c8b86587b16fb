"""Report → Markdown for job summaries and comments: the verdict first, details folded, never more than 60 KB."""

import re
from collections.abc import Iterable, Sequence

from analysis import words
from analysis.findings import Latency
from analysis.render import lines
from analysis.render.text import safe
from analysis.report import Report
from analysis.verdict import HOLD, INVALID, PROMOTE, ROLL_BACK

LIMIT_BYTES = 60_000
_ROWS = 60
_LONG = 600
SIGNS = {PROMOTE: "✅", ROLL_BACK: "❌", HOLD: "⏳", INVALID: "⚠️"}


def render_markdown(report: Report) -> str:
    """The report as Markdown."""
    head = [
        f"## {SIGNS[report.verdict.word]} {text(report.verdict.sentence, _LONG)}",
        *(f"> {text(remark, _LONG)}" for remark in report.remarks[:20]),
        _subject(report),
        _claims(report),
    ]
    details = [_shares(report), *_waits(report), _failures(report), _tests(report), _checks(report), _other(report)]
    return within_limit([part for part in head if part], [part for part in details if part])


def _subject(report: Report) -> str:
    subject = report.subject
    where = f"{text(subject.experiment)}, run {text(subject.run)}, {text(subject.target)} target."
    return f"{where} {text(lines.records(report), _LONG)}"


def within_limit(head: Sequence[str], details: Sequence[str]) -> str:
    """Whole sections are left out from the end, and said to be, until the rest fits; the first one always does."""
    parts = [*head, *details]
    kept = list(parts)
    while True:
        left_out = len(parts) - len(kept)
        note = [f"{left_out} sections left out for length; report.json has everything."] if left_out else []
        whole = "\n\n".join([*kept, *note]) + "\n"
        if len(whole.encode()) <= LIMIT_BYTES or len(kept) == 1:
            return whole
        kept.pop()


def text(value: str, longest: int = 48) -> str:
    r"""Words that Markdown and HTML leave as they are.

    >>> text("a|b<script>[x](y)")
    'a\\|b&lt;script&gt;\\[x\\](y)'
    """
    escaped = safe(value, longest).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = re.sub(r"([\\`*_\[\]|~#$@])", r"\\\1", escaped)
    # Neither a bare address nor a mention may become a link.
    return re.sub(r"(?i)(https?|ftp|javascript|www)([:.])", "\\1\u200b\\2", escaped)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of at most 60 rows; what is left out is said."""
    found = list(rows)
    if not found:
        return ""
    body = [f"| {' | '.join(text(cell, _LONG) for cell in row)} |" for row in found[:_ROWS]]
    if len(found) > _ROWS:
        body.append(f"| {len(found) - _ROWS} more in report.json |{' |' * (len(header) - 1)}")
    return "\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *body])


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>" if body else ""


def _claims(report: Report) -> str:
    rows = []
    for claim in report.claims:
        state = claim.state if claim.required else f"{claim.state} (not required)"
        rows.append((state, claim.sentence + lines.need(claim)))
    return table(("claim", "what was found"), rows)


def _shares(report: Report) -> str:
    rows = (
        (
            share.phase, ", ".join(share.cohorts), lines.arm_name(share.arm), lines.expected(share),
            lines.observed(share), lines.between(share.share),
        )
        for share in report.shares
    )  # fmt: skip
    return _folded("Shares", table(("phase", "cohort", "arm", "expected", "got", "interval"), rows))


def _waits(report: Report) -> list[str]:
    """Both latencies."""
    return [_latencies(lines.WAITED, report.waited), _latencies(lines.ANSWERED, report.latencies)]


def _latencies(title: str, found: Sequence[Latency]) -> str:
    names = ("p50", "p90", "p95", "p99")
    rows = (
        (
            row.phase, row.arm, words.count(row.requests), words.milliseconds(row.mean_us),
            *(_quantile(row, name) for name in names),
        )
        for row in found
    )  # fmt: skip
    cells = table(("phase", "arm", "answers", "mean", *names), rows)
    return _folded(title.capitalize(), f"{cells}\n\n{text(lines.quantiles_note(found), _LONG)}" if cells else "")


def _quantile(row: Latency, name: str) -> str:
    between = lines.quantile_between(row, name)
    return f"{lines.quantile(row, name)} ({between})" if between else lines.quantile(row, name)


def _failures(report: Report) -> str:
    rows = (
        (
            row.phase, lines.arm_name(row.arm), f"{words.count(row.failed)} of {words.count(row.requests)}",
            lines.between(row.rate), lines.classes(row),
        )
        for row in report.failures
    )  # fmt: skip
    return _folded("Failures by routed arm", table(("phase", "arm", "failed", "rate", "how"), rows))


def _tests(report: Report) -> str:
    rows = (
        (
            claim.id,
            claim.test,
            claim.null,
            words.count(claim.requests),
            lines.effect(claim),
            lines.level(claim),
            lines.evidence(claim),
        )
        for claim in report.claims
    )
    header = ("claim", "test", "null", "n", "estimate and interval", "level", "evidence")
    return _folded("Tests", table(header, rows))


def _checks(report: Report) -> str:
    rows = (("ok" if check.ok else "failed", check.name, check.sentence) for check in report.checks)
    return _folded("May this be judged?", table(("", "check", "what was found"), rows))


def _other(report: Report) -> str:
    told = [lines.outputs(row) for row in report.outputs] if report.outputs_applicable else []
    told += [] if report.outputs_applicable else ["Outputs: not applicable, the weights are random."]
    told += [lines.dispersion(one) for one in report.dispersions]
    told += [lines.drift(one) for one in report.drifts]
    told += [f"Not judged by: {lines.secondary(one)}" for one in report.secondary]
    return _folded("Outputs and dispersion", "\n".join(f"- {text(line, _LONG)}" for line in told[:_ROWS]))
