"""Was each request drawn for itself? What requests are worth where they were not, and when their shares changed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.answers import UNUSABLE
from analysis.stats.changepoint import Change, bernoulli_change, trend_p_value
from analysis.stats.dispersion import Dispersion, design_effect, over_scales, p_too_even
from analysis.tally import Tally

UNEVEN = 0.01
"""Level, per claim, at which shares that vary too much count for fewer requests: a false alarm costs only width."""

EVEN = 0.0005
"""Level, per claim, at which shares vary too little to be random draws: a false alarm makes a run invalid."""

CHANGED = 0.0005
"""Level, per claim, at which a share is said to have changed."""


@dataclass(frozen=True)
class Draws:
    """How the arms of some cohorts were drawn.

    `factor`: how many requests count as one. `within`: the same, if the share changed once and a change is clear.
    `too_even`: the arms take turns. `change` and `trend` are of the arm in `arm`, in windows of the phase.
    """

    factor: float = 1.0
    within: float = 1.0
    too_even: bool = False
    arm: str | None = None
    change: Change | None = None
    trend: float | None = None

    @property
    def changed(self) -> bool:
        """Whether one change at one moment is clear."""
        return self.change is not None and self.change.p_value <= CHANGED


def with_arm(cells: Any) -> Any:
    """Cells with the arm that they count for: by output, by header where that is of no use, else the empty name."""
    by_header = (cells["answered"] == "") & cells["reason"].isin(["no output", *UNUSABLE])
    return cells.assign(arm=np.where(by_header, cells["routed"], cells["answered"]))


def by_window(tally: Tally, phase: str, cohorts: Sequence[str]) -> Any:
    """Requests by window (rows, in order of time) and known arm (columns)."""
    key = phase, tuple(cohorts)
    if key not in tally.windows:
        tally.windows[key] = _by_window(tally, phase, cohorts)
    return tally.windows[key]


def _by_window(tally: Tally, phase: str, cohorts: Sequence[str]) -> Any:
    cells = tally.in_phase(phase)
    cells = with_arm(cells[cells["cohort"].isin(list(cohorts))])
    known = cells[cells["arm"] != ""]
    return known.groupby(["period", "window", "arm"])["n"].sum().unstack(fill_value=0)


def examine(table: Any, arms: Sequence[str]) -> Draws:
    """What the windows say of the draws; nothing can be said of one arm alone.

    Null: every request goes to an arm with the same probability, for itself. Users who stick to an arm and send all the
    time, each between the others, look like that too. Cochran 1954 for the index, Kish 1965 for the design effect,
    Andrews 1993 for the change.

    Args:
        table: From `by_window`.
        arms: Those whose configured share is neither 0 nor 1, the baseline first.
    """
    each = [one for arm in reversed(arms) if arm in table and (one := _of_arm(table, arm)) is not None]
    if not each:
        return Draws()
    told = min(each, key=lambda one: one.change.p_value if one.change else 1.0)
    return Draws(
        factor=max(one.factor for one in each),
        within=max(one.within for one in each),
        too_even=any(one.too_even for one in each),
        arm=told.arm,
        change=told.change,
        trend=min((one.trend for one in each if one.trend is not None), default=None),
    )


def _of_arm(table: Any, arm: str) -> Draws | None:
    hits, totals = (values.to_numpy(dtype=np.float64) for values in (table[arm], table.sum(axis=1)))
    found = over_scales(hits, totals)
    change = bernoulli_change(hits, totals)
    if not found:
        return None
    factor = design_effect(found, UNEVEN)
    within = _within(hits, totals, change) if change is not None and change.p_value <= CHANGED else factor
    too_even = factor == 1 and p_too_even(found) <= EVEN
    return Draws(factor, min(within, factor), too_even, arm, change, trend_p_value(hits, totals))


def _within(hits: Any, totals: Any, change: Change) -> float:
    """The design effect around the shares before and after a change; infinite where too little is left to say."""
    sides = over_scales(hits, totals, change.at)
    return design_effect(sides, UNEVEN) if sides else math.inf


def described(table: Any, arms: Sequence[str]) -> Iterator[tuple[str, Dispersion, float]]:
    """The dispersion of each arm at its most telling scale, with its design effect."""
    for arm in arms:
        if arm in table:
            hits, totals = (values.to_numpy(dtype=np.float64) for values in (table[arm], table.sum(axis=1)))
            found = over_scales(hits, totals)
            if found:
                told = min(found, key=lambda one: min(one.p_over, one.p_under))
                yield arm, told, design_effect(found, UNEVEN)
