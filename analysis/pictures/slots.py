"""Time windows of the tally → at most so many slots, as charts can show and pages can hold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.report import PeriodLine
from experiments.core.hypotheses import batch_seconds

MOST_SLOTS = 160


@dataclass(frozen=True)
class Slots:
    """How windows of each period are put together: `per_slot` of them, each `seconds[phase]` long."""

    periods: Sequence[PeriodLine]
    seconds: dict[str, float]
    per_slot: int

    def place(self, cells: Any) -> Any:
        """Cells with the column `slot`."""
        return cells.assign(slot=np.maximum(cells["window"].to_numpy(), 0) // self.per_slot)

    def span(self, period: int, slot: int) -> tuple[float, float]:
        """Start and end of a slot in seconds from the schedule's time zero."""
        line = next(line for line in self.periods if line.index == period)
        length = self.seconds[line.phase] * self.per_slot
        start = line.start_s + slot * length
        return round(start, 3), round(min(start + length, line.end_s), 3)


def slots(periods: Sequence[PeriodLine], registered: dict[str, float], most: int = MOST_SLOTS) -> Slots:
    """As fine as a budget allows.

    Args:
        periods: Of the run.
        registered: Seconds of a window by phase.
        most: Slots of the whole run, about; a period has at least one.
    """
    seconds = {line.phase: registered.get(line.phase) or batch_seconds(0) for line in periods}
    windows = math.fsum((line.end_s - line.start_s) / seconds[line.phase] for line in periods)
    return Slots(periods, seconds, max(math.ceil(windows / most), 1))
