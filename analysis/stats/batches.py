"""The variance of a sum whose parts come in time: batches, their correlation, and coarser batches where it matters.

Requests near one another in time are not independent: queues and garbage collection slow an arm for seconds. Batches of
time are nearly independent if they are long against that; where they are not, coarser ones are, and where even those
are not, nothing can be said. Calibrated in benchmarks/calibration/latency.py.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

MANY = 40
"""From this many batches on, a correlation between neighbours is a property of the run, not of having too few."""

_CLEAR_LAG = {True: 2.2, False: 1.5}
_FEWEST_GROUPS = {True: 4, False: 3}
_FEW = 20
_CLUSTER_LEVEL = 0.1
_CLUSTER_LAG = 1.3


@dataclass(frozen=True)
class Weather:
    """How the residuals of `batches` hang together.

    `lag1` is the correlation of neighbours; `index` the variance of batches against that of independent requests.
    """

    batches: int
    lag1: float
    index: float

    @property
    def clustered(self) -> bool:
        """Whether requests of one batch resemble one another, or neighbouring batches do: single batches may mislead.

        Level .1 for the index and 1.3 standard errors for the lag: a false alarm costs width only.
        """
        limit = float(stats.chi2.isf(_CLUSTER_LEVEL, self.batches - 1)) / (self.batches - 1)
        return self.index > limit or self.lag1 > _CLUSTER_LAG / np.sqrt(self.batches)

    @property
    def wanders(self) -> bool:
        """Whether an arm wanders for longer than a batch, so that batches are not independent stretches of time."""
        return self.clustered and self.lag1 > largest_lag(self.batches)


@dataclass(frozen=True)
class Scores:
    """A statistic at one scale of batches: values of t with `freedom` degrees of freedom, one for each candidate."""

    values: Floats
    freedom: float


def largest_lag(batches: int) -> float:
    """The lag-1 correlation above which batches are too short to stand for independent stretches of time.

    2.2 standard errors of a correlation that is none, so that noise voids few runs; 1.5 below 40 batches, where a claim
    then stays undecided instead.

    >>> round(largest_lag(15), 3), round(largest_lag(60), 3)
    (0.387, 0.284)
    """
    return float(_CLEAR_LAG[batches >= MANY] / np.sqrt(batches))


def inflation(lag1: float) -> float:
    """How much larger the variance of a sum is where neighbours are correlated: (1 + ρ)/(1 − ρ), at least 1.

    >>> inflation(0.5), inflation(-0.3)
    (3.0, 1.0)
    """
    positive = min(max(lag1, 0.0), 0.95)
    return (1 + positive) / (1 - positive)


def freedom_of(batches: int, lag1: float) -> float:
    """Degrees of freedom of the t quantile: one less than the batches' independent equivalent (Bartlett 1935).

    >>> freedom_of(15, 0.0), freedom_of(15, 0.5)
    (14.0, 8.0)
    """
    positive = min(max(lag1, 0.0), 0.95)
    return max(batches * (1 - positive**2) / (1 + positive**2) - 1, 1.0)


def lag_correlation(residuals: Floats) -> float:
    """The lag-1 correlation of batch residuals, with its bias of −1/B given back; 0 where they do not vary."""
    square = float((residuals**2).sum())
    if square == 0:
        return 0.0
    return float((residuals[1:] * residuals[:-1]).sum()) / square + 1 / residuals.size


def weather(residuals: Floats, independent: float) -> Weather:
    """How batch residuals hang together.

    Args:
        residuals: One number for each batch, summing to 0.
        independent: The variance of their sum if all requests were independent.
    """
    batches = residuals.size
    variance = float((residuals**2).sum()) * batches / (batches - 1)
    return Weather(batches, lag_correlation(residuals), variance / independent if independent > 0 else 1.0)


def scales(batches: int) -> list[int]:
    """How many batches go together: 2, 3, 4, 6, 9, … as long as four groups are left, three of fewer than 20 batches.

    >>> scales(15), scales(60)
    ([2, 3, 4], [2, 3, 4, 6, 9, 13])
    """
    found, size = [], 2
    while batches // size >= _FEWEST_GROUPS[batches >= _FEW]:
        found.append(size)
        size = size + 1 if size < 3 else int(size * 1.5)  # noqa: PLR2004 - 2, 3, then half as much again
    return found


def scored(difference: Floats, residuals: Floats, floor: Floats | float, seen: Weather) -> list[Scores]:
    """The statistics of candidates, at the scale of single batches and, where they cluster, at every coarser one.

    A claim must hold at every scale: then the variance is right at the scale that is long enough, whichever that is.

    Args:
        difference: Estimates less their null values, shape (m,).
        residuals: Batch residuals of the estimates, shape (batches, m).
        floor: The variance never falls below it: that of independent requests.
        seen: How the batches hang together.
    """
    batches = residuals.shape[0]
    square = (residuals**2).sum(axis=0) * (batches / (batches - 1)) * inflation(seen.lag1)
    found = [Scores(difference / np.sqrt(np.maximum(square, floor)), freedom_of(batches, seen.lag1))]
    if seen.clustered:
        for size in scales(batches):
            groups = batches // size
            sums = np.add.reduceat(residuals, np.arange(groups) * size, axis=0)
            variance = (sums**2).sum(axis=0) * (groups / (groups - 1))
            found.append(Scores(difference / np.sqrt(np.maximum(variance, floor)), groups - 1.0))
    return found
