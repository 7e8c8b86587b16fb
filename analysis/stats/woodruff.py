"""How sure is a quantile of one arm? Its interval, from time batches and never narrower than independent values give.

Requests near one another in time resemble one another, so the spread of the share below the quantile is taken from
batches of time, as in the claims; the share's interval is then read off the observed distribution.

One arm has less to go by than two: nothing that both of them meet cancels out. So its interval is more careful than a
claim's about what few batches cannot exclude, and far out in the tail it asks whether the run can have an upper end.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.stats import distributions
from analysis.stats.batches import Weather, scored, weather
from analysis.stats.bins import middle, quantile_bin
from analysis.stats.exceedances import Counts, Floats, Histogram
from analysis.stats.quantiles import MOST, at_rank, order_statistic_interval

Mask = npt.NDArray[np.bool_]

EXCLUDED = 0.05
"""What the batches would show as little of with a smaller chance than this is excluded; all else an arm may do."""

_MEDIAN = 0.5


def quantile_interval(arm: Histogram, quantile: float, alpha: float) -> tuple[float, float | None] | None:
    """The interval of one quantile at one look; None where there are fewer than two batches, or batches say nothing.

    The share of values at or below the quantile has log odds whose variance is that of batches, widened for the longest
    wandering that they cannot exclude at level .05, and never below what so few batches would not notice; the
    interval's ends are the values at the ranks which that interval of the share names. It is joined with the interval
    of independent values, so it is never narrower.

    The end out in the tail is also joined with that of as many independent values as these are worth: ten slow spells
    hold no value that bounds a 95th percentile, for with .95^10 = 60 % none of them reaches beyond it, however many
    requests were in them. The upper end is None, and the lower one 0, where no value bounds it.

    Where a wandering without end is not excluded at level .05 there is no upper end either, and where it looks like
    one nothing is said: the None. What breaks it: spells of which a run has fewer than three; see the table of one
    arm's quantiles in benchmarks/calibration.

    Source: Woodruff 1952, Journal of the American Statistical Association 47, with the variance of ratios of sums of
    Cochran 1977, section 6.3, and Bartlett's 1946 widening; the exact interval of the effective number of values is
    Korn & Graubard's of 1998, Survey Methodology 24.

    Args:
        arm: Bins and their counts by batch.
        quantile: In (0, 1).
        alpha: Of both sides together.

    >>> even = Histogram(np.arange(1024, 1124), np.tile([0, 20], (40, 50)))
    >>> low, high = quantile_interval(even, 0.5, 0.05)
    >>> bool(low < middle(1074) < high)
    True
    """
    used = arm.counts[arm.by_batch > 0]
    counts = used.sum(axis=0)
    n = float(counts.sum())
    if used.shape[0] < 2 or not n > 0:  # noqa: PLR2004 - a variance takes two
        return None
    residuals, floor = _residuals(used, arm.bins <= quantile_bin(arm.bins, counts, quantile), quantile)
    seen = weather(residuals, floor).beside(arm.spells)
    if seen.endless:
        return None
    careful = seen.excluding(EXCLUDED)
    half = _half(residuals, floor * max(arm.spells.least, seen.unnoticed(EXCLUDED)), careful, alpha)
    below, above = (float(special.expit(side * special.logit(quantile) - half)) for side in (1, -1))
    inner = max(np.ceil(n * below), 1.0), n + 1 if careful.endless else n + 1 - max(np.ceil(n * above), 1.0)
    values = middle(arm.bins)
    ranks = inner, _outer(n, seen.worth, quantile, alpha)
    ends = [(at_rank(values, counts, low), at_rank(values, counts, high)) for low, high in ranks]
    return _joined([*ends, order_statistic_interval(values, counts, quantile, alpha)])


def _joined(ends: Sequence[tuple[float | None, float | None]]) -> tuple[float, float | None] | None:
    """From the lowest of lower ends to the highest of upper ones; None where there is neither."""
    low = min(0.0 if one is None else one for one, _ in ends)
    high = max(np.inf if one is None else one for _, one in ends)
    if high == np.inf:
        return None if low == 0 and any(one is None for one, _ in ends) else (low, None)
    return low, high


def _outer(n: float, worth: float, quantile: float, alpha: float) -> tuple[float, float]:
    """The ranks of the interval of n × `worth` independent values, the end out in the tail alone; the other is inside.

    At the median neither tail is out: there the log odds are as wide, and hiding what admits that it wanders would
    leave the runs that do not know it.
    """
    inside, few = np.ceil(n * quantile), float(min(np.floor(n * worth), MOST))
    if quantile > _MEDIAN:
        rank = distributions.binomial_upper(alpha / 2, few, quantile) + 1
        return inside, np.ceil(n * rank / few) if rank <= few else n + 1
    if quantile < _MEDIAN:
        return np.floor(n * distributions.binomial_quantile(alpha / 2, few, quantile) / max(few, 1.0)), inside
    return inside, inside


def _residuals(used: Counts, below: Mask, quantile: float) -> tuple[Floats, float]:
    """Each batch's part of the error of the log odds of the share below, and the variance of independent values."""
    hits, sizes, n, spread = used[:, below].sum(axis=1), used.sum(axis=1), float(used.sum()), quantile * (1 - quantile)
    return (hits - hits.sum() / n * sizes) / n / spread, 1 / (n * spread)


def _half(residuals: Floats, floor: float, careful: Weather, alpha: float) -> float:
    """Half the interval of the log odds of the share below a quantile."""
    scales = scored(np.ones(1), residuals[:, None], floor, careful)
    return max(-float(special.stdtrit(one.freedom, alpha / 2)) / float(one.values[0]) for one in scales)
