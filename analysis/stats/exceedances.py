"""How many times slower is a quantile of one arm than of another? An interval from exceedances over time batches.

Requests near one another in time are not independent: queues and garbage collection slow an arm for seconds. So the
variance comes from batches of time, never from single requests. Per-batch quantiles are never formed: they are biased
where the arms have unequal numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.stats import distributions
from analysis.stats.batches import Scores, Weather, scored, weather
from analysis.stats.bins import lower_edge, middle, quantile_bin
from analysis.stats.fixed import clopper_pearson

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

MIN_EXCEEDANCES = 10
"""Fewer expected values beyond a quantile, in either arm, and the sample does not support it."""


@dataclass(frozen=True)
class Histogram:
    """Latencies of one arm: increasing bins, shape (m,), and counts by batch, shape (batches, m)."""

    bins: Counts
    counts: Counts

    @property
    def by_batch(self) -> Counts:
        """Requests in each batch."""
        totals: Counts = self.counts.sum(axis=1)
        return totals

    @property
    def n(self) -> int:
        """All requests."""
        return int(self.counts.sum())

    @cached_property
    def spells(self) -> Weather:
        """How the share at most the median hangs together: how long the arm's slow spells last, and how much they take.

        What lies far out in the tail is rarely beyond it even in a slow spell. Few hits say little of spells, and a run
        that happened to have few would seem too sure of itself.
        """
        used = self.counts[self.by_batch > 0]
        counts = used.sum(axis=0)
        n = float(counts.sum())
        if not 0 < n < np.inf:
            return Weather(0, 0.0, 1.0)
        hits = used[:, self.bins <= quantile_bin(self.bins, counts, 0.5)].sum(axis=1)
        share = float(hits.sum()) / n
        return weather((hits - share * used.sum(axis=1)) / n, share * (1 - share) / n)


@dataclass(frozen=True)
class OneArm:
    """One arm's quantile by itself: increasing values, the share at most each, and how many independent ones it has.

    `edges` are the values below which each bin lies wholly; `worth` is the number of independent values that the arm's
    are worth at least, for all that its batches cannot exclude.
    """

    quantile: float
    starts: Floats
    edges: Floats
    shares: Floats
    worth: float

    @property
    def surely_below(self) -> Floats:
        """The p-value of "the quantile is at least this edge", for every edge: so many lie below it."""
        return _at_least(self.worth * self.shares, self.worth * (1 - self.shares), self.quantile)

    @property
    def surely_above(self) -> Floats:
        """The p-value of "the quantile is below the start of this bin", for every bin: so few lie below it."""
        before = np.concatenate([[0.0], self.shares[:-1]])
        return _at_least(self.worth * (1 - before), self.worth * before, 1 - self.quantile)

    def apart(self, other: "OneArm", ratio: float) -> float:
        """The p-value against "this arm's quantile is at most `ratio` times the other's".

        Each arm's own exact interval at level 1 − p; they do not meet. By Bonferroni each gets half of p.
        """
        place = np.searchsorted(self.starts, ratio * other.edges, side="left")
        above = np.concatenate([self.surely_above, [1.0]])
        # A bin that begins below the threshold may hold values below it, so the next one has to begin above.
        return min(1.0, 2 * float(np.maximum(other.surely_below, above[place]).min(initial=1.0)))

    def least_ratio(self, other: "OneArm", alpha: float) -> float:
        """The largest ratio that `apart` rejects at level alpha; 0 where there is none."""
        above, below = self.surely_above <= alpha / 2, other.surely_below <= alpha / 2
        least = float(other.edges[below].min(initial=np.inf))
        return float(self.starts[above].max(initial=0.0)) / least if least > 0 else 0.0


def _at_least(hits: Floats, misses: Floats, chance: float) -> Floats:
    """The chance of so many hits or more; parts of a hit are allowed, as the incomplete beta function has them."""
    found: Floats = special.betainc(hits, misses + 1, chance)
    return np.where(hits > 0, found, 1.0)


def _one_arm(arm: Histogram, quantile: float) -> OneArm:
    """One arm's quantile by itself.

    Source: Korn & Graubard 1998, Survey Methodology 24: the exact interval of Clopper & Pearson 1934 with the effective
    number of values, here that of the longest wandering that the arm's batches do not exclude, at the quantile or at
    the median.
    """
    counts = arm.counts.sum(axis=0)
    below = arm.counts[:, arm.bins <= quantile_bin(arm.bins, counts, quantile)].sum(axis=1)
    residuals = (below - below.sum() / arm.n * arm.by_batch) / arm.n
    own = weather(residuals[arm.by_batch > 0], quantile * (1 - quantile) / arm.n)
    worth = 1.0  # an arm that answered in one batch may have been in one spell
    if own.batches > 1:
        worth = arm.n * min(own.beside(arm.spells).least_worth, arm.spells.least_worth)
    return OneArm(quantile, lower_edge(arm.bins), lower_edge(arm.bins + 1), np.cumsum(counts) / arm.n, worth)


@dataclass(frozen=True)
class QuantileRatio:
    """The ratio canary / baseline of one quantile, with what the interval rests on.

    `scores` hold the test statistic, at each scale of batches, for every ratio that the bins can tell apart (`ratios`,
    increasing); they fall as the ratio grows. `arms` hold each arm by itself, canary first: a share cannot differ by
    more than all, so an effect of any size may not show in `scores`, while the arms' own intervals lie apart.
    """

    estimate: float
    baseline: float
    canary: float
    ratios: Floats
    scores: Sequence[Scores]
    weather: Weather
    arms: tuple[OneArm, OneArm]

    @property
    def batches(self) -> int:
        """Time batches."""
        return self.weather.batches

    @property
    def lag1(self) -> float:
        """Correlation of neighbouring batches."""
        return self.weather.lag1

    def interval(self, alpha: float) -> tuple[float, float]:
        """The ratios that a two-sided test at level `alpha` rejects neither at every scale nor for arms apart."""
        each = [self._interval(one, alpha) for one in self.scores]
        low, high = min(low for low, _ in each), max(high for _, high in each)
        canary, baseline = self.arms
        fast = canary.least_ratio(baseline, alpha / 2)
        slow = baseline.least_ratio(canary, alpha / 2)
        return max(low, fast), min(high, 1 / slow if slow else high)

    def _interval(self, one: Scores, alpha: float) -> tuple[float, float]:
        critical = -float(special.stdtrit(one.freedom, alpha / 2))
        too_low, too_high = one.values > critical, one.values < -critical
        low = float(self.ratios[too_low].max()) if too_low.any() else 0.0
        high = float(self.ratios[too_high].min()) if too_high.any() else float("inf")
        return low, high

    def p_above(self, ratio: float) -> float:
        """The one-sided p-value against "the true ratio is at most `ratio`": of all scales, or of arms apart.

        The smaller of the two, without a correction: arms whose own intervals do not meet differ at every scale, unless
        its batches are too few to say so. That adds at most .0015 to a cell's false alarms (benchmarks/calibration).
        """
        at = int(np.searchsorted(self.ratios, ratio, side="left"))
        by_share = max(
            float(special.stdtr(one.freedom, -one.values[at])) if at < self.ratios.size else 1.0 for one in self.scores
        )
        canary, baseline = self.arms
        return min(by_share, canary.apart(baseline, ratio))

    def p_below(self, ratio: float) -> float:
        """The one-sided p-value against "the true ratio is at least `ratio`", likewise."""
        at = int(np.searchsorted(self.ratios, ratio, side="right")) - 1
        by_share = max(float(special.stdtr(one.freedom, one.values[at])) if at >= 0 else 1.0 for one in self.scores)
        canary, baseline = self.arms
        return min(by_share, baseline.apart(canary, 1 / ratio) if ratio > 0 else 1.0)


def needed(quantile: float) -> int:
    """How many requests an arm needs before a quantile of it is supported: ten expected beyond it.

    >>> needed(0.5), needed(0.99)
    (20, 1000)
    """
    return int(np.ceil(MIN_EXCEEDANCES / (1 - quantile) - 1e-9))


def quantile_ratio(canary: Histogram, baseline: Histogram, quantile: float) -> QuantileRatio | None:
    """The ratio of a quantile and the test of every candidate ratio; None where there is none.

    For a candidate r the canary's share of values beyond r × the baseline's quantile is compared with the baseline's
    own share beyond it. The difference of these two ratios of sums has the batch-linearised residuals

        d_b = (e_Cb − p_C n_Cb)/N_C − ω (e_Ab − p_A n_Ab)/N_A,   se² = B/(B−1) Σ d_b²

    (Cochran 1977, section 6.3), where ω = density ratio at the quantile carries the error of the baseline's quantile
    over to the threshold; it is 1 where the arms differ by a factor. The square is widened by (1 + ρ)/(1 − ρ), where ρ
    is the largest correlation of neighbours that the residuals at the estimate cannot exclude, never falls below that
    of independent requests, and where requests come in clusters the test must hold with coarser batches too.

    A share differs by less than 1, so where batches are few and alike no effect, however large, is many standard
    errors. So a ratio is also refuted where the arms' own exact intervals at that level do not meet (`OneArm.apart`).

    Null: the ratio is the candidate. Arms that wander for as long as the run break it, which `weather.endless` tells.

    There is none where an arm is empty, one batch is all, or the baseline's quantile is 0.

    Args:
        canary: Its batches are the baseline's.
        baseline: Likewise.
        quantile: In (0, 1).

    >>> slow, fast = (Histogram(np.array(bins), np.array([[10, 10]] * 20)) for bins in ([2048, 3072], [1024, 2048]))
    >>> found = quantile_ratio(slow, fast, 0.5)
    >>> found.estimate, found.batches
    (2.0, 20)
    """
    used = (canary.by_batch + baseline.by_batch) > 0
    batches = int(used.sum())
    if not (canary.n and baseline.n) or batches < 2:  # noqa: PLR2004 - a variance takes two
        return None
    first, second = Histogram(canary.bins, canary.counts[used]), Histogram(baseline.bins, baseline.counts[used])
    at_canary = quantile_bin(first.bins, first.counts.sum(axis=0), quantile)
    at_baseline = quantile_bin(second.bins, second.counts.sum(axis=0), quantile)
    middles = middle([at_canary, at_baseline])
    if not middles[1] > 0:
        return None
    slope = density_ratio(first, second, quantile)
    floor = quantile * (1 - quantile) * (1 / first.n + slope**2 / second.n)
    seen = weather(_residuals_at(first, at_canary)[1] - slope * _residuals_at(second, at_baseline)[1], floor)
    ratios, scores = _scan(first, second, (at_baseline, slope), floor, seen)
    arms = _one_arm(first, quantile), _one_arm(second, quantile)
    return QuantileRatio(
        float(middles[0] / middles[1]), float(middles[1]), float(middles[0]), ratios, scores, seen, arms
    )


def _residuals_at(arm: Histogram, at: int) -> tuple[float, Floats]:
    """The share of values in bins above `at`, and each batch's part of its error."""
    beyond = arm.counts[:, arm.bins > at].sum(axis=1)
    share = float(beyond.sum() / arm.n)
    return share, (beyond - share * arm.by_batch) / arm.n


