"""Counts of rows, and what must be known to count them: whatever comes after works on counts, and counts add."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from experiments.core.journal import Period

JUDGED, WARM_UP, TRANSITION, UNFINISHED, OUTSIDE = "judged", "warm-up", "transition", "unfinished", "outside"
"""Whether a row counts. `unfinished`: issued after the last moment of which its load process recorded everything."""

OK = "ok"
LATE_US = 250_000
"""A request that starts later than this after its intended time shows a generator that cannot keep up."""

KEYS = (
    "standing",
    "period",
    "phase",
    "window",
    "cohort",
    "answered",
    "routed",
    "reason",
    "outcome",
    "stale",
    "over",
    "bin",
)
SUMS = ("n", "latency_us", "late")
_WAITED = ("phase", "answered", "bin")
_OF_ANSWERS = ["period", "phase", "window", "cohort", "answered", "over", "bin", "n", "latency_us"]


@dataclass(frozen=True)
class Plan:
    """What the tally must know beside the rows.

    `horizons`: by the index of a period, the moment from which its requests no longer count, whatever they waited.
    `limits_us`: latencies, from the intended start, beyond which answers are counted; a cell's `over` is how many of
    them its answers exceed.
    """

    arms: Sequence[str]
    periods: Sequence[Period]
    batch_seconds: dict[str, float]
    warm_until_us: int
    by_header: bool
    horizons: Mapping[int, int] = field(default_factory=dict)
    limits_us: Sequence[int] = ()


@dataclass(frozen=True)
class Tally:
    """Counts by `KEYS`: `n` requests, the sum of their latencies, and how many started late.

    Text of which a cell has one of a few may be categories: what is told apart by number is picked out many times
    faster. Where the latencies are added up, few cells are left, and it is text.

    `waited`: successful answers that count, `n` and the sum of their latencies by `phase`, `answered` and `bin`, all
    from the intended start; None where it was not counted.
    """

    cells: Any
    waited: Any = None

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            _sum([self.cells, other.cells], KEYS, SUMS),
            _sum(
                [one for one in (self.waited, other.waited) if one is not None],
                ("phase", "answered", "bin"),
                ("n", "latency_us"),
            ),
        )

    @cached_property
    def judged_by_bin(self) -> Any:
        """The cells that count, with their latency bins."""
        return self.cells[self.cells["standing"] == JUDGED]

    @cached_property
    def answers_by_bin(self) -> Any:
        """Of the cells that count, those of successful answers of known arm, with the columns that latency takes."""
        cells = self.judged_by_bin
        kept = cells[_OF_ANSWERS][(cells["outcome"] == OK) & (cells["answered"] != "")]
        return kept.astype(dict.fromkeys(("phase", "cohort", "answered"), "category"))

    @cached_property
    def judged(self) -> Any:
        """The cells that count, all latencies together: as small for a billion rows as for a thousand."""
        keys = [key for key in KEYS if key != "bin"]
        return _sum([self.judged_by_bin], keys, SUMS)

    def in_phase(self, phase: str) -> Any:
        """The judged cells of one phase, all latencies together."""
        return self._by_phase.get(phase, self.judged[:0])

    @cached_property
    def windows(self) -> dict[tuple[str, tuple[str, ...]], Any]:
        """Requests by window and arm, by phase and cohorts: each table is made once, by whoever asks first."""
        return {}

    @cached_property
    def _by_phase(self) -> Mapping[str, Any]:
        return dict(tuple(self.judged.groupby("phase")))


def _sum(tables: Sequence[Any], keys: Sequence[str], sums: Sequence[str]) -> Any:
    """Tables as one, added up, with text where they have categories."""
    if not tables:
        return None
    one = tables[0] if len(tables) == 1 else pd.concat(as_text(table) for table in tables)
    return as_text(one.groupby(list(keys), as_index=False, sort=True, observed=True)[list(sums)].sum())


def as_text(table: Any) -> Any:
    """A table with text where it has categories."""
    return table.astype(dict.fromkeys(table.columns[table.dtypes == "category"], "str"))
