"""One shape for the three tests that decide latency: a quantile's ratio, a mean's ratio, a share beyond a limit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.stats.batches import Weather
from analysis.stats.bins import middle
from analysis.stats.exceedances import Histogram, needed, quantile_ratio, share_beyond
from analysis.stats.means import Sums, mean_ratio, variance_of
from experiments.core.hypotheses import LatencyHypothesis

LEAST_FOR_MEAN = 30
"""Answers of each arm below which a mean is not judged."""


def least(hypothesis: LatencyHypothesis) -> int:
    """Answers of each arm that counts without which nothing is said: ten beyond the quantile; for a mean, thirty."""
    return LEAST_FOR_MEAN if hypothesis.measure == "mean" else needed(hypothesis.quantile)


def fewest(hypothesis: LatencyHypothesis, canary: float, baseline: float) -> float:
    """Answers of the arm that has fewer, of the arms that count: an absolute limit is about the canary alone."""
    return canary if hypothesis.limit_us is not None else min(canary, baseline)


@dataclass(frozen=True)
class Trial:
    """A test against a margin. `p_above` speaks for harm, `p_below` for its absence; `canary` and `baseline` are µs."""

    estimate: float
    canary: float | None
    baseline: float | None
    p_above: float
    p_below: float
    interval: Callable[[float], tuple[float, float]]
    weather: Weather


def quantile_trial(canary: Histogram, baseline: Histogram, quantile: float, limit: float) -> Trial | None:
    """The ratio of a quantile against `limit`."""
    found = quantile_ratio(canary, baseline, quantile)
    if found is None:
        return None
    above, below = found.p_above(limit), found.p_below(limit)
    return Trial(found.estimate, found.canary, found.baseline, above, below, found.interval, found.weather)


def mean_trial(canary: tuple[Histogram, Any], baseline: tuple[Histogram, Any], limit: float) -> Trial | None:
    """The ratio of means against `limit`; each arm is its histogram and the sums of its latencies by batch."""
    sums = [
        Sums(one.by_batch.astype(np.float64), total, variance_of(middle(one.bins), one.counts.sum(axis=0)))
        for one, total in (canary, baseline)
    ]
    found = mean_ratio(*sums)
    if found is None:
        return None
    means = found.canary.mean, found.baseline.mean
    return Trial(found.estimate, *means, found.p_above(limit), found.p_below(limit), found.interval, found.weather)


def limit_trial(canary: Histogram, over: Any, allowed: float) -> Trial | None:
    """The share of answers beyond an absolute limit against what is allowed; `over` counts them by batch."""
    found = share_beyond(over, canary.by_batch, allowed, canary.spells)
    if found is None:
        return None
    return Trial(found.estimate, None, None, found.p_above, found.p_below, found.interval, found.weather)