def _scan(
    canary: Histogram, baseline: Histogram, at: tuple[int, float], floor: float, seen: Weather
) -> tuple[Floats, list[Scores]]:
    """The scores of every threshold that the canary's bins can tell apart, by the ratio that it stands for."""
    at_baseline, slope = at
    base_share, base_residuals = _residuals_at(baseline, at_baseline)
    beyond = canary.counts[:, ::-1].cumsum(axis=1)[:, ::-1] - canary.counts
    shares = beyond.sum(axis=0) / canary.n
    residuals = (beyond - shares * canary.by_batch[:, None]) / canary.n - slope * base_residuals[:, None]
    found = scored(shares - base_share, residuals, floor, seen)
    ratios = lower_edge(canary.bins + 1) / lower_edge(at_baseline + 1)
    return ratios, [Scores(np.minimum.accumulate(one.values), one.freedom) for one in found]


def density_ratio(canary: Histogram, baseline: Histogram, quantile: float) -> float:
    """Relative density at its quantile, canary / baseline, kept within [¼, 4]; 1 where it cannot be estimated.

    Assumes that both densities vary little within the part that it is read from; values at few points break it.

    Source: the reciprocal of a difference of quantiles, Siddiqui 1960 and Bloch & Gastwirth 1968.

    >>> even = Histogram(np.arange(10240, 10340), np.ones((2, 100), dtype=np.int64))
    >>> density_ratio(even, even, 0.5)
    1.0
    """
    spreads = [_relative_spread(arm, quantile) for arm in (canary, baseline)]
    if min(spreads) <= 0:
        return 1.0
    return float(np.clip(spreads[1] / spreads[0], 0.25, 4.0))


