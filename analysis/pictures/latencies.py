"""Latencies by arm: quantile curves with their bands, and how they went over time."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from analysis.judge import Found
from analysis.latency import SHOWN_ALPHA, histograms, name_of
from analysis.pictures.slots import slots
from analysis.stats.bins import PER_OCTAVE, lower_edge, middle, quantile_bin
from analysis.stats.exceedances import Histogram, needed
from analysis.stats.woodruff import quantile_interval
from analysis.tally import OK

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)
_HEAT_SLOTS = 60
_HEAT_BANDS = 30

Row = dict[str, Any]


def quantile_rows(found: Found) -> list[Row]:
    """Quantiles that the answers support, by phase and arm.

    A row has `phase`, `arm`, `start` (actual or intended), `p` (name), `tail` (−log10 of what lies beyond), `ms`, and
    `low` and `high`: 95 %, for each quantile by itself, from its variation over time batches; None where there is none
    or it has no upper end.
    """
    judged = found.evidence.tally.judged_by_bin
    arms = found.subject.arms
    rows: list[Row] = []
    for phase in dict.fromkeys(line.phase for line in found.periods):
        cells = judged[judged["phase"] == phase]
        for arm, histogram in zip(arms, histograms(cells, arms), strict=True):
            if histogram.n:
                rows += _curve(phase, arm, "actual", histogram)
    return [*rows, *_intended_rows(found)]


def _intended_rows(found: Found) -> Iterator[Row]:
    """The same from the intended start: what a client that was promised a time has waited."""
    counted = found.evidence.tally.waited
    for (phase, arm), own in counted.groupby(["phase", "answered"], sort=True) if counted is not None else ():
        bins, n = own["bin"].to_numpy(dtype=np.int64), own["n"].to_numpy(dtype=np.int64)
        order = np.argsort(bins)
        yield from _curve(str(phase), str(arm), "intended", Histogram(bins[order], n[order][np.newaxis, :]))


def _curve(phase: str, arm: str, start: str, histogram: Histogram) -> Iterator[Row]:
    counts = histogram.counts.sum(axis=0)
    for q in QUANTILES:
        if histogram.n < needed(q) or (q < 0.5 and histogram.n < needed(1 - q)):  # noqa: PLR2004 - the median
            continue
        low, high = _band(histogram, q)
        yield {
            "phase": phase,
            "arm": arm,
            "start": start,
            "p": name_of(q),
            "tail": round(-math.log10(1 - q), 4),
            "ms": _ms(quantile_bin(histogram.bins, counts, q)),
            "low": low,
            "high": high,
            "n": histogram.n,
        }


def _ms(bin_number: int) -> float:
    return _digits(float(middle(bin_number)))


def _digits(us: float) -> float:
    return float(f"{us / 1000:.4g}")


def _band(histogram: Histogram, q: float) -> tuple[float | None, float | None]:
    """The interval of the tables, at every quantile of the curve."""
    ends = quantile_interval(histogram, q, SHOWN_ALPHA)
    return (None, None) if ends is None or ends[1] is None else (_digits(ends[0]), _digits(ends[1]))


def heat_rows(found: Found) -> list[Row]:
    """How many answers of each arm took how long when: `at`, `until` (s), `ms`, `ms_to`, `n`, `part` of that slot."""
    cells = found.evidence.tally.judged_by_bin
    cells = cells[(cells["outcome"] == OK) & cells["answered"].isin(found.subject.arms) & (cells["bin"] >= 0)]
    if cells.empty:
        return []
    arms = cells["answered"].nunique()
    fitted = slots(found.periods, found.evidence.registered.batch_seconds, max(_HEAT_SLOTS * 2 // arms, 12))
    edges = _bands(cells["bin"].to_numpy(dtype=np.int64), cells["n"].to_numpy(dtype=np.int64))
    placed = fitted.place(cells).assign(band=np.searchsorted(edges, cells["bin"].to_numpy(), side="right") - 1)
    sums = placed.groupby(["answered", "period", "slot", "band"])["n"].sum()
    whole = sums.groupby(level=["answered", "period", "slot"]).sum()
    limits = lower_edge(np.append(edges, edges[-1] + (edges[-1] - edges[0]) // max(len(edges) - 1, 1) or 1)) / 1000
    return [
        {
            "arm": arm,
            "at": fitted.span(period, slot)[0],
            "until": fitted.span(period, slot)[1],
            "ms": float(f"{limits[band]:.4g}"),
            "ms_to": float(f"{limits[band + 1]:.4g}"),
            "n": int(n),
            "part": round(float(n / whole[arm, period, slot]), 4),
        }
        for (arm, period, slot, band), n in sums.items()
    ]


def _bands(bins: Any, counts: Any) -> Any:
    """Lower bin numbers of equal bands on a log scale, from the fastest to the slowest answer."""
    order = np.argsort(bins)
    first, last = int(bins[order][0]), int(bins[order][-1])
    step = max(math.ceil((last - first + 1) / _HEAT_BANDS), PER_OCTAVE // 16)
    del counts
    return np.arange(first, last + 1, step)


def phases_with_answers(rows: Sequence[Row]) -> list[str]:
    """The phases of rows, in their order."""
    return list(dict.fromkeys(row["phase"] for row in rows))
