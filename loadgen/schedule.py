"""The open-loop schedule: when which cohort asks with which payload, drawn from a seed, whatever the answers do.

Every draw is a pure function of (seed, stream, index), by SplitMix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014): no generator has a state that workers would have to share, and the
schedule does not change with the version of a library. Each of n load processes takes every n-th arrival.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_CHUNK = 4096
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_TIME, _COHORT, _PAYLOAD = range(3)

Integers = npt.NDArray[np.int64]


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
        rate: Arrivals per second.
        pattern: `constant` (equal gaps, the first at 0) or `poisson` (exponential gaps).
        seed: Any integer.
        shares: Cohort to its share of the arrivals; they sum to 1.
        payloads: Payload ids, each as likely as any other.
    """

    rate: float
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


def arrivals(schedule: Schedule, part: Part = WHOLE) -> Iterator[Arrival]:
    """The arrivals of a part, in order of time, without end.

    >>> first = arrivals(Schedule(2.0, "constant", 1, {"everyone": 1.0}, ("cat",)))
    >>> next(first), next(first)
    (Arrival(sequence=0, offset_us=0, cohort='everyone', payload='cat'), \
Arrival(sequence=1, offset_us=500000, cohort='everyone', payload='cat'))
    """
    names, payloads = list(schedule.shares), schedule.payloads
    for sequences, offsets in _chunks(schedule, part):
        cohorts = _cohort_indices(schedule, sequences).tolist()
        chosen = _payload_indices(schedule, sequences).tolist()
        for sequence, offset, cohort, payload in zip(
            sequences.tolist(), offsets.tolist(), cohorts, chosen, strict=True
        ):
            yield Arrival(sequence, offset, names[cohort], payloads[payload])


class DueCounter:
    """How many arrivals of a part are due by a time that never goes back; memory does not grow with the count."""

    def __init__(self, schedule: Schedule, part: Part = WHOLE) -> None:
        self._chunks = _chunks(schedule, part)
        self._before = 0
        self._offsets = np.empty(0, np.int64)

    def due(self, offset_us: int) -> int:
        """Arrivals at or before `offset_us`."""
        while self._offsets.size == 0 or self._offsets[-1] <= offset_us:
            self._before += self._offsets.size
            self._offsets = next(self._chunks)[1]
        return self._before + int(np.searchsorted(self._offsets, offset_us, side="right"))


def _chunks(schedule: Schedule, part: Part) -> Iterator[tuple[Integers, Integers]]:
    """Sequence numbers and offsets of a part, chunk by chunk."""
    elapsed, start = 0.0, 0
    while True:
        sequences = np.arange(start, start + _CHUNK, dtype=np.int64)
        times = _times(schedule, sequences, elapsed)
        elapsed, start = float(times[-1]), start + _CHUNK
        taken = (sequences % part.of == part.index) & _wanted(schedule, sequences, part.cohorts)
        yield sequences[taken], np.rint(times[taken]).astype(np.int64)


def _times(schedule: Schedule, sequences: Integers, elapsed: float) -> npt.NDArray[np.float64]:
    """Offsets in microseconds, before rounding; `elapsed` is that of the arrival before the first of these."""
    if schedule.pattern == "constant":
        return (sequences * (1e6 / schedule.rate)).astype(np.float64)
    gaps = -np.log1p(-uniforms(schedule.seed, _TIME, sequences)) * (1e6 / schedule.rate)
    gaps[0] += elapsed
    return np.asarray(np.cumsum(gaps))


def _wanted(schedule: Schedule, sequences: Integers, cohorts: Collection[str] | None) -> npt.NDArray[np.bool_]:
    if cohorts is None:
        return np.ones(sequences.size, dtype=np.bool_)
    indices = [index for index, name in enumerate(schedule.shares) if name in cohorts]
    return np.isin(_cohort_indices(schedule, sequences), indices)


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
