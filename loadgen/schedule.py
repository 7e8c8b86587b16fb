"""The open-loop schedule: when which cohort asks with which payload, drawn from a seed, whatever the answers do.

Every draw is a pure function of (seed, stream, index), by SplitMix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014): no generator has a state that workers would have to share, and the
schedule does not change with the version of a library. Each of n load processes takes every n-th arrival.
"""

import itertools
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from experiments.core.profile import Profile

_CHUNK = 128
"""Drawn at once: few enough that no request waits for the drawing."""

_KEPT = 64
"""How many chunks are kept after they were drawn: word of another division of them may come late."""

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_TIME, _COHORT, _PAYLOAD = range(3)

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Chunk = tuple[Integers, Integers]
"""Sequence numbers and offsets of arrivals."""


class Arrival(NamedTuple):
    """One request of the schedule; `offset_us` is counted from the schedule's time zero."""

    sequence: int
    offset_us: int
    cohort: str
    payload: str


@dataclass(frozen=True)
class Schedule:
    """Everything that the arrivals depend on.

    Attributes:
        rates: Arrivals per second over time.
        pattern: `constant` (the first at once, then one whenever one more is expected; under one rate: equal gaps) or
            `poisson` (independent gaps; under one rate: exponential).
        seed: Any integer.
        shares: Cohort to its share of the arrivals; they sum to 1.
        payloads: Payload ids, each as likely as any other.
    """

    rates: Profile
    pattern: str
    seed: int
    shares: dict[str, float]
    payloads: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """The arrivals of one load process: the `index`-th of every `of`, and of those the chosen cohorts (None: all)."""

    index: int = 0
    of: int = 1
    cohorts: Collection[str] | None = field(default=None)


WHOLE = Part()
NOTHING = Part(cohorts=())


@dataclass(frozen=True)
class Since:
    """A part that holds from an offset on, until the next one does."""

    offset_us: int
    part: Part


class Arrivals:
    """The arrivals of one load process in order of time, looked at before they are taken; its part may change."""

    def __init__(self, schedule: Schedule, part: Part = WHOLE) -> None:
        self._schedule = schedule
        self._parts = [Since(0, part)]
        self._chunks = _chunks(schedule)
        self._recent: deque[Chunk] = deque()
        self._ahead: deque[Arrival] = deque()
        self._taken: set[int] = set()
        self._drawn_us = -1

    def peek(self) -> Arrival | None:
        """The next one; None where nothing more comes in this process's part as it is now."""
        while not self._ahead:
            if self._parts[-1].part == NOTHING and self._drawn_us >= self._parts[-1].offset_us:
                return None
            if len(self._recent) == _KEPT:
                self._taken.difference_update(self._recent.popleft()[0].tolist())
            self._recent.append(next(self._chunks))
            self._drawn_us = int(self._recent[-1][1][-1])
            self._ahead.extend(self._drawn(_own(self._schedule, self._recent[-1], self._parts)))
        return self._ahead[0]

    def take(self) -> Arrival:
        """The next one, where there is one; it will not come again."""
        self.peek()
        arrival = self._ahead.popleft()
        self._taken.add(arrival.sequence)
        return arrival

    def give_back(self, arrival: Arrival) -> None:
        """It was taken and not sent: it comes again, before all others."""
        self._taken.discard(arrival.sequence)
        self._ahead.appendleft(arrival)

    def redivide(self, parts: Sequence[Since]) -> None:
        """These parts hold, each from its offset on: what is not taken yet is given back, and may come from elsewhere.

        An offset may lie in the past: what this process should have taken since comes at once.
        """
        self._parts = list(parts)
        self._ahead.clear()
        taken = list(self._taken)
        for chunk in self._recent:
            sequences, offsets = _own(self._schedule, chunk, self._parts)
            left = ~np.isin(sequences, taken)
            self._ahead.extend(self._drawn((sequences[left], offsets[left])))

    def _drawn(self, chunk: Chunk) -> Iterator[Arrival]:
        names, payloads = list(self._schedule.shares), self._schedule.payloads
        sequences, offsets = chunk
        cohorts = [names[index] for index in _cohort_indices(self._schedule, sequences).tolist()]
        chosen = [payloads[index] for index in _payload_indices(self._schedule, sequences).tolist()]
        return itertools.starmap(Arrival, zip(sequences.tolist(), offsets.tolist(), cohorts, chosen, strict=True))


def arrivals(schedule: Schedule, part: Part = WHOLE) -> Iterator[Arrival]:
    """The arrivals of a part, in order of time, without end.

    >>> from experiments.core.profile import steady
    >>> first = arrivals(Schedule(steady(2.0), "constant", 1, {"everyone": 1.0}, ("cat",)))
    >>> next(first), next(first)
    (Arrival(sequence=0, offset_us=0, cohort='everyone', payload='cat'), \
Arrival(sequence=1, offset_us=500000, cohort='everyone', payload='cat'))
    """
    drawn = Arrivals(schedule, part)
    while True:
        yield drawn.take()


