"""How long do neighbours in time depend on one another? The block length that a bootstrap of a series needs."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_FEWEST = 8


def optimal_block_length(series: npt.ArrayLike) -> tuple[float, float] | None:
    """The block lengths that make the bootstrap variance of a mean most exact: stationary, then circular blocks.

    They are about how many neighbours depend on one another, so batches ought to be several times as long. Assumes
    one stationary series in equal steps; a trend or a change of level breaks it, and makes blocks too long.

    Source: Politis & White 2004, sections 2 and 3, with the constants of Patton, Politis & White 2009. The lag from
    which correlations are nothing is the first of a run of insignificant ones, as in arch 8.

    Args:
        series: Values in equal steps of time.

    Returns:
        Lengths in steps; None for fewer than eight values, or where they do not vary or are no numbers.

    >>> optimal_block_length([1.0] * 100) is None
    True
    """
    x = np.asarray(series, dtype=np.float64)
    if x.size < _FEWEST or not np.isfinite(x).all() or x.min() == x.max():
        return None
    n, run = x.size, max(5, int(math.log10(x.size)))
    most = min(math.ceil(math.sqrt(n)) + run, n - 2)
    covariances, correlations = _lags(x - x.mean(), most)
    lags = min(2 * _first_of_none(correlations, run, 2 * math.sqrt(math.log10(n) / n)), most)
    k = np.arange(1, lags + 1)
    # The flat-top window of Politis & Romano 1995.
    weighted = np.where(k <= lags / 2, 1.0, 2 * (1 - k / lags)) * covariances[1 : lags + 1]
    slope, level = 2 * float((k * weighted).sum()), float(covariances[0] + 2 * weighted.sum())
    if level == 0:
        return None
    longest = math.ceil(min(3 * math.sqrt(n), n / 3))
    stationary, circular = (
        min((2 * slope**2 / (constant * level**2) * n) ** (1 / 3), float(longest)) for constant in (2, 4 / 3)
    )
    return stationary, circular


def _lags(centred: Floats, most: int) -> tuple[Floats, Floats]:
    """Autocovariances, and the sizes of correlations of what overlaps, at lags 0 to `most`."""
    n = centred.size
    products = np.array([centred[lag:] @ centred[: n - lag] for lag in range(most + 1)])
    scales = np.array(
        [
            (centred[lag + 1 :] @ centred[lag + 1 :]) * (centred[: n - lag - 1] @ centred[: n - lag - 1])
            for lag in range(most + 1)
        ]
    )
    return products / n, np.abs(products) / np.sqrt(np.maximum(scales, np.finfo(float).tiny))


def _first_of_none(correlations: Floats, run: int, limit: float) -> int:
    """The first lag from which `run` correlations are below the limit; the last lag where there is no such run."""
    below = correlations < limit
    starts = (lag for lag in range(correlations.size - run) if below[lag : lag + run].all())
    return max(next(starts, correlations.size - 1), 1)
