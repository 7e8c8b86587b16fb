"""Rows → counts, in memory: every row's cell as one number, so that numbers in order are cells in order.

What a row counts for is said a second time in `analysis.query`, for wherever a database does the counting.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from analysis.answers import UNUSABLE, Answer
from analysis.rows import Rows
from analysis.stats.bins import bin_of
from analysis.tally import JUDGED, LATE_US, OK, OUTSIDE, TRANSITION, UNFINISHED, WARM_UP, Plan, Tally
from experiments.core.hypotheses import batch_seconds

Ints = npt.NDArray[np.int64]

_MANY = 1 << 40
"""Cells beyond which those that there are get new numbers: a number that is a cell must fit into 64 bits."""

_EXACT = 1 << 62
_ROUTE = re.compile(r"([^/]*)/(?:(.*)\Z)?")


@dataclass(frozen=True)
class Key:
    """One of the cells' columns: of each row a place among names, or numbers, that go up."""

    code: Ints
    names: Any

    def of(self, rows: Any) -> "Key":
        """The same of some rows."""
        return Key(self.code[rows], self.names)

    def at(self, rows: Any) -> Any:
        """The names of some rows: numbers as they are, text as categories."""
        if isinstance(self.names, np.ndarray):
            return self.names[self.code[rows]]
        if isinstance(self.names[0], str):
            return pd.Categorical.from_codes(self.code[rows], pd.Index(self.names, dtype="str"))
        return np.array(self.names, dtype=np.int64)[self.code[rows]]


@dataclass(frozen=True)
class Times:
    """Microseconds by row; `waited` is from the intended start, where there is one, else from the actual start."""

    start: Ints
    latency: Ints
    waited: Ints
    planned: npt.NDArray[np.bool_]

    @property
    def late(self) -> Ints:
        """1 for each that started too late."""
        return (self.waited - self.latency > LATE_US).astype(np.int64)


def tally(rows: Rows, answers: Sequence[Answer], plan: Plan) -> Tally:
    """Count the rows of a run.

    Args:
        rows: All of them.
        answers: What is known of their outputs.
        plan: What else must be known.
    """
    times = _times(rows.table)
    placed = _placed(times, plan)
    keys = {
        "standing": _standing(rows, times, placed, plan),
        **_of_periods(times, placed, plan),
        **_of_answers(rows.table, answers, placed, plan),
        "over": _numbers(sum(((times.waited >= limit).astype(np.int64) for limit in plan.limits_us), times.start * 0)),
        "bin": _numbers(bin_of(times.latency)),
    }
    whole = _Cells(keys)
    sums = {"n": whole.count, "latency_us": whole.sum(times.latency), "late": whole.sum(times.late)}
    return Tally(whole.table(sums), _waited(keys, times))


def _waited(keys: Mapping[str, Key], times: Times) -> Any:
    """`Tally.waited`."""
    counts = times.planned
    for name, value, wanted in (("standing", JUDGED, True), ("outcome", OK, True), ("answered", "", False)):
        counts = counts & ((np.array([each == value for each in keys[name].names])[keys[name].code]) == wanted)
    kept = {name: keys[name].of(counts) for name in ("phase", "answered")}
    waited = times.waited[counts]
    cells = _Cells({**kept, "bin": _numbers(bin_of(waited))})
    return cells.table({"n": cells.count, "latency_us": cells.sum(waited)})


class _Cells:
    """Rows by what they have in common."""

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self._keys = keys
        number, cells = np.zeros(1, dtype=np.int64), 1
        for key in keys.values():
            if cells * len(key.names) > _MANY:
                number, there = pd.factorize(number, sort=True)
                cells = len(there)
            number, cells = number * len(key.names) + key.code, cells * max(len(key.names), 1)
        self._cell, there = pd.factorize(number, sort=True)
        self._size = len(there)

    @property
    def count(self) -> Ints:
        """How many rows each cell has."""
        return np.bincount(self._cell, minlength=self._size)

    def sum(self, values: Ints) -> Any:
        """The sum over the rows of each cell; exact, unless 64 bits might not hold it."""
        exact = values.size == 0 or float(np.abs(values).max()) * values.size < _EXACT
        found = np.zeros(self._size, dtype=np.int64 if exact else np.float64)
        np.add.at(found, self._cell, values)
        return found

    def table(self, sums: Mapping[str, Any]) -> Any:
        """A line a cell, in order."""
        first = np.empty(self._size, dtype=np.int64)
        first[self._cell[::-1]] = np.arange(self._cell.size)[::-1]
        return pd.DataFrame({**{name: key.at(first) for name, key in self._keys.items()}, **sums})


def _times(table: pa.Table) -> Times:
    start, latency = (table[name].to_numpy() for name in ("start_us", "latency_us"))
    planned = table["intended_us"].is_valid().to_numpy()
    intended = np.where(planned, table["intended_us"].fill_null(0).to_numpy(), start)
    return Times(start, latency, start + latency - intended, planned)


def _placed(times: Times, plan: Plan) -> Ints:
    """Of each row the place of its period; −1 where it counts for none.

    A period stops counting at the start of the oldest request still in flight at its end: from there on only requests
    that were fast enough would be in it, which would favour the faster arm.
    """
    if not plan.periods:
        return np.full(times.start.size, -1)
    begins, ends = (np.array([getattr(one, name) for one in plan.periods]) for name in ("start_us", "end_us"))
    order = np.argsort(begins, kind="stable")
    last = order[np.searchsorted(begins[order], times.start, side="right") - 1]
    inside = (times.start >= begins[last]) & (times.start < ends[last])
    crossing = inside & (times.start + times.latency >= ends[last])
    cuts = np.array([plan.horizons.get(one.index, one.end_us) for one in plan.periods])
    np.minimum.at(cuts, last[crossing], times.start[crossing])
    return np.where(inside & (times.start < cuts[last]), last, -1)


