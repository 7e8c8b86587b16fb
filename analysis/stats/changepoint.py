"""Did a rate or a level change at one moment, and at which? The largest likelihood ratio over all moments."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.stats import distributions

Floats = npt.NDArray[np.float64]

TRIM = 0.15
"""Part of the data at either end where no change is looked for: there the ratio is large by chance (Andrews 1993)."""


@dataclass(frozen=True)
class Change:
    """`at` is how many windows lie before the change; `before` and `after` are the two rates or levels.

    `statistic` is twice the log likelihood ratio; `p_value` its chance where nothing changed.
    """

    at: int
    statistic: float
    p_value: float
    before: float
    after: float


def bernoulli_change(hits: npt.ArrayLike, totals: npt.ArrayLike, trim: float = TRIM) -> Change | None:
    """One change of a share over windows; None where no moment lies inside the trimmed ends or nothing varies.

    Null: independent requests with one share throughout. Sticky clients break it: their sessions look like changes.

    Args:
        hits: Requests of one arm, by window.
        totals: All requests, by window.
        trim: Part of the requests at either end at which no change is looked for.

    Source: the generalised likelihood ratio of Hinkley & Hinkley 1970 with the trimming of Andrews 1993.

    >>> found = bernoulli_change([1, 2, 1, 8, 9, 8], [10] * 6)
    >>> found.at, round(found.before, 3), round(found.after, 3)
    (3, 0.133, 0.833)
    """

    def fit(s: Floats, n: Floats) -> Floats:
        rest = np.maximum(n - s, 0)
        return np.asarray(special.xlogy(s, s) + special.xlogy(rest, rest) - special.xlogy(n, n))

    return _change(hits, totals, fit, trim)


def poisson_change(events: npt.ArrayLike, exposure: npt.ArrayLike, trim: float = 0.0) -> Change | None:
    """One change of a rate of events for each unit of exposure.

    Null: independent Poisson counts with one rate. Events in bursts break it: a burst looks like a change. None where
    there is no exposure. Source: Raftery & Akman 1986, Biometrika 73; their coal mines had 127 disasters in the 41
    years to 1891 and 64 in the 71 years after.

    Args:
        events: Counts, by window.
        exposure: What they are counted in: requests, or years.
        trim: Part of the exposure at either end at which no change is looked for.

    >>> found = poisson_change([127, 64], [41, 71])
    >>> found.at, round(found.statistic, 2), round(found.before, 2), round(found.after, 2)
    (1, 69.99, 3.1, 0.9)
    """

    def fit(s: Floats, n: Floats) -> Floats:
        return np.asarray(special.xlogy(s, s) - special.xlogy(s, n))

    return _change(events, exposure, fit, trim)


def level_change(values: npt.ArrayLike, trim: float = 0.0) -> Change | None:
    """One change of the mean of values with one unknown variance, by least squares (Hawkins 1977).

    Null: independent normal values with one mean. Values that depend on their neighbours break it, and so do outliers.
    None where nothing varies, or a value is not finite.

    >>> level_change([1.0, 1.2, 0.9, 3.0, 3.1, 2.9]).at
    3
    """
    value = np.asarray(values, dtype=np.float64)
    if not (value.size and np.isfinite(value).all()):
        return None
    whole = float(((value - value.mean()) ** 2).sum())
    if whole <= 0 or not math.isfinite(whole):
        return None

    def fit(s: Floats, n: Floats) -> Floats:
        return np.asarray(s**2 / np.maximum(n, 1) / 2)

    found = _change(value - value.mean(), np.ones(value.size), fit, trim)
    if found is None:
        return None
    rest = max(whole - found.statistic, whole * 1e-15)
    statistic = value.size * math.log(whole / rest)
    mean = float(value.mean())
    return Change(
        found.at, statistic, change_p_value(statistic, max(trim, 0.01)), found.before + mean, found.after + mean
    )


def _change(
    sums: npt.ArrayLike, weights: npt.ArrayLike, fit: Callable[[Floats, Floats], Floats], trim: float
) -> Change | None:
    """The best split of cumulative sums; `fit` is the log likelihood of a stretch at its own rate."""
    own = [np.asarray(values, dtype=np.float64) for values in (sums, weights)]
    s, n = (np.cumsum(values) for values in own)
    if not (s.size and np.isfinite(s[-1]) and 0 < n[-1] < math.inf):
        return None
    # What comes after is summed from the end: a difference of sums would lose a few beside 10^18.
    s_after, n_after = (np.append(np.cumsum(values[::-1])[::-1][1:], 0.0) for values in own)
    inside = np.flatnonzero((n[:-1] >= trim * n[-1]) & (n[:-1] <= (1 - trim) * n[-1]) & (n[:-1] > 0))
    inside = inside[n_after[inside] > 0]
    if not inside.size:
        return None
    left, right = fit(s[inside], n[inside]), fit(s_after[inside], n_after[inside])
    gain = 2 * (left + right - fit(s[-1:], n[-1:]))
    best = int(np.argmax(gain))
    place = inside[best]
    statistic = max(float(gain[best]), 0.0)
    return Change(
        at=int(place) + 1,
        statistic=statistic,
        p_value=change_p_value(statistic, max(trim, 0.01)),
        before=float(s[place] / n[place]),
        after=float(s_after[place] / n_after[place]),
    )


def change_p_value(statistic: float, trim: float = TRIM) -> float:
    """The chance that the largest likelihood ratio reaches `statistic` although nothing changed, for many requests.

    φ(b) [(b − 1/b) ln((1 − ε)²/ε²) + 4/b] with b = √statistic and ε the trimmed part: the tail of the largest
    standardised Brownian bridge (Miller & Siegmund 1982, equation 1). Null: independent requests with one share
    throughout; sticky clients, and few requests in a window, break it. Andrews 2003 tabulates 5 % at 8.68 for ε = .15.

    >>> round(change_p_value(8.68), 3), round(change_p_value(12.16), 3), change_p_value(0.5)
    (0.054, 0.011, 1.0)
    """
    b = math.sqrt(max(statistic, 0.0))
    if b < 1.5:  # noqa: PLR2004 - below, the approximation is of no use and the chance is near 1
        return 1.0
    tail = (b - 1 / b) * math.log(((1 - trim) / trim) ** 2) + 4 / b
    return min(1.0, distributions.normal_density(b) * tail)


def trend_p_value(hits: npt.ArrayLike, totals: npt.ArrayLike) -> float | None:
    """The two-sided p-value of a share that rises or falls steadily over windows; None where nothing varies.

    Null: independent requests with one share throughout; sticky clients break it. Windows are a unit of time apart.
    Source: Armitage 1955, Biometrics 11, the χ² test for trend. Fleiss 1981, page 139: smokers among four groups of
    patients, p = .004132 by R's prop.trend.test.

    >>> round(trend_p_value([83, 90, 129, 70], [86, 93, 136, 82]), 6)
    0.004132
    >>> trend_p_value([1, 3, 5, 7, 9], [10] * 5) < 0.001
    True
    >>> trend_p_value([0, 0], [5, 5]) is None
    True
    """
    hit, total = np.asarray(hits, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    n = float(total.sum())
    if not (0 < n < math.inf and 0 < hit.sum() < n):
        return None
    share, at = hit.sum() / n, np.arange(hit.size) - float((np.arange(hit.size) * total).sum()) / n
    variance = share * (1 - share) * float((total * at**2).sum())
    return None if variance <= 0 else 2 * distributions.normal_above(abs(float((at * hit).sum())) / math.sqrt(variance))