class DueCounter:
    """How many arrivals of a part are due by a time that never goes back; memory does not grow with the count."""

    def __init__(self, schedule: Schedule, part: Part = WHOLE) -> None:
        self._schedule = schedule
        self._parts = [Since(0, part)]
        self._chunks = _chunks(schedule)
        self._before = 0
        self._recent: deque[Chunk] = deque(maxlen=_KEPT)
        self._chunk = next(self._chunks)

    def due(self, offset_us: int) -> int:
        """Arrivals at or before `offset_us`."""
        while self._chunk[1][-1] <= offset_us:
            self._before += _own(self._schedule, self._chunk, self._parts)[0].size
            self._recent.append(self._chunk)
            self._chunk = next(self._chunks)
        offsets = _own(self._schedule, self._chunk, self._parts)[1]
        return self._before + int(np.searchsorted(offsets, offset_us, side="right"))

    def redivide(self, parts: Sequence[Since]) -> None:
        """These parts hold, each from its offset on, which may lie before the time that was last asked for."""
        counted = self._recently()
        self._parts = list(parts)
        self._before += self._recently() - counted

    def _recently(self) -> int:
        """Arrivals of the part in the chunks that are counted and kept."""
        return sum(_own(self._schedule, chunk, self._parts)[0].size for chunk in self._recent)


def _chunks(schedule: Schedule) -> Iterator[Chunk]:
    """All arrivals, chunk by chunk."""
    reached, start = 0.0, 0
    while True:
        sequences = np.arange(start, start + _CHUNK, dtype=np.int64)
        counts = _counts(schedule, sequences, reached)
        reached, start = float(counts[-1]), start + _CHUNK
        yield sequences, np.rint(schedule.rates.times(counts) * 1e6).astype(np.int64)


def _counts(schedule: Schedule, sequences: Integers, reached: float) -> npt.NDArray[np.float64]:
    """The points of a process of rate 1; `reached` is the one before the first of these."""
    if schedule.pattern == "constant":
        return sequences.astype(np.float64)
    gaps = -np.log1p(-uniforms(schedule.seed, _TIME, sequences))
    gaps[0] += reached
    return np.asarray(np.cumsum(gaps))


def _own(schedule: Schedule, chunk: Chunk, parts: Sequence[Since]) -> Chunk:
    """What belongs to the part in force at each arrival's time."""
    sequences, offsets = chunk
    taken = np.zeros(sequences.size, dtype=np.bool_)
    for since, until in itertools.zip_longest(parts, parts[1:]):
        holds = offsets >= since.offset_us if since is not parts[0] else np.ones(sequences.size, dtype=np.bool_)
        if until is not None:
            holds &= offsets < until.offset_us
        taken |= holds & _of_part(schedule, sequences, since.part)
    return sequences[taken], offsets[taken]


def _of_part(schedule: Schedule, sequences: Integers, part: Part) -> Mask:
    mine = sequences % part.of == part.index
    if part.cohorts is None or set(schedule.shares) <= set(part.cohorts):
        return np.asarray(mine)
    wanted = [index for index, name in enumerate(schedule.shares) if name in part.cohorts]
    return np.asarray(mine & np.isin(_cohort_indices(schedule, sequences), wanted))


def _cohort_indices(schedule: Schedule, sequences: Integers) -> npt.NDArray[np.intp]:
    ends = np.cumsum(list(schedule.shares.values()))
    found = np.searchsorted(ends / ends[-1], uniforms(schedule.seed, _COHORT, sequences), side="right")
    return np.asarray(found)


def _payload_indices(schedule: Schedule, sequences: Integers) -> Integers:
    return (uniforms(schedule.seed, _PAYLOAD, sequences) * len(schedule.payloads)).astype(np.int64)


def uniforms(seed: int, stream: int, indices: Integers) -> npt.NDArray[np.float64]:
    """Uniform in [0, 1), one for each index; 53 bits of SplitMix64."""
    start = splitmix64(seed * 8 + stream, np.zeros(1, np.int64))[0]
    return np.asarray((splitmix64(int(start), indices) >> np.uint64(11)) * 2.0**-53, np.float64)


def splitmix64(seed: int, indices: Integers) -> npt.NDArray[np.uint64]:
    """The outputs of SplitMix64 at positions `indices`, for a seed taken modulo 2⁶⁴."""
    z: Any = np.uint64(seed % 2**64) + (indices.astype(np.uint64) + np.uint64(1)) * _GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
