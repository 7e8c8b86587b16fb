"""Whole distributions: how far the observed one may be from the true one, for one look and for all."""

import math

import numpy as np
import numpy.typing as npt

from analysis.stats.boundaries import lil_radius


def dkw_radius(n: float, alpha: float) -> float:
    """The uniform distance between observed and true distribution function, at one look: √(ln(2/alpha) / 2n).

    Independent values. Source: Dvoretzky, Kiefer & Wolfowitz with the constant of Massart 1990.

    >>> round(dkw_radius(1000, 0.05), 6)
    0.042947
    """
    return min(1.0, math.sqrt(math.log(2 / alpha) / (2 * n))) if n > 0 else 1.0


def largest_gap(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[float, float]:
    """The largest amount by which the first arm's distribution function is above the second's, and below it.

    The first is positive where the second arm is slower somewhere. Counts over the same increasing categories, as
    fractions; none for an empty arm. It is a distance and no test: `band_sum` says how large it may be by chance.
    Source: Smirnov 1939, the two one-sided statistics.

    >>> largest_gap([1, 1, 0], [0, 1, 1])
    (0.5, 0.0)
    """
    a, b = (np.cumsum(np.asarray(counts, dtype=np.float64)) for counts in (first, second))
    if not (a.size and 0 < a[-1] < math.inf and 0 < b[-1] < math.inf):
        return 0.0, 0.0
    gap = a / a[-1] - b / b[-1]
    return max(float(gap.max()), 0.0), abs(min(float(gap.min()), 0.0))


def band_sum(n: float, m: float, alpha: float, first_look: float) -> float:
    """The gap beyond which two arms' distributions differ somewhere, whenever one looks: the sum of two radii.

    Null: both arms have the same distribution. Independent values. Source: Howard & Ramdas 2022, corollary 2, as used
    by Lindon, Sanden & Shirikian 2022 (arXiv 2205.14762) for canaries.

    >>> band_sum(10, 1000, 0.05, 100)
    1.0
    """
    return min(1.0, lil_radius(n, alpha / 2, first_look) + lil_radius(m, alpha / 2, first_look))
