"""How many times slower is a quantile of one arm than of another? An interval from exceedances over time batches.

Requests near one another in time are not independent: queues and garbage collection slow an arm for seconds. So the
variance comes from batches of time, never from single requests. Per-batch quantiles are never formed: they are biased
where the arms have unequal numbers.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.stats.bins import lower_edge, middle, quantile_bin

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

MIN_EXCEEDANCES = 10
"""Fewer expected values beyond a quantile, in either arm, and the sample does not support it."""

_LARGEST_LAG = 0.5
_LAG_ERRORS = 2.2


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


@dataclass(frozen=True)
class QuantileRatio:
    """The ratio canary / baseline of one quantile, with what the interval rests on.

    `ratios` and `scores` hold the test statistic for every ratio that the bins can tell apart, increasing in ratio and
    falling in score.
    """

    estimate: float
    baseline: float
    canary: float
    ratios: Floats
    scores: Floats
    batches: int
    lag1: float
    freedom: float

    def interval(self, alpha: float) -> tuple[float, float]:
        """The ratios that a two-sided test at level `alpha` does not reject."""
        critical = float(stats.t.isf(alpha / 2, self.freedom))
        too_low, too_high = self.scores > critical, self.scores < -critical
        low = float(self.ratios[too_low].max()) if too_low.any() else 0.0
        high = float(self.ratios[too_high].min()) if too_high.any() else float("inf")
        return low, high

    def p_above(self, ratio: float) -> float:
        """The one-sided p-value against "the true ratio is at most `ratio`"."""
        reached = self.scores[self.ratios >= ratio]
        return float(stats.t.sf(reached[0], self.freedom)) if reached.size else 1.0

    def score_at(self, ratio: float) -> float:
        """The statistic just at or below a ratio; 0 below all that was seen."""
        reached = self.scores[self.ratios <= ratio]
        return float(reached[-1]) if reached.size else 0.0

    def p_below(self, ratio: float) -> float:
        """The one-sided p-value against "the true ratio is at least `ratio`"."""
        return float(stats.t.cdf(self.score_at(ratio), self.freedom)) if self.score_at(ratio) else 1.0


def needed(quantile: float) -> int:
    """How many requests an arm needs before a quantile of it is supported.

    >>> needed(0.5), needed(0.99)
    (20, 1000)
    """
    return int(np.ceil(MIN_EXCEEDANCES / (1 - quantile) - 1e-9))


def quantile_ratio(canary: Histogram, baseline: Histogram, quantile: float) -> QuantileRatio | None:
    """The ratio of a quantile and the test of every candidate ratio; None where an arm is empty or one batch is all.

    For a candidate r the canary's share of values beyond r × the baseline's quantile is compared with the baseline's
    own share beyond it. The difference of these two ratios of sums has the batch-linearised residuals

        d_b = (e_Cb − p_C n_Cb)/N_C − ω (e_Ab − p_A n_Ab)/N_A,   se² = B/(B−1) Σ d_b²

    (Cochran 1977, section 6.3), where ω = density ratio at the quantile carries the error of the baseline's quantile
    over to the threshold; it is 1 where the arms differ by a factor. The square is widened by (1 + ρ)/(1 − ρ) for the
    lag-1 correlation ρ of the residuals at the estimate, and never falls below that of independent requests.

    Args:
        canary: Its batches are the baseline's.
        baseline: Likewise.
        quantile: In (0, 1).
    """
    used = (canary.by_batch + baseline.by_batch) > 0
    batches = int(used.sum())
    if not (canary.n and baseline.n) or batches < 2:  # noqa: PLR2004 - a variance takes two
        return None
    first, second = Histogram(canary.bins, canary.counts[used]), Histogram(baseline.bins, baseline.counts[used])
    at_canary = quantile_bin(first.bins, first.counts.sum(axis=0), quantile)
    at_baseline = quantile_bin(second.bins, second.counts.sum(axis=0), quantile)
    slope = density_ratio(first, second, quantile)
    beyond = _residuals_at(second, at_baseline)
    lag1 = lag_correlation(_residuals_at(first, at_canary)[1] - slope * beyond[1])
    ratios, scores = _scan(first, second, (at_baseline, quantile), slope, lag1)
    middles = middle([at_canary, at_baseline])
    estimate = float(middles[0] / middles[1]) if middles[1] > 0 else float("nan")
    return QuantileRatio(
        estimate, float(middles[1]), float(middles[0]), ratios, scores, batches, lag1, freedom_of(batches, lag1)
    )


def _residuals_at(arm: Histogram, at: int) -> tuple[float, Floats]:
    """The share of values in bins above `at`, and each batch's part of its error."""
    beyond = arm.counts[:, arm.bins > at].sum(axis=1)
    share = float(beyond.sum() / arm.n)
    return share, (beyond - share * arm.by_batch) / arm.n


def _scan(
    canary: Histogram, baseline: Histogram, at: tuple[int, float], slope: float, lag1: float
) -> tuple[Floats, Floats]:
    """The score of every threshold that the canary's bins can tell apart, by the ratio that it stands for."""
    at_baseline, quantile = at
    base_share, base_residuals = _residuals_at(baseline, at_baseline)
    beyond = canary.counts[:, ::-1].cumsum(axis=1)[:, ::-1] - canary.counts
    shares = beyond.sum(axis=0) / canary.n
    residuals = (beyond - shares * canary.by_batch[:, None]) / canary.n - slope * base_residuals[:, None]
    variance = _variance(residuals, lag1)
    floor = quantile * (1 - quantile) * (1 / canary.n + slope**2 / baseline.n)
    scores = (shares - base_share) / np.sqrt(np.maximum(variance, floor))
    edge = lower_edge(at_baseline + 1)
    ratios = lower_edge(canary.bins + 1) / edge
    return ratios, np.asarray(np.minimum.accumulate(scores))


def _variance(residuals: Floats, lag1: float) -> Floats:
    batches = residuals.shape[0]
    squares = (residuals**2).sum(axis=0)
    return np.asarray(squares * (batches / (batches - 1)) * inflation(lag1))


def largest_lag(batches: int) -> float:
    """The lag-1 correlation above which batches are too short to stand for independent stretches of time.

    About 2.2 standard errors of a correlation that is none, so that few batches are not voided by their own noise;
    calibrated in benchmarks/calibration/latency.py.

    >>> largest_lag(15), round(largest_lag(60), 3)
    (0.5, 0.284)
    """
    return float(min(_LARGEST_LAG, _LAG_ERRORS / np.sqrt(batches)))


def inflation(lag1: float) -> float:
    """How much larger the variance of a sum is where neighbours are correlated: (1 + ρ)/(1 − ρ), at least 1."""
    positive = min(max(lag1, 0.0), 0.95)
    return (1 + positive) / (1 - positive)


def freedom_of(batches: int, lag1: float) -> float:
    """Degrees of freedom of the t quantile: one less than the batches' independent equivalent."""
    positive = min(max(lag1, 0.0), 0.95)
    return max(batches * (1 - positive**2) / (1 + positive**2) - 1, 1.0)


def lag_correlation(residuals: Floats) -> float:
    """The lag-1 correlation of batch residuals, with its bias of −1/B given back; 0 where they do not vary."""
    square = float((residuals**2).sum())
    if square == 0:
        return 0.0
    return float((residuals[1:] * residuals[:-1]).sum()) / square + 1 / residuals.size


def density_ratio(canary: Histogram, baseline: Histogram, quantile: float) -> float:
    """Relative density at its quantile, canary / baseline, kept within [¼, 4]; 1 where it cannot be estimated."""
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
