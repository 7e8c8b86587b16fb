"""Tails and quantiles of the usual distributions, from `scipy.special`: `scipy.stats` takes a second to import.

Functions of mathematics, not of data: what is no number gives no number (NaN), and so does what lies outside their
domain. What calls them has made sure of its counts. Definitions: Abramowitz & Stegun 1964, chapter 26.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

_EACH_UP_TO = 10**6


def normal_density(x: float) -> float:
    """The standard normal density.

    >>> round(normal_density(0), 6)
    0.398942
    """
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def normal_below(x: Any) -> Any:
    """P(Z ≤ x) of a standard normal Z.

    >>> round(float(normal_below(1.96)), 4)
    0.975
    """
    return special.ndtr(x)


def normal_above(x: float) -> float:
    """P(Z > x), exact in the far tail.

    >>> round(normal_above(1.6449), 4)
    0.05
    """
    return float(special.ndtr(-x))


def normal_quantile(p: float) -> float:
    """The value below which a standard normal falls with probability p.

    >>> round(normal_quantile(0.99), 4)
    2.3263
    """
    return float(special.ndtri(p))


def normal_upper(p: float) -> float:
    """The value above which a standard normal falls with probability p.

    >>> round(normal_upper(0.025), 4)
    1.96
    """
    return -float(special.ndtri(p))


def student_above(x: float, freedom: float) -> float:
    """P(T > x) of Student's t.

    >>> round(student_above(2.228, 10), 3)
    0.025
    """
    return float(special.stdtr(freedom, -x))


def student_upper(p: float, freedom: float) -> float:
    """The value above which Student's t falls with probability p.

    >>> round(student_upper(0.025, 10), 3)
    2.228
    """
    return -float(special.stdtrit(freedom, p))


def chi_square_below(x: float, freedom: float) -> float:
    """P(X ≤ x) of a χ².

    >>> round(chi_square_below(18.307, 10), 3)
    0.95
    """
    return float(special.chdtr(freedom, x))


def chi_square_above(x: float, freedom: float) -> float:
    """P(X > x) of a χ².

    >>> round(chi_square_above(3.841, 1), 3)
    0.05
    """
    return float(special.chdtrc(freedom, x))


def beta_quantile(p: float, a: float, b: float) -> float:
    """The value below which a Beta(a, b) falls with probability p.

    The lower end of Clopper and Pearson's interval for 81 of 263 (Newcombe 1998, table I):

    >>> round(beta_quantile(0.025, 81, 183), 4)
    0.2527
    """
    return float(special.betaincinv(a, b, p))


def beta_upper(p: float, a: float, b: float) -> float:
    """The value above which a Beta(a, b) falls with probability p.

    The upper end of Clopper and Pearson's interval for 0 of 20 (Newcombe 1998, table I):

    >>> round(beta_upper(0.025, 1, 20), 4)
    0.1684
    """
    return float(special.betainccinv(a, b, p))


def _whole(hits: float) -> float:
    return math.floor(hits) if math.isfinite(hits) else hits


def binomial_at_most(hits: float, n: float, p: float) -> float:
    """P(X ≤ hits) of n draws with probability p in (0, 1).

    >>> round(binomial_at_most(2, 4, 0.5), 4)
    0.6875
    """
    hits = _whole(hits)
    if hits < 0:
        return 0.0
    return 1.0 if hits >= n else float(special.betaincc(hits + 1, n - hits, p))


def binomial_above(hits: float, n: float, p: float) -> float:
    """P(X > hits) of n draws with probability p in (0, 1).

    >>> round(binomial_above(2, 4, 0.5), 4)
    0.3125
    """
    hits = _whole(hits)
    if hits < 0:
        return 1.0
    return 0.0 if hits >= n else float(special.betainc(hits + 1, n - hits, p))


def binomial_quantile(q: float, n: float, p: float) -> float:
    """The fewest hits that X exceeds with a probability of at most 1 − q.

    >>> binomial_quantile(0.5, 10, 0.3)
    3
    """
    return _first(n, lambda hits: binomial_at_most(hits, n, p) >= q)


def binomial_upper(q: float, n: float, p: float) -> float:
    """The fewest hits that X exceeds with a probability of at most q, exact for the smallest q.

    >>> binomial_upper(0.5, 10, 0.3)
    3
    """
    return _first(n, lambda hits: binomial_above(hits, n, p) <= q)


def _first(n: float, holds: Callable[[int], bool]) -> float:
    """The first of 0 … n from which on something holds."""
    if not 0 <= n < math.inf:
        return math.nan
    low, high = 0, math.floor(n)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def binomial_two_sided(hits: int, n: int, p: float) -> float:
    """The exact two-sided p-value of "the probability is p": of all numbers of hits that are as unlikely, or more.

    It looks at each of them up to n = 10^6; beyond, where the tails are alike, it is twice the smaller. With p = ½ both
    are alike for any n. Hits that are none of n speak against nothing: 1. Independent draws, at one look.

    >>> round(binomial_two_sided(1, 10, 0.5), 4)
    0.0215

    Mendel's peas, 682 of 925 against ¾ (Conover 1971, page 97):

    >>> round(binomial_two_sided(682, 925, 0.75), 4)
    0.3825
    """
    if not 0 <= hits <= n < math.inf:
        return 1.0
    if p in {0.0, 1.0}:
        return float(hits == n * p)
    if hits == n * p:
        return 1.0
    if p != 0.5 and n > _EACH_UP_TO:  # noqa: PLR2004 - both tails are alike
        return min(1.0, 2 * min(binomial_at_most(hits, n, p), binomial_above(hits - 1, n, p)))
    low, high = _as_unlikely(hits, n, p)
    return min(1.0, binomial_at_most(low, n, p) + binomial_above(high - 1, n, p))


def _as_unlikely(hits: int, n: int, p: float) -> tuple[int, int]:
    """The ends of the two tails, one of which is `hits`."""
    if p == 0.5:  # noqa: PLR2004 - both tails are alike
        return min(hits, n - hits), max(hits, n - hits)
    all_hits = np.arange(n + 1)
    chances = special.xlogy(all_hits, p) + special.xlog1py(n - all_hits, -p) + _log_choose(n, all_hits)
    as_unlikely = chances <= chances[hits] + math.log1p(1e-7)
    if hits < n * p:
        beyond = np.flatnonzero(as_unlikely & (all_hits >= math.ceil(n * p)))
        return hits, int(beyond[0]) if beyond.size else n + 1
    beyond = np.flatnonzero(as_unlikely & (all_hits <= math.floor(n * p)))
    return int(beyond[-1]) if beyond.size else -1, hits


def _log_choose(n: int, hits: Any) -> Any:
    return special.gammaln(n + 1) - special.gammaln(hits + 1) - special.gammaln(n - hits + 1)
