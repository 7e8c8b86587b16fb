"""The variance of a sum whose parts come in time: batches, their correlation, and coarser batches where it matters.

Requests near one another in time are not independent: queues and garbage collection slow an arm for seconds. Batches of
time are nearly independent if they are long against that. Where they hang together, the variance is that of the longest
wandering that they cannot exclude: the fewer the batches, the wider the interval. Where they cannot exclude a wandering
without end, nothing can be said. Calibrated in benchmarks/calibration/latency.py.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]

MANY = 40
"""From this many batches on, a correlation between neighbours is a property of the run, not of having too few."""

ENDLESS = 0.95
"""A correlation of neighbours that cannot be told from wandering without end: (1 + ρ)/(1 − ρ) would be 39."""

_UNSEEN = {True: 1.0, False: 1.15}
"""How much wider an interval is than its batches ask for: below 40 of them, a slow wandering of a third of the variance
hides in the noise of single requests, and nothing that can be computed from the run would show it."""

_FEWEST_GROUPS = {True: 4, False: 3}
_FEW = 20
_CLUSTER_LEVEL = {True: 0.1, False: 0.3}
_CLEAR_LEVEL = 0.1
_CLUSTER_LAG = 1.3
_WANDER_LAG = 1.5
_LEAST_COMMON = 0.5


@dataclass(frozen=True)
class Weather:
    """How the residuals of `batches` hang together.

    `lag1` is the correlation of neighbours; `index` the variance of batches against that of independent requests;
    `errors` the standard errors above the correlation seen up to which one cannot be excluded.
    """

    batches: int
    lag1: float
    index: float
    errors: float = 1.0

    @property
    def spreads(self) -> bool:
        """Whether batches differ by more than independent requests make them: at level .1, .3 below 40 batches.

        Few batches miss it easily, and a miss errs; a false alarm costs width only.
        """
        return self.index > self._limit(_CLUSTER_LEVEL[self.batches >= MANY])

    @property
    def clustered(self) -> bool:
        """Whether requests of one batch resemble one another, or neighbouring batches do: single batches may mislead.

        Neighbours do from 1.3 standard errors of a correlation that is none.
        """
        return bool(self.spreads or self.lag1 > _CLUSTER_LAG / np.sqrt(self.batches))

    @property
    def largest_lag(self) -> float:
        """The correlation of neighbours that the batches cannot exclude: `errors` above what was seen."""
        return max(self.lag1 + (self.errors / float(np.sqrt(self.batches)) if self.clustered else 0.0), 0.0)

    def excluding(self, level: float) -> "Weather":
        """The same where only what would show so little with a chance of `level` or less is excluded: Student's t."""
        return replace(self, errors=-float(special.stdtrit(max(self.batches - 2, 1), level)))

    def unnoticed(self, level: float) -> float:
        """The variance of batches, against that of independent requests, that so few of them would hardly notice.

        Batches of independent requests seem to vary by more with a chance of `level`.
        """
        return self._limit(level) if self.batches > 1 else 1.0

    @property
    def common(self) -> float:
        """The part of the spread that requests of a batch have in common: what wanders. The rest is theirs alone.

        At least half, so that little is made of a spread that is hardly larger than single requests'; all of it where
        batches do not clearly (level .1) differ by more than those.
        """
        return max(1 - 1 / self.index, _LEAST_COMMON) if self.index > self._limit(_CLEAR_LEVEL) else 1.0

    def _limit(self, level: float) -> float:
        """The index that independent requests exceed with this probability."""
        return float(special.chdtri(self.batches - 1, level)) / (self.batches - 1)

    @property
    def persistence(self) -> float:
        """The largest correlation of neighbours of the common part, which alone wanders."""
        return min(self.largest_lag / self.common, ENDLESS)

    @property
    def inflation(self) -> float:
        """How much larger the variance of the sum may be than that of independent batches."""
        return 1 - self.common + self.common * inflation(self.persistence)

    @property
    def worth(self) -> float:
        """How many independent requests one of these is worth, as it looks: 1 where they do not cluster."""
        if not self.clustered:
            return 1.0
        return 1 / max(self.index * (1 - self.common + self.common * inflation(self.lag1 / self.common)), 1.0)

    @property
    def least_worth(self) -> float:
        """The same for the longest wandering that the batches cannot exclude; fewer than 40 take their 15 % off."""
        ratio = max(self.index * self.inflation, 1.0) if self.clustered else 1.0
        return 1 / (ratio * _UNSEEN[self.batches >= MANY] ** 2)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of a variance from these batches."""
        return freedom_of(self.batches, self.persistence)

    @property
    def wanders(self) -> bool:
        """Whether an arm seems to wander for longer than a batch: intervals are then wide for that reason."""
        return bool(self.clustered and self.lag1 > _WANDER_LAG / np.sqrt(self.batches))

    @property
    def may_wander(self) -> bool:
        """Whether the batches, few as they are, cannot exclude that what they have in common wanders on and on."""
        return self.clustered and self.persistence >= ENDLESS

    @property
    def endless(self) -> bool:
        """Whether the batches cannot exclude a wandering without end, so that nothing can be said."""
        return self.clustered and self.largest_lag >= ENDLESS

    @property
    def least(self) -> float:
        """What batches vary at least against independent requests: 1, and more where they wander."""
        return min(self.index, 1e12) if self.wanders and self.index > 1 else 1.0

    def beside(self, spells: "Weather") -> "Weather":
        """With neighbours as alike as another statistic of the same batches shows them to be, where that wanders."""
        return replace(self, lag1=max(self.lag1, spells.lag1)) if spells.wanders else self


@dataclass(frozen=True)
class Scores:
    """A statistic at one scale of batches: values of t with `freedom` degrees of freedom, one for each candidate."""

    values: Floats
    freedom: float


def _known(lag1: float) -> float:
    """Within [0, `ENDLESS`]; what is no number may be without end."""
    return ENDLESS if np.isnan(lag1) else min(max(lag1, 0.0), ENDLESS)


def inflation(lag1: float) -> float:
    """How much larger the variance of a sum is where neighbours are correlated: (1 + ρ)/(1 − ρ), at least 1.

    For a first-order autoregression; what wanders in another way, or without end, breaks it: then `ENDLESS` is taken.
    Source: Bartlett 1946, Supplement to the Journal of the Royal Statistical Society 8.

    >>> inflation(0.5), inflation(-0.3)
    (3.0, 1.0)
    """
    positive = _known(lag1)
    return (1 + positive) / (1 - positive)


def freedom_of(batches: int, lag1: float) -> float:
    """Degrees of freedom of the t quantile: one less than the batches' independent equivalent (Bartlett 1935).

    >>> freedom_of(15, 0.0), freedom_of(15, 0.5)
    (14.0, 8.0)
    """
    positive = _known(lag1)
    return max(batches * (1 - positive**2) / (1 + positive**2) - 1, 1.0)


def lag_correlation(residuals: Floats) -> float:
    """The lag-1 correlation of batch residuals, with its bias of −1/B given back; 0 where they do not vary.

    Where one is not finite it cannot be told, and is taken for 1. The bias: Marriott & Pope 1954, Biometrika 41.

    >>> round(lag_correlation(np.array([1.0, -1.0] * 20)), 6)
    -0.95
    """
    square = float((residuals**2).sum())
    if residuals.size < 2 or square == 0:  # noqa: PLR2004 - neighbours are two
        return 0.0
    if not np.isfinite(square):
        return 1.0
    return float((residuals[1:] * residuals[:-1]).sum()) / square + 1 / residuals.size


def weather(residuals: Floats, independent: float) -> Weather:
    """How batch residuals hang together.

    Args:
        residuals: One number for each batch, summing to 0.
        independent: The variance of their sum if all requests were independent.

    Turns are not clustered, and neighbours that are alike are; fewer than two batches say nothing.

    >>> weather(np.array([1.0, -1.0] * 20), 40.0).clustered, weather(np.repeat([1.0, -1.0], 20), 40.0).endless
    (False, True)
    """
    batches = residuals.size
    if batches < 2:  # noqa: PLR2004 - a variance takes two
        return Weather(batches, 0.0, 1.0)
    variance = float((residuals**2).sum()) * batches / (batches - 1)
    if not (np.isfinite(variance) and np.isfinite(independent)):
        return Weather(batches, 1.0, np.inf)
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

    A claim must hold at every scale: the variance of single batches is widened for the longest wandering that they
    cannot exclude, and that of coarser ones is right where they are long enough, whatever the wandering is like. With
    fewer than 40 batches all are 15 % wider.

    Args:
        difference: Estimates less their null values, shape (m,).
        residuals: Batch residuals of the estimates, shape (batches, m).
        floor: The variance never falls below it: that of independent requests.
        seen: How the batches hang together.

    >>> one = scored(np.ones(1), np.full((40, 1), 0.1), 0.04, weather(np.array([1.0, -1.0] * 20), 40.0))
    >>> len(one), round(float(one[0].values[0]), 3), one[0].freedom
    (1, 1.561, 39.0)
    """
    batches = residuals.shape[0]
    difference = difference / _UNSEEN[batches >= MANY]
    square = (residuals**2).sum(axis=0) * (batches / (batches - 1)) * seen.inflation
    found = [Scores(difference / np.sqrt(np.maximum(square, floor)), seen.freedom)]
    if seen.clustered:
        for size in scales(batches):
            groups = batches // size
            sums = np.add.reduceat(residuals, np.arange(groups) * size, axis=0)
            variance = (sums**2).sum(axis=0) * (groups / (groups - 1))
            found.append(Scores(difference / np.sqrt(np.maximum(variance, floor)), groups - 1.0))
    return found
