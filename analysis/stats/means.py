"""Means: the ratio of two from time batches, and sequences of intervals for one that hold at every look."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.stats.batches import Floats, Scores, Weather, scored, weather


@dataclass(frozen=True)
class Sums:
    """One arm, by time batch: how many values, and their sum; `variance` is that of single values."""

    counts: Floats
    sums: Floats
    variance: float

    @property
    def n(self) -> float:
        """All values."""
        return float(self.counts.sum())

    @property
    def mean(self) -> float:
        """The mean of all values."""
        return float(self.sums.sum()) / self.n

    @property
    def known(self) -> bool:
        """Whether there is a value, and all of them are finite."""
        return 0 < self.n < math.inf and bool(np.isfinite([self.sums.sum(), self.variance]).all())

    @property
    def residuals(self) -> Floats:
        """Each batch's part of the error of the mean."""
        return np.asarray((self.sums - self.mean * self.counts) / self.n)


@dataclass(frozen=True)
class MeanRatio:
    """The ratio canary / baseline of means, with what its test rests on."""

    canary: Sums
    baseline: Sums
    weather: Weather

    @property
    def estimate(self) -> float:
        """The ratio that was seen."""
        return self.canary.mean / self.baseline.mean

    def scores(self, ratio: float) -> list[Scores]:
        """The statistics against one true ratio, at every scale (Fieller 1954, linearised over batches)."""
        residuals = self.canary.residuals - ratio * self.baseline.residuals
        floor = self.canary.variance / self.canary.n + ratio**2 * self.baseline.variance / self.baseline.n
        difference = np.array([self.canary.mean - ratio * self.baseline.mean])
        return scored(difference, residuals[:, None], floor or 1e-300, self.weather)

    def p_above(self, ratio: float) -> float:
        """The p-value against "the true ratio is at most `ratio`", the largest of all scales."""
        return max(float(special.stdtr(one.freedom, -one.values[0])) for one in self.scores(ratio))

    def p_below(self, ratio: float) -> float:
        """The p-value against "the true ratio is at least `ratio`", the largest of all scales."""
        return max(float(special.stdtr(one.freedom, one.values[0])) for one in self.scores(ratio))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The ratios that a two-sided test at level `alpha` does not reject; infinite where none is too high."""
        low = _crossing(lambda ratio: self.p_above(ratio) > alpha / 2, self.estimate, 0.0)
        high = _crossing(lambda ratio: self.p_below(ratio) > alpha / 2, self.estimate, 2.0**20 * self.estimate)
        return low, (math.inf if high >= 2.0**20 * self.estimate else high)


def _crossing(kept: Callable[[float], bool], inside: float, outside: float) -> float:
    """The end of what is kept, between a ratio that is and one that may not be."""
    if kept(outside):
        return outside
    while abs(outside - inside) > 1e-6 * max(inside, outside):
        middle = math.sqrt(inside * outside) if min(inside, outside) > 0 else (inside + outside) / 2
        inside, outside = (middle, outside) if kept(middle) else (inside, middle)
    return outside


def mean_ratio(canary: Sums, baseline: Sums) -> MeanRatio | None:
    """How many times larger the mean of one arm is, from batches in time; None where an arm or the batches are missing.

    Null: the ratio of the true means is the candidate. Values so heavy-tailed that single ones carry the sum, and arms
    that wander for as long as the run, break it: the latter `weather.endless` tells. Source: Fieller 1954, with the
    residuals of a ratio of sums (Cochran 1977, section 6.3).

    Args:
        canary: Its batches are the baseline's.
        baseline: Likewise.

    >>> even = Sums(np.full(9, 10.0), 10 * np.array([1, 2, 1, 2, 1, 2, 1, 2, 1.5]), 1.0)
    >>> mean_ratio(even, even).estimate
    1.0
    """
    used = (canary.counts + baseline.counts) > 0
    if not all(one.known for one in (canary, baseline)) or used.sum() < 2 or baseline.mean <= 0:  # noqa: PLR2004 - a variance takes two
        return None
    first, second = (Sums(one.counts[used], one.sums[used], one.variance) for one in (canary, baseline))
    ratio = first.mean / second.mean
    floor = first.variance / first.n + ratio**2 * second.variance / second.n
    return MeanRatio(first, second, weather(first.residuals - ratio * second.residuals, floor))


def mean_sequence(n: float, mean: float, variance: float, alpha: float, tuned_for: float) -> tuple[float, float]:
    """The asymptotic confidence sequence of a mean: mean ± √variance · √(2(nρ² + 1)/(n²ρ²) · ln(√(nρ² + 1)/α)).

    It covers at all looks together, in the limit of many values; independent values with a finite variance. Few values
    or heavy tails break it.

    Args:
        n: How many values.
        mean: Theirs.
        variance: Of single values.
        alpha: 1 − level.
        tuned_for: The n at which the interval is to be narrowest.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024 (arXiv 2103.06476), theorem 2.2 and appendix B.2.

    >>> low, high = mean_sequence(1000, 0.0, 1.0, 0.05, 1000)
    >>> round(high, 4), low == -high
    (0.096, True)
    """
    if not (0 < n < math.inf and math.isfinite(mean) and 0 <= variance < math.inf):
        return -math.inf, math.inf
    log = -2 * math.log(alpha)
    rho2 = (log + math.log(1 + log)) / tuned_for
    half = math.sqrt(variance * 2 * (n * rho2 + 1) / (n * n * rho2) * (math.log(n * rho2 + 1) / 2 - math.log(alpha)))
    return mean - half, mean + half


def variance_of(values: npt.ArrayLike, counts: Sequence[float] | npt.ArrayLike) -> float:
    """The variance of values that were seen so many times; 0 for fewer than two, infinite if one is not finite.

    >>> variance_of([1.0, 3.0], [2, 2])
    1.3333333333333333
    """
    value, count = np.asarray(values, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    n = float(count.sum())
    if not n >= 2:  # noqa: PLR2004 - a variance takes two
        return math.inf if math.isnan(n) else 0.0
    if not (n < math.inf and np.isfinite(value[count > 0]).all()):
        return math.inf
    value, count = value[count > 0], count[count > 0]
    mean = float((value * count).sum()) / n
    return float((count * (value - mean) ** 2).sum()) / (n - 1)
