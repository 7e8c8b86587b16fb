"""A run → all that its pictures show, a few pictures at a time, so that some are drawn while others are worked out."""

from collections.abc import Iterator
from itertools import pairwise

from analysis.judge import Examined, Found
from analysis.pictures.latencies import heat_rows, quantile_rows
from analysis.pictures.rest import failure_rows, route_rows, signature_rows
from analysis.pictures.shares import harm_rows, share_rows
from analysis.pictures.shown import Pictures, Row, Sheet


def early(found: Found) -> Iterator[Sheet]:
    """The pictures for which nothing need be judged."""
    yield Sheet(found.subject, Pictures(heat=heat_rows(found)))
    yield Sheet(found.subject, Pictures(frame=_frame(found), failures=failure_rows(found)))
    yield Sheet(found.subject, Pictures(signatures=signature_rows(found)))


def late(examined: Examined) -> Iterator[Sheet]:
    """The other ones."""
    report = examined.report
    yield Sheet(report.subject, Pictures(quantiles=quantile_rows(examined.found)), report)
    shares, evidence = share_rows(examined)
    yield Sheet(report.subject, Pictures(spans=_spans(examined.found), shares=shares), report)
    yield Sheet(report.subject, Pictures(evidence=evidence + harm_rows(examined)))
    yield Sheet(report.subject, Pictures(routes=route_rows(examined)), report)


def sheets(examined: Examined) -> Iterator[Sheet]:
    """All of them."""
    yield from early(examined.found)
    yield from late(examined)


def _frame(found: Found) -> list[Row]:
    """From the first period's start to the last one's end."""
    periods = found.periods
    return [{"at": round(periods[0].start_s, 3), "until": round(periods[-1].end_s, 3)}] if periods else []


def _spans(found: Found) -> list[Row]:
    """Periods, and the transitions between them."""
    periods = found.periods
    rows = [
        {"phase": line.phase, "at": round(line.start_s, 3), "until": round(line.end_s, 3), "kind": "period"}
        for line in periods
    ]
    rows += [
        {
            "phase": f"to {after.phase}",
            "at": round(before.end_s, 3),
            "until": round(after.start_s, 3),
            "kind": "transition",
        }
        for before, after in pairwise(periods)
    ]
    return rows
