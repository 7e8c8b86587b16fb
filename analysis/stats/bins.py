"""Log-linear bins of whole numbers: 1 024 a octave, so that a bin's middle is within ±0.05 % of every value in it.

The same bins come out of the float's own bits (sign, exponent and the first 10 mantissa bits), which is where the idea
is from: HdrHistogram and OpenTelemetry's exponential histograms do likewise. Below 1 024 each number has its own bin.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

PER_OCTAVE = 1024
"""Bins a doubling: relative width 1/1024."""

ZERO = -1
"""The bin of 0 and of anything below."""

UNKNOWN = -2
"""The bin of what is no number (NaN): it stands for no value, and is left out of quantiles."""

_LAST = 1023 * PER_OCTAVE + PER_OCTAVE - 1

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def bin_of(values: Any) -> Ints:
    """The bin of each value; infinity has the last one of all, and NaN, which is no value, `UNKNOWN`.

    >>> bin_of([0, 1, 2, 3, 1024, 1025]).tolist()
    [-1, 0, 1024, 1536, 10240, 10241]
    """
    given = np.asarray(values, dtype=np.float64)
    finite = np.where(np.isfinite(given), given, 1.0)
    mantissa, exponent = np.frexp(np.maximum(finite, 1.0))
    within = np.floor((2 * mantissa - 1) * PER_OCTAVE)
    index = np.where(finite < 1, ZERO, (exponent - 1) * PER_OCTAVE + within)
    index = np.where(np.isnan(given), UNKNOWN, np.where(given == np.inf, _LAST, index))
    return np.where(given < 1, ZERO, index).astype(np.int64)


def lower_edge(bins: Any) -> Floats:
    """The smallest value of each bin; 0 for the bin of zero, infinity beyond the last one.

    >>> lower_edge([-1, 0, 1536, 10241]).tolist()
    [0.0, 1.0, 3.0, 1025.0]
    """
    index = np.asarray(bins, dtype=np.int64)
    octave, within = np.divmod(index, PER_OCTAVE)
    return np.where(index < 0, 0.0, np.ldexp(1 + within / PER_OCTAVE, octave))


def middle(bins: Any) -> Floats:
    """The value that stands for each bin: exact below 1 024, the bin's middle above.

    >>> middle([-1, 0, 10241]).tolist()
    [0.0, 1.0, 1025.0]
    """
    index = np.asarray(bins, dtype=np.int64)
    first = lower_edge(index)
    width = np.where(index < 0, 0.0, np.ldexp(1 / PER_OCTAVE, np.maximum(index // PER_OCTAVE, 0)))
    return np.asarray(first + np.maximum(width - 1, 0) / 2)


def quantile_bin(bins: Ints, counts: Any, probability: float) -> int:
    """The first bin at which the cumulative share reaches a probability: the bin of the usual inverse of the CDF.

    Args:
        bins: Increasing bin numbers.
        counts: How many values each holds; at least one in all.
        probability: In (0, 1].

    Raises:
        ValueError: there is no value.

    >>> int(quantile_bin(np.array([0, 1024, 1536]), [1, 1, 2], 0.5))
    1024
    """
    cumulative = np.cumsum(np.asarray(counts, dtype=np.int64))
    if cumulative.size == 0 or cumulative[-1] == 0:
        raise ValueError("a quantile of nothing")
    # The rank is rounded up, after taking off what floating point adds to a whole number.
    rank = max(int(np.ceil(probability * float(cumulative[-1]) - 1e-9)), 1)
    return int(bins[np.searchsorted(cumulative, rank)])
