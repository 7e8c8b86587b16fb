"""Quantiles of independent values: intervals from order statistics, sequences of them, and two arms at every look.

All work on increasing values with counts, so on raw values (counts of 1) as on bins. What breaks every one of them:
values that depend on their neighbours in time, which latencies do: up to 77 % false alarms. Shown, never judged by.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.stats import distributions
from analysis.stats.boundaries import best_rho
from analysis.stats.likelihood import log_evidence
from analysis.stats.roots import root

Floats = npt.NDArray[np.float64]

MOST = 1e12
"""Values beyond which floating point no longer tells e-values of two arms apart, nor binomial tails in time."""


def at_rank(values: Floats, counts: npt.ArrayLike, rank: float) -> float | None:
    """The value at a rank that counts from 1; None beyond either end, or where what is there is no number.

    >>> at_rank(np.array([1.0, 2.0]), [3, 1], 3), at_rank(np.array([1.0, 2.0]), [3, 1], 5)
    (1.0, None)
    """
    cumulative = np.cumsum(np.asarray(counts, dtype=np.float64))
    if not cumulative.size or not 1 <= rank <= cumulative[-1]:
        return None
    found = float(values[np.searchsorted(cumulative, rank)])
    return None if math.isnan(found) else found


def order_statistic_interval(
    values: Floats, counts: npt.ArrayLike, quantile: float, alpha: float
) -> tuple[float | None, float | None]:
    """The interval of a quantile between two order statistics, for one look (Conover 1999, section 3.2).

    Independent values from any distribution; None where no value bounds it at that level. The ranks are the binomial's
    alpha/2 quantile and one more than its 1 − alpha/2 quantile.

    >>> low, high = order_statistic_interval(np.exp(np.arange(0, 1.01, 0.01)), np.ones(101), 0.3, 0.05)
    >>> round(low, 7), round(high, 7)
    (1.2214028, 1.4769808)
    """
    n = float(np.sum(counts))
    if not 0 < n < math.inf:
        return None, None
    if n <= MOST:
        low = distributions.binomial_quantile(alpha / 2, n, quantile)
        high = distributions.binomial_upper(alpha / 2, n, quantile) + 1
    else:
        reach = distributions.normal_upper(alpha / 2) * math.sqrt(n * quantile * (1 - quantile))
        low, high = math.floor(n * quantile - reach), math.ceil(n * quantile + reach) + 1
    return at_rank(values, counts, low), at_rank(values, counts, high)


def harrell_davis(values: Floats, counts: npt.ArrayLike, quantile: float) -> float | None:
    """The quantile as a weighted mean of all order statistics; None for nothing, or where what counts is no number.

    It varies less than one order statistic does, for smooth distributions of independent values; a distribution with
    gaps or with an infinite mean breaks it. The weight of value i of n is what a Beta((n + 1)p, (n + 1)(1 − p)) has
    between (i − 1)/n and i/n. Beyond `MOST` values it is the one order statistic on which all weight falls.

    Args:
        values: Increasing, in any unit: the answer's.
        counts: How often each was seen.
        quantile: In [0, 1]; at the ends the smallest and the largest value.

    Source: Harrell & Davis 1982, Biometrika 69.

    >>> harrell_davis(np.arange(11.0), np.ones(11), 0.5)
    5.0
    """
    cumulative = np.concatenate([[0.0], np.cumsum(np.asarray(counts, dtype=np.float64))])
    n = float(cumulative[-1])
    if not 0 < n < math.inf:
        return None
    if n > MOST or not 0 < quantile < 1:
        return at_rank(values, counts, min(max(math.ceil(n * quantile), 1), n))
    a, b = (n + 1) * quantile, (n + 1) * (1 - quantile)
    weights = np.diff(special.betainc(a, b, cumulative / n))
    some = weights > 0
    found = float((weights[some] * values[some]).sum())
    return None if math.isnan(found) else found


def quantile_p_value(at_most: float, below: float, n: float, quantile: float) -> float:
    """The two-sided p-value of "the quantile is q", from the values at most q and those below it (Conover 1999, 3.2).

    Independent values; twice the smaller binomial tail.

    >>> round(quantile_p_value(7, 7, 15, 0.75), 4)
    0.0346
    """
    if not (0 < n < math.inf and 0 <= below <= at_most <= n):
        return 1.0
    if n <= MOST:
        at_most_tail = distributions.binomial_at_most(at_most, n, quantile)
        return min(1.0, 2 * min(at_most_tail, distributions.binomial_above(below - 1, n, quantile)))
    middle, spread = n * quantile, math.sqrt(n * quantile * (1 - quantile))
    tails = (
        distributions.normal_above((middle - at_most) / spread),
        distributions.normal_above((below - 1 - middle) / spread),
    )
    return min(1.0, 2 * min(tails))


def quantile_sequence(
    values: Floats, counts: npt.ArrayLike, quantile: float, alpha: float, t_opt: float
) -> tuple[float | None, float | None]:
    """The confidence sequence of a quantile: covers it at all looks together with probability 1 − alpha.

    Source: Howard & Ramdas, Bernoulli 2022 (arXiv 1906.09712), theorem 1(b): ranks ⌊n(p − l/n)⌋ + 1 and ⌈n(p + u/n)⌉
    with beta-binomial boundaries. Independent values, or P(X ≤ q | past) = p; None where no value bounds it yet.

    >>> quantile_sequence(np.arange(1.0, 1001), np.ones(1000), 0.5, 0.05, 100)
    (449.0, 552.0)
    >>> quantile_sequence(np.arange(1.0, 101), np.ones(100), 0.99, 0.05, 100)
    (95.0, None)
    """
    n, p = float(np.sum(counts)), quantile
    if not 0 < n < math.inf:
        return None, None
    lower, upper = (_crossing(n, p, alpha, t_opt, end) for end in (0.0, n))
    return (
        None if lower is None else at_rank(values, counts, math.floor(lower) + 1),
        None if upper is None else at_rank(values, counts, math.ceil(upper)),
    )


def _crossing(n: float, p: float, alpha: float, t_opt: float, end: float) -> float | None:
    """The number of values below the quantile, towards one end, from which on the mixture refutes it; None if none.

    The beta-binomial boundary, written in deviances so that it also holds for 10^18 values. Where not even the end is
    refuted, no value bounds the quantile yet.
    """
    gh = p * (1 - p)
    r = max(best_rho(gh * t_opt, 0.05) - gh, 1e-3 * gh)

    def excess(below: float) -> float:
        return log_evidence([below, n - below], [r / (1 - p), r / p], [p, 1 - p]) + math.log(alpha)

    return None if excess(end) <= 0 else root(excess, n * p, end, xtol=1e-10)


def two_sample_p(
    first: tuple[Floats, npt.ArrayLike], second: tuple[Floats, npt.ArrayLike], quantile: float, t_opt: float
) -> float:
    """The p-value, valid at every look, of "both arms have the same quantile".

    exp(−min over x of the arms' log e-values that x is the quantile): whatever the common quantile is, it is refuted.

    Args:
        first: Increasing values and their counts.
        second: Likewise.
        quantile: In (0, 1).
        t_opt: Values of each arm at which it is to be strongest.

    Source: Howard & Ramdas 2022, section 5. Independent values. An arm with no value, or more than `MOST`, gives 1.

    >>> ones, a = np.ones(1000), np.arange(1.0, 1001)
    >>> round(two_sample_p((a, ones), (a + 100, ones), 0.5, 100), 7)
    0.0054947
    """
    arms = [(np.asarray(v, dtype=np.float64), np.cumsum(np.asarray(c, dtype=np.float64))) for v, c in (first, second)]
    if any(not c.size or not 0 < c[-1] <= MOST for _, c in arms):
        return 1.0
    x = np.union1d(arms[0][0], arms[1][0])
    total = sum(_least_log_e(v, c, x, quantile, t_opt) for v, c in arms)
    return min(1.0, math.exp(-min(max(float(np.min(total)), 0.0), 700.0)))


def _least_log_e(values: Floats, cumulative: Floats, x: Floats, p: float, t_opt: float) -> Floats:
    """One arm's log e-value at each candidate, at the least favourable share in [F(x−), F(x)]."""
    n = float(cumulative[-1])
    whole = np.concatenate([[0.0], cumulative]) / n
    below, at = whole[np.searchsorted(values, x, "left")], whole[np.searchsorted(values, x, "right")]
    gh = p * (1 - p)
    r = max(best_rho(gh * t_opt, 0.05) - gh, 1e-3 * gh)

    def log_e(q: Floats) -> Floats:
        fit = -n * q * math.log(p) - n * (1 - q) * math.log1p(-p)
        posterior = special.betaln(r / p + n * (1 - q), r / (1 - p) + n * q)
        return np.asarray(fit + posterior - special.betaln(r / p, r / (1 - p)))

    # Convex in q: the end nearer to where it is least, or that place itself where it lies between.
    return log_e(np.clip(_least_refuted(n, p, r), below, at))


def _least_refuted(n: float, p: float, r: float) -> float:
    """The share below the quantile that speaks least against it: p but for less than one value of n."""

    def slope(q: float) -> float:
        posterior = special.digamma(r / (1 - p) + n * q) - special.digamma(r / p + n * (1 - q))
        return float(posterior - math.log(p) + math.log1p(-p))

    if slope(0.0) >= 0:
        return 0.0
    return 1.0 if slope(1.0) <= 0 else root(slope, 0.0, 1.0, xtol=1e-15)
