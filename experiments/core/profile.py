"""The rate of arrivals over time: pieces that hold a rate or ramp from one to another; counts and times under it.

Arrivals of any pattern follow by a change of time: the k-th point of a process of rate 1 happens when the expected
count reaches that point (Çinlar, "Introduction to Stochastic Processes", 1975, section 4.7).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.core.spec import Experiment, Load, Phase

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """A time over which the rate goes straight from `first` to `last` (arrivals per second); the last has no end."""

    first: float
    last: float
    seconds: float = math.inf

    def expected(self, elapsed: float) -> float:
        """Expected arrivals in the first `elapsed` seconds of it."""
        if math.isinf(self.seconds):
            return self.first * elapsed
        elapsed = min(elapsed, self.seconds)
        return elapsed * (self.first + (self.last - self.first) * elapsed / (2 * self.seconds))


@dataclass(frozen=True)
class Profile:
    """Pieces one after another, from time zero of the schedule; the last one holds its rate without end."""

    pieces: tuple[Piece, ...]

    def expected(self, seconds: float) -> float:
        """Expected arrivals from time zero until then.

        >>> Profile((Piece(0, 10, 4), Piece(10, 10))).expected(5)
        30.0
        """
        total, left = 0.0, max(seconds, 0.0)
        for piece in self.pieces:
            total += piece.expected(left)
            left -= piece.seconds
            if left <= 0:
                break
        return total

    def times(self, counts: Floats) -> Floats:
        """The seconds at which the expected count reaches each of `counts` (0 or more).

        >>> Profile((Piece(0, 10, 4), Piece(10, 10))).times(np.array([0.0, 5.0, 20.0, 30.0])).tolist()
        [0.0, 2.0, 4.0, 5.0]
        """
        starts, before = self._edges()
        index = np.searchsorted(before[1:], counts, side="right")
        rates = np.array([piece.first for piece in self.pieces])[index]
        slopes = np.array([(piece.last - piece.first) / piece.seconds for piece in self.pieces])[index]
        more = counts - before[index]
        # The root of rate·x + slope·x²/2 = more that loses no digits; what is under the square root is rate² at x.
        reached = np.sqrt(np.maximum(rates * rates + 2 * slopes * more, 0.0))
        within = np.divide(2 * more, rates + reached, out=np.zeros_like(more), where=more > 0)
        return np.asarray(starts[index] + within)

    def _edges(self) -> tuple[Floats, Floats]:
        """When each piece starts, and the expected count there."""
        ended = self.pieces[:-1]
        starts = np.cumsum([0.0, *(piece.seconds for piece in ended)])
        return starts, np.cumsum([0.0, *(piece.expected(piece.seconds) for piece in ended)])


def steady(rate: float) -> Profile:
    """One rate without end."""
    return Profile((Piece(rate, rate),))


def profile(load: Load) -> Profile:
    """The rates of a load. Its steps are counted from the end of warm-up, during which the first one's rate holds."""
    if not load.steps:
        return steady(load.rate)
    return Profile(tuple(_pieces(load)))


def _pieces(load: Load) -> Iterator[Piece]:
    start = load.steps[0].arrivals[0]
    if load.warmup:
        yield Piece(start, start, load.warmup)
    for step in load.steps:
        if step.duration is not None:
            yield Piece(*step.arrivals, step.duration)
    end = load.steps[-1].arrivals[1]
    yield Piece(end, end)


def expected_requests(experiment: Experiment, phase: Phase) -> float:
    """Arrivals of a phase, if every phase before it lasts as long as it should; warm-up takes nothing off the first."""
    rates = profile(experiment.load)
    start = experiment.load.warmup + sum(_durations_before(experiment.phases, phase))
    return rates.expected(start + phase.duration) - rates.expected(start)


def _durations_before(phases: Sequence[Phase], phase: Phase) -> Iterator[float]:
    for each in phases:
        if each.name == phase.name:
            return
        yield each.duration


def mean_rate(experiment: Experiment) -> float:
    """Arrivals per second over all phases."""
    seconds = sum(phase.duration for phase in experiment.phases)
    return sum(expected_requests(experiment, phase) for phase in experiment.phases) / seconds
