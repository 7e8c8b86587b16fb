"""Tallies written down by hand: counts by phase, arm and outcome, as the one query over rows would have left them."""

import pandas as pd

from analysis.stats.bins import bin_of
from analysis.tally import JUDGED, KEYS, OK, SUMS, Tally

LATENCY_US = 20_000


def cell(n, arm, phase="split", *, cohort="everyone", outcome=OK, window=0, period=0, known=True):
    """`n` requests of one kind; of an unknown arm where `known` is false."""
    answered = arm if outcome == OK and known else ""
    return {
        "standing": JUDGED,
        "period": period,
        "phase": phase,
        "window": window,
        "cohort": cohort,
        "answered": answered,
        "routed": arm if known else "",
        "reason": "" if answered else "no output",
        "outcome": outcome,
        "stale": 0,
        "over": 0,
        "bin": int(bin_of([LATENCY_US])[0]),
        "n": n,
        "latency_us": n * LATENCY_US,
        "late": 0,
    }


def tally_of(cells):
    """A tally of cells; those that are alike are added."""
    frame = pd.DataFrame(cells, columns=[*KEYS, *SUMS])
    return Tally(frame.groupby(list(KEYS), as_index=False, sort=True)[list(SUMS)].sum())
