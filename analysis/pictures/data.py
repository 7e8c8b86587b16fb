"""A run → all that its pictures show."""

from collections.abc import Iterator
from itertools import pairwise

from analysis.judge import Examined
from analysis.pictures.latencies import heat_rows, quantile_rows
from analysis.pictures.rest import failure_rows, route_rows, signature_rows
from analysis.pictures.shares import harm_rows, share_rows
from analysis.pictures.shown import Pictures, Row


def parts(examined: Examined) -> Iterator[Pictures]:
    """The numbers of every picture, a few pictures at a time: what takes longest to draw comes first."""
    yield Pictures(heat=heat_rows(examined))
    yield Pictures(quantiles=quantile_rows(examined))
    shares, evidence = share_rows(examined)
    yield Pictures(spans=_spans(examined), shares=shares, failures=failure_rows(examined))
    yield Pictures(evidence=evidence + harm_rows(examined))
    yield Pictures(routes=route_rows(examined))
    yield Pictures(signatures=signature_rows(examined))


def _spans(examined: Examined) -> list[Row]:
    """Periods, and the transitions between them."""
    periods = examined.report.periods
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
