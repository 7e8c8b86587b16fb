"""How sure is a quantile of one arm? Its interval, from time batches and never narrower than independent values give.

Requests near one another in time resemble one another, so the spread of the share below the quantile is taken from
batches of time, as in the claims; the share's interval is then read off the observed distribution.
"""

import numpy as np
from scipy import special

from analysis.stats.batches import scored, weather
from analysis.stats.bins import middle, quantile_bin
from analysis.stats.exceedances import Counts, Histogram
from analysis.stats.quantiles import at_rank, order_statistic_interval


def quantile_interval(arm: Histogram, quantile: float, alpha: float) -> tuple[float, float | None] | None:
    """The interval of one quantile at one look; None where there are fewer than two batches, or batches say nothing.

    The share of values at or below the quantile has log odds whose variance is that of batches, widened as in claims;
    the interval's ends are the values at the ranks which that interval of the share names. The upper end is None where
    no value bounds it. It is joined with the interval of independent values, so it is never narrower. What breaks it:
    slow spells of which a run has only a handful, for those that it did not have say nothing; see the table of one
    arm's quantiles in benchmarks/calibration. An arm that may wander for as long as the batches last is the None.

    Source: Woodruff 1952, Journal of the American Statistical Association 47, with the variance of ratios of sums of
    Cochran 1977, section 6.3, and Bartlett's 1946 widening.

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
    half = _half(arm, used, quantile, alpha)
    if half is None:
        return None
    values = middle(arm.bins)
    shares = special.expit(special.logit(quantile) + np.array([-half, half]))
    low = at_rank(values, counts, max(np.ceil(n * float(shares[0])), 1.0))
    high = at_rank(values, counts, np.floor(n * float(shares[1])) + 1)
    least, most = order_statistic_interval(values, counts, quantile, alpha)
    ends = [0.0 if one is None else one for one in (low, least)]
    return min(ends), None if high is None or most is None else max(high, most)


def _half(arm: Histogram, used: Counts, quantile: float, alpha: float) -> float | None:
    """Half the interval of the log odds of the share below a quantile; None where a wandering may have no end."""
    below = used[:, arm.bins <= quantile_bin(arm.bins, used.sum(axis=0), quantile)].sum(axis=1)
    sizes, n, spread = used.sum(axis=1), float(used.sum()), quantile * (1 - quantile)
    residuals = (below - below.sum() / n * sizes) / n / spread
    floor = 1 / (n * spread)
    seen, floor = weather(residuals, floor).beside(arm.spells), floor * arm.spells.least
    if seen.endless:
        return None
    scales = scored(np.ones(1), residuals[:, None], floor, seen)
    return max(-float(special.stdtrit(one.freedom, alpha / 2)) / float(one.values[0]) for one in scales)