def _relative_spread(arm: Histogram, quantile: float) -> float:
    """(ln Q(q + h) − ln Q(q − h)) / 2h: the reciprocal of the density on a log scale (Siddiqui 1960)."""
    counts = arm.counts.sum(axis=0)
    half = min(max(arm.n ** (-1 / 5) * 0.5, 0.02), quantile, 1 - quantile) / 2 if arm.n else 0.0
    if half * arm.n < 1:
        return 0.0
    low, high = (float(lower_edge(quantile_bin(arm.bins, counts, quantile + d) + 1)) for d in (-half, half))
    return (np.log(high) - np.log(low)) / (2 * half) if low > 0 else 0.0


@dataclass(frozen=True)
class ShareBeyond:
    """The share of values beyond a limit, and what its test rests on; `steady` scores log odds of one."""

    n: int
    hits: int
    allowed: float
    steady: Sequence[Scores]
    weather: Weather

    @property
    def estimate(self) -> float:
        """The share that was seen."""
        return self.hits / self.n

    @property
    def p_above(self) -> float:
        """The p-value against "at most the allowed share is beyond": the larger of batches' and of exact binomial."""
        exact = float(distributions.binomial_above(self.hits - 1, self.n, self.allowed))
        return max(exact, *(float(special.stdtr(freedom, -score)) for score, freedom in self._scores()))

    @property
    def p_below(self) -> float:
        """The p-value against "at least the allowed share is beyond"; never smaller than the exact binomial one."""
        exact = float(distributions.binomial_at_most(self.hits, self.n, self.allowed))
        return max(exact, *(float(special.stdtr(freedom, score)) for score, freedom in self._scores()))

    @property
    def log_odds(self) -> float:
        """Of being beyond, with half a hit on either side, so that none is no certainty (Haldane 1956)."""
        return float(np.log(self.hits + 0.5) - np.log(self.n - self.hits + 0.5))

    def _scores(self) -> Iterator[tuple[float, float]]:
        away = self.log_odds - float(special.logit(self.allowed))
        for one in self.steady:
            yield away * float(one.values[0]), one.freedom

    def interval(self, alpha: float) -> tuple[float, float]:
        """The share's interval at level 1 − alpha: over batches, and never narrower than Clopper & Pearson's."""
        half = max(-float(special.stdtrit(one.freedom, alpha / 2)) / float(one.values[0]) for one in self.steady)
        low, high = clopper_pearson(self.hits, self.n, alpha)
        below, above = (float(special.expit(self.log_odds + end)) for end in (-half, half))
        return min(low, below), max(high, above)


