"""Which arm tends to be slower, from ranks: on bins as on raw values. Independent values; queues break it (77 %)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.stats import distributions
from analysis.stats.roots import root

Floats = npt.NDArray[np.float64]

_FAR = 700.0
"""Log odds beyond which floats say 0 or 1."""


@dataclass(frozen=True)
class Superiority:
    """`estimate` of P(second > first) + ½ P(equal), its test against ½, its interval, and its standard error."""

    estimate: float
    statistic: float
    freedom: float
    p_value: float
    low: float
    high: float
    error: float


def brunner_munzel(first: npt.ArrayLike, second: npt.ArrayLike, alpha: float = 0.05) -> Superiority | None:
    """Whether values of the second arm tend to be larger, for counts over the same ordered categories.

    Null: P(second > first) + ½ P(equal) = ½; shapes and variances may differ. Independent values. None where an arm has
    fewer than two values or the arms do not overlap at all.

    Args:
        first: Counts by category, in increasing order.
        second: Likewise.
        alpha: 1 − level of the interval.

    Source: Brunner & Munzel 2000, Biometrical Journal 42, section 3; on categories Munzel & Hauschke 2003.

    >>> found = brunner_munzel([11, 2, 0, 1, 0], [3, 1, 4, 2, 1])  # the pain scores of their section 6
    >>> round(found.statistic, 4), round(found.freedom, 3), round(found.p_value, 6), round(found.estimate, 6)
    (3.1375, 17.683, 0.005786, 0.788961)
    >>> found = brunner_munzel([24, 37, 21, 19, 6], [11, 51, 22, 21, 7])
    >>> round(found.estimate, 8), round(found.statistic, 7), round(found.p_value, 8)
    (0.54422563, 1.1757561, 0.24106066)
    """
    a, b = (np.asarray(counts, dtype=np.float64) for counts in (first, second))
    n, m = float(a.sum()), float(b.sum())
    if not (2 <= n < math.inf and 2 <= m < math.inf):  # noqa: PLR2004 - a variance takes two
        return None
    in_second, in_first = _middle_distribution(b), _middle_distribution(a)
    estimate = float((b * in_first).sum()) / m
    parts = _spread(a, in_second) / n, _spread(b, in_first) / m
    variance = sum(parts)
    if not variance > 0:
        return None
    freedom = variance**2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1))
    error = math.sqrt(variance)
    statistic, half = (estimate - 0.5) / error, distributions.student_upper(alpha / 2, freedom) * error
    p = 2 * distributions.student_above(abs(statistic), freedom)
    low, high = max(estimate - half, 0.0), min(estimate + half, 1.0)
    return Superiority(estimate, statistic, freedom, p, low, high, error)


def superiority_interval(found: Superiority, n: float, m: float, alpha: float) -> tuple[float, float]:
    """The interval of P(second > first) + ½ P(equal) that also holds where the arms hardly overlap.

    Near 0 and 1 Brunner and Munzel's own interval is too narrow (81 % instead of 95 at an estimate of .995 from 200
    values): there its variance hangs on a handful of values. So this is what two others span: the same interval on the
    log odds, and Newcombe's, whose variance is that of exponential arms at each candidate. Independent values.

    Args:
        found: The estimate with its test, from `brunner_munzel` at any alpha.
        n: Values of the first arm.
        m: Values of the second.
        alpha: 1 − level.

    Source: Brunner, Bathke & Konietschke 2018, section 3.7.2; Newcombe 2006, Statistics in Medicine 25, method 5.

    >>> found = brunner_munzel([24, 37, 21, 19, 6], [11, 51, 22, 21, 7])
    >>> [round(end, 4) for end in superiority_interval(found, 107, 112, 0.05)]
    [0.4678, 0.6182]
    """
    if not (1 <= n < math.inf and 1 <= m < math.inf):
        return 0.0, 1.0
    at = min(max(found.estimate, 1e-15), 1 - 1e-15)
    reach = distributions.student_upper(alpha / 2, found.freedom) * found.error / (at * (1 - at))
    odds = float(special.logit(at))
    low, high = _score_interval(at, n, m, distributions.normal_upper(alpha / 2))
    return min(float(special.expit(odds - reach)), low), max(float(special.expit(odds + reach)), high)


def _score_interval(at: float, n: float, m: float, z: float) -> tuple[float, float]:
    """The candidates that are at most z of their own standard errors away: two roots."""
    pairs = (n + m) / 2 - 1

    def excess(odds: float) -> float:
        t, rest = float(special.expit(odds)), float(special.expit(-odds))
        variance = t * rest * (1 + pairs * (rest / (1 + rest) + t / (1 + t))) / (n * m)
        return abs(at - t) - z * math.sqrt(variance)

    here = float(special.logit(at))
    if excess(here) >= 0:  # narrower than floating point can say
        return at, at
    ends = [root(excess, here, far, xtol=1e-12) if excess(far) > 0 else far for far in (-_FAR, _FAR)]
    return float(special.expit(ends[0])), float(special.expit(ends[1]))


def _middle_distribution(counts: Floats) -> Floats:
    """P(X < category) + ½ P(X = category)."""
    return np.asarray((np.cumsum(counts) - counts / 2) / counts.sum())


def _spread(counts: Floats, placements: Floats) -> float:
    n = float(counts.sum())
    mean = float((counts * placements).sum()) / n
    return float((counts * (placements - mean) ** 2).sum()) / (n - 1)


def aligned(
    first: tuple[npt.NDArray[np.int64], Floats], second: tuple[npt.NDArray[np.int64], Floats]
) -> tuple[Floats, Floats]:
    """Counts of two arms over the bins of both.

    >>> [one.tolist() for one in aligned((np.array([1, 3]), np.ones(2)), (np.array([2, 3]), np.ones(2)))]
    [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    """
    bins = np.union1d(first[0], second[0])
    found = []
    for own, counts in (first, second):
        whole = np.zeros(bins.size)
        whole[np.searchsorted(bins, own)] = counts
        found.append(whole)
    return found[0], found[1]


def shift_ratio(
    first: tuple[Floats, Floats], second: tuple[Floats, Floats], alpha: float
) -> tuple[float, float, float] | None:
    """How many times larger the second arm's values are, if they differ by nothing but a factor, with its interval.

    The Hodges–Lehmann estimate on the logarithm (1963): the median ratio of all pairs; the interval inverts the
    Mann–Whitney test in its normal limit (Hollander & Wolfe 1999, section 4.3). A pure factor and independent values;
    None where an arm is empty or has a value that is not positive and finite.

    Args:
        first: Increasing positive values and their counts.
        second: Likewise.
        alpha: 1 − level.

    >>> found = shift_ratio((np.array([1.0, 2.0, 4.0]), np.ones(3)), (np.array([2.0, 4.0, 8.0]), np.ones(3)), 0.05)
    >>> round(found[0], 6)
    2.0
    """
    (a, n_a), (b, n_b) = first, second
    # NaN and infinity sort to the end.
    counted = all(0 < counts.sum() < math.inf for counts in (n_a, n_b))
    if not (counted and a.size and b.size and min(a[0], b[0]) > 0 and np.isfinite(a[-1] + b[-1])):
        return None
    n, m = float(n_a.sum()), float(n_b.sum())
    x, y, below = np.log(a), np.log(b), np.concatenate([[0.0], np.cumsum(n_a)]) / n

    @cache  # six searches ask the same shifts until they part
    def larger(shift: float) -> float:
        """P(second / e^shift > first) + ½ P(equal)."""
        at = y - shift
        low, high = np.searchsorted(x, at - 1e-9), np.searchsorted(x, at + 1e-9)
        return float((n_b * (below[low] + below[high])).sum()) / (2 * m)

    half = distributions.normal_upper(alpha / 2) * math.sqrt((n + m + 1) / (12 * n * m))
    ends = float(y[0] - x[-1]) - 1, float(y[-1] - x[0]) + 1
    middle, low, high = (_falls_to(larger, 0.5 + d, ends) for d in (0.0, half, -half))
    return math.exp(middle), math.exp(low), math.exp(high)


def _falls_to(share: Callable[[float], float], goal: float, ends: tuple[float, float]) -> float:
    """The middle of where a falling step function passes a goal."""
    found = []
    for strict in (True, False):
        low, high = ends
        for _ in range(36):
            middle = (low + high) / 2
            above = share(middle) > goal if strict else share(middle) >= goal
            low, high = (middle, high) if above else (low, middle)
        found.append((low + high) / 2)
    return sum(found) / 2
