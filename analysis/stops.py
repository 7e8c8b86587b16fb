"""Phases that ended at a look count up to that look's watermark, so that the report says what was decided then."""

from collections.abc import Sequence

from experiments.core.journal import Period
from experiments.core.records import RunInfo


def horizons(info: RunInfo, periods: Sequence[Period]) -> dict[int, int]:
    """By the index of a period: the watermark of the look at which its phase was stopped, in microseconds."""
    found = {}
    for stop in info.stops:
        own = [period for period in periods if period.phase == stop.phase and period.start_us < stop.watermark_us]
        if own:
            found[own[-1].index] = stop.watermark_us
    return found