def share_beyond(hits: Counts, totals: Counts, allowed: float, spells: Weather | None = None) -> ShareBeyond | None:
    """Whether more than the allowed share of values lies beyond a limit, from batches; None for one batch or none.

    A quantile q lies below a limit just where at most 1 − q of all values lie beyond it. Null: the share is `allowed`.
    It is tested on log odds: where many are beyond, their number varies more, so a share that is small by chance would
    seem too sure of itself. Arms that wander for as long as the run break it, which `weather.endless` tells.
    Source: the ratio of sums of Cochran 1977, section 6.3, on the log odds of Haldane 1956.

    Args:
        hits: Values beyond, by batch.
        totals: All values, by batch.
        allowed: In (0, 1).
        spells: `Histogram.spells` of the same batches.

    >>> found = share_beyond(np.array([1, 0, 2, 1]), np.array([100, 100, 100, 100]), 0.05)
    >>> found.estimate, found.p_below < 0.05
    (0.01, True)
    """
    used = totals > 0
    hit, total = hits[used], totals[used]
    batches, sums = int(used.sum()), (float(hit.sum()), float(total.sum()))
    if batches < 2 or not 0 <= sums[0] <= sums[1] < np.inf:  # noqa: PLR2004 - a variance takes two
        return None
    n = int(sums[1])
    # Both sides are divisions: 1 − share would lose a few of 10^18.
    spread = (sums[0] + 0.5) / (n + 1) * (n - sums[0] + 0.5) / (n + 1)
    residuals = (hit - sums[0] / n * total) / n / spread
    floor = 1 / (n * spread)
    seen = weather(residuals, floor)
    if spells is not None:
        seen, floor = seen.beside(spells), floor * spells.least
    return ShareBeyond(n, int(hit.sum()), allowed, scored(np.ones(1), residuals[:, None], floor, seen), seen)
