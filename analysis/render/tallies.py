"""Tally → CSV and Parquet for people's own notebooks: a line for each cell of counts, units in the columns' names."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from analysis.judge import Examined
from analysis.stats.bins import lower_edge, middle
from experiments.core.hypotheses import batch_seconds

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_WORDS = ("standing", "phase", "cohort", "answered", "routed", "reason", "outcome")
_FLOATS = {"window_start_s", "latency_from_us", "latency_middle_us"}
_COLUMNS = (
    *("run", "standing", "phase", "period", "window", "window_start_s", "cohort", "answered", "routed", "reason"),
    *("outcome", "stale_route", "latency_from_us", "latency_middle_us", "requests", "latency_sum_us", "late_requests"),
)
_KINDS = {**dict.fromkeys(("run", *_WORDS), pa.string()), **dict.fromkeys(_FLOATS, pa.float64())}
_SCHEMA = pa.schema([(name, _KINDS.get(name, pa.int64())) for name in _COLUMNS])
"""Said, not found out: a run of no request has the same columns."""


def tally_table(examined: Examined) -> pa.Table:
    """The counts of a run.

    Columns: `standing` (judged, warm-up, transition, unfinished, outside), `phase`, `period`, `window`,
    `window_start_s` (from the schedule's time zero), `cohort`, `answered` and `routed` (arms, empty where unknown),
    `reason` (why no arm answered), `outcome` (ok or the kind of failure), `stale_route`, `latency_from_us` and
    `latency_middle_us` (of the bin), `requests`, `latency_sum_us`, `late_requests`. The first column of a run in a
    table of several is `run`.
    """
    return _coded(examined).cast(_SCHEMA)


def _coded(examined: Examined) -> pa.Table:
    """The same, with text as codes where the counts have it so."""
    cells = examined.evidence.tally.cells
    bins = cells["bin"].to_numpy(dtype=np.int64)
    columns: dict[str, Any] = {
        "run": pa.repeat(examined.report.subject.run, len(cells)),
        "standing": cells["standing"],
        "phase": cells["phase"],
        "period": cells["period"],
        "window": cells["window"],
        "window_start_s": _window_starts(examined, cells),
        "cohort": cells["cohort"],
        "answered": cells["answered"],
        "routed": cells["routed"],
        "reason": cells["reason"],
        "outcome": cells["outcome"],
        "stale_route": cells["stale"],
        "latency_from_us": lower_edge(bins),
        "latency_middle_us": middle(bins),
        "requests": cells["n"],
        "latency_sum_us": cells["latency_us"].astype("int64"),
        "late_requests": cells["late"].astype("int64"),
    }
    arrays = [pa.array(columns[name], from_pandas=True) for name in _COLUMNS]
    return pa.table(arrays, names=list(_COLUMNS))


def _window_starts(examined: Examined, cells: Any) -> Any:
    starts = {line.index: line.start_s for line in examined.report.periods}
    registered = examined.evidence.registered.batch_seconds
    lengths = {phase: registered.get(phase) or batch_seconds(0) for phase in cells["phase"].unique()}
    start = cells["period"].map(starts).astype("float64")
    return (start + cells["window"] * cells["phase"].map(lengths).astype("float64")).round(6)


def render_csv(examined: Examined) -> bytes:
    """The counts as CSV; text that a spreadsheet would take for a formula gets an apostrophe before it."""
    table = _coded(examined)
    for name in ("run", *_WORDS):
        place = table.schema.get_field_index(name)
        column = table.column(place).dictionary_encode().combine_chunks()
        words = pa.array([_no_formula(word) for word in column.dictionary.to_pylist()], type=pa.string())
        table = table.set_column(place, name, pa.DictionaryArray.from_arrays(column.indices, words).dictionary_decode())
    target = io.BytesIO()
    pa_csv.write_csv(table.cast(_SCHEMA), target)
    return target.getvalue()


def _no_formula(text: str | None) -> str | None:
    """Text that stays text in a spreadsheet.

    >>> _no_formula("=1+1"), _no_formula("plain")
    ("'=1+1", 'plain')
    """
    return f"'{text}" if text and text.startswith(_FORMULA) else text


def render_parquet(examined: Examined) -> bytes:
    """The counts as Parquet."""
    target = io.BytesIO()
    pq.write_table(tally_table(examined), target, compression="zstd")
    return target.getvalue()