def _standing(rows: Rows, times: Times, placed: Ints, plan: Plan) -> Key:
    words = [JUDGED, OUTSIDE, TRANSITION, UNFINISHED, WARM_UP]
    watermarks = np.array([shard.watermark_us for shard in rows.shards], dtype=np.int64)
    unfinished = times.start >= watermarks[rows.table["shard"].to_numpy()]
    first = min((period.start_us for period in plan.periods), default=None)
    since = np.zeros(times.start.size, dtype=bool) if first is None else times.start >= first
    conditions = [times.start < plan.warm_until_us, unfinished, placed >= 0, since]
    code = np.select(conditions, [words.index(word) for word in (WARM_UP, UNFINISHED, JUDGED, TRANSITION)], 1)
    return Key(code.astype(np.int64), words)


def _of_periods(times: Times, placed: Ints, plan: Plan) -> dict[str, Key]:
    phases = [period.phase for period in plan.periods]
    begins = np.array([*(period.start_us for period in plan.periods), 0])
    lengths = [plan.batch_seconds.get(phase) or batch_seconds(0) for phase in phases]
    batches = np.array([*(round(length * 1e6) for length in lengths), 1])
    window = np.where(placed >= 0, (times.start - begins[placed]) // batches[placed], -1)
    return {
        "period": _key(placed, [period.index for period in plan.periods], -1),
        "phase": _key(placed, phases, ""),
        "window": _numbers(window),
    }


def _of_answers(table: pa.Table, answers: Sequence[Answer], placed: Ints, plan: Plan) -> dict[str, Key]:
    """Who answered what, as the output and the route header say."""
    route, routes = _text(table["route"])
    said = [(found[1], found[2] or "") if (found := _ROUTE.match(text)) else ("", "") for text in routes]
    routed = _key(route, [arm if arm in plan.arms else "" for _, arm in said], "")
    known = _known(table, answers)
    answered = routed if plan.by_header else _key(known, [answer.arm for answer in answers], "")
    named = np.array([value != "" for value in answered.names], dtype=bool)[answered.code]
    phases = [period.phase for period in plan.periods]
    of_route, of_row = _key(route, [phase for phase, _ in said], ""), _key(placed, phases, "")
    same = np.array([[one in ("", other) for other in of_row.names] for one in of_route.names])
    stale = (placed >= 0) & ~same[of_route.code, of_row.code]
    cohort, cohorts = _text(table["cohort"])
    return {
        "cohort": _key(cohort, cohorts, ""),
        "answered": answered,
        "routed": routed,
        "reason": _reason(table, answers, known, named),
        "outcome": _outcome(table, answers, known),
        "stale": Key(stale.astype(np.int64), np.arange(2)),
    }


def _known(table: pa.Table, answers: Sequence[Answer]) -> Ints:
    """Of each row the place of its output among the answers; −1 where it has none, or one that was not kept."""
    places = {(answer.payload, answer.signature): place for place, answer in enumerate(answers)}
    (payload, payloads), (signature, signatures) = (_text(table[name]) for name in ("payload", "signature"))
    pair, pairs = pd.factorize(payload * (len(signatures) + 1) + signature + 1)
    each = [divmod(int(one), len(signatures) + 1) for one in pairs]
    found = [places.get((payloads[one], signatures[other - 1]), -1) if other else -1 for one, other in each]
    return _at(pair, found)


def _reason(table: pa.Table, answers: Sequence[Answer], known: Ints, named: Any) -> Key:
    """Why no arm is named."""
    texts = [*(answer.reason for answer in answers), "", "no output"]
    silent = ~table["signature"].is_valid().to_numpy()
    code = np.where(named, len(answers), np.where(silent, len(answers) + 1, known))
    return _key(code, texts, "output not kept")


def _outcome(table: pa.Table, answers: Sequence[Answer], known: Ints) -> Key:
    """`ok`, the error class that the load process recorded, what is wrong with the output, or the status."""
    error, errors = _text(table["error"])
    status, statuses = pd.factorize(table["status"].to_numpy())
    served = np.array([200 <= one <= 299 for one in statuses], dtype=bool)[status]  # noqa: PLR2004 - success in HTTP
    wrong = np.array([*(answer.reason in UNUSABLE for answer in answers), False])[known]
    texts = [*errors, *(answer.reason for answer in answers), OK, *(f"http-{one}" for one in statuses)]
    fine = len(errors) + len(answers)
    other = np.where(served, np.where(wrong, len(errors) + known, fine), fine + 1 + status)
    return _key(np.where(error >= 0, error, other), texts, "")


def _text(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Of each row a place among the texts; −1 where there is none."""
    whole = column.combine_chunks()
    coded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    return coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), coded.dictionary.to_pylist()


def _key(place: Ints, values: Sequence[Any], default: Any) -> Key:
    """The values at some places, of which −1 is the default's.

    >>> found = _key(np.array([1, -1, 0]), ["b", "a"], "")
    >>> found.names, found.code.tolist()
    (['', 'a', 'b'], [1, 0, 2])
    """
    every = [*values, default]
    ordered = sorted(set(every))
    codes = {value: code for code, value in enumerate(ordered)}
    return Key(_at(place, [codes[value] for value in every]), ordered)


def _at(place: Ints, numbers: Sequence[int]) -> Ints:
    found: Ints = np.array(numbers, dtype=np.int64)[place]
    return found


def _numbers(values: Any) -> Key:
    return Key(*pd.factorize(values, sort=True))
