"""How long do values of a series resemble their neighbours? The length of blocks that may be taken as independent."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEAST = 8
"""Fewer values say nothing of correlation at several lags."""

_RUN = 5


@dataclass(frozen=True)
class BlockLength:
    """In values: the mean length of the stationary bootstrap's blocks, and the length of the circular one's."""

    stationary: float
    circular: float


def block_length(series: npt.ArrayLike) -> BlockLength | None:
    """The block length with which a block bootstrap estimates the variance of a mean best; None if that cannot be told.

    Blocks of time that are long against it are nearly independent, which is what the latency gate asks of its batches;
    the gate itself looks at the correlation of batches. A trend, or a series that wanders for as long as it lasts,
    breaks it: then it is the largest length that is ever returned, 3√n. 0 for what has no correlation at all.

    Args:
        series: Equally spaced in time, for example means of seconds; at least eight finite values that differ.

    Source: Politis & White 2004, Econometric Reviews 23, section 3.2, with the correction of Patton, Politis & White
    2009: (2G²n / D)^⅓, D = 2σ⁴ or 4/3 σ⁴, where G and σ² are sums of autocovariances under a flat-top window.

    >>> turns = block_length([1.0, 1.0, 2.0, 2.0] * 20)
    >>> round(turns.circular / turns.stationary, 6) == round(1.5 ** (1 / 3), 6)
    True
    """
    given = np.asarray(series, dtype=np.float64)
    if given.size < LEAST or not np.isfinite(given).all():
        return None
    largest = float(np.abs(given).max())
    values = given / largest if largest else given  # the length has no unit: squares of 10^300 need not overflow
    values = values - values.mean()
    n, most = values.size, _largest_lag(values.size)
    covariance = np.array([float(values[lag:] @ values[: n - lag]) / n for lag in range(most + 1)])
    if not covariance[0] > 1e-28:  # noqa: PLR2004 - rounding of equal values, relative to the largest
        return None
    window = min(2 * _first_unclear_lag(values, most), most)
    lags = np.arange(1, window + 1)
    weights = np.minimum(1.0, 2 * (1 - lags / window)) * covariance[1 : window + 1]
    slope, spectrum = 2 * float((weights * lags).sum()), float(covariance[0] + 2 * weights.sum())
    if spectrum == 0:
        return None
    longest = math.ceil(min(3 * math.sqrt(n), n / 3))
    each = [(2 * slope**2 * n / (c * spectrum**2)) ** (1 / 3) for c in (2, 4 / 3)]
    return BlockLength(*(min(length, float(longest)) for length in each))


def _run(n: int) -> int:
    """How many lags in a row must show nothing."""
    return max(_RUN, int(math.log10(n)))


def _largest_lag(n: int) -> int:
    return min(math.ceil(math.sqrt(n)) + _run(n), n - 2)


def _first_unclear_lag(values: Floats, most: int) -> int:
    """Where the first run of lags begins whose correlation is within 2√(log₁₀ n / n).

    The paper's m̂ is the lag before; Patton's program and its descendants take this one, and so do we: longer blocks err
    on the safe side.
    """
    n, run = values.size, _run(values.size)
    limit = 2 * math.sqrt(math.log10(n) / n)
    unclear = [abs(_correlation(values[lag:], values[: n - lag])) < limit for lag in range(1, most + 1)]
    for lag in range(len(unclear) - run + 1):
        if all(unclear[lag : lag + run]):
            return lag + 1
    return most


def _correlation(first: Floats, second: Floats) -> float:
    size = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / size if size else 0.0
