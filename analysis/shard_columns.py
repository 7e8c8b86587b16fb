"""A shard's rows → Arrow columns without an object for each: a row as it was written is nearly a line of CSV.

Only lines that are just what an appender writes are read this way: a pattern looks at every byte of each. Anything
else, be it damaged or only escaped, leaves the whole shard to the careful reader, which tells the two apart.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from experiments.core.errors import RecordsError
from experiments.core.records import Beat, Row, ShardHeader, Trailer, decode_header, decode_line, read_shard

FEW = pa.dictionary(pa.int32(), pa.string())
"""Text of which a run has few different ones: they are told apart once, not in each row."""

COLUMNS = pa.schema(
    [
        ("sequence", pa.int64()),
        ("request_id", pa.string()),
        ("cohort", FEW),
        ("payload", FEW),
        ("intended_us", pa.int64()),
        ("start_us", pa.int64()),
        ("latency_us", pa.int64()),
        ("status", pa.int32()),
        ("signature", FEW),
        ("error", FEW),
        ("route", FEW),
        ("upstream_us", pa.int64()),
        ("pod", FEW),
        ("response_bytes", pa.int64()),
        ("first_byte_us", pa.int64()),
        ("attempts", pa.int32()),
    ]
)
_NEVER_EMPTY = {"sequence", "request_id", "cohort", "payload", "start_us", "latency_us", "status", "response_bytes"}
_BLOCK, _PIECE = 2 << 20, 4 << 10
_OPENING, _SPACE, _COMMA = b"[ ,"
_REST = ""
"""The column of what stands after a row's last comma: nothing."""

_TEXT, _INTEGER = r'"[^"\\\x00-\x1f\x7f]*"', r"-?(?:0|[1-9][0-9]{0,15})"


@dataclass(frozen=True)
class ShardColumns:
    """A shard with its rows as a table of `COLUMNS`; the rest as `experiments.core.records.Shard` has it."""

    path: Path
    header: ShardHeader
    table: pa.Table
    beats: list[Beat]
    trailer: Trailer | None
    torn: bool


class _Unusual(Exception):  # noqa: N818 - no error: something for the careful reader
    """A line is not as an appender writes it."""


def read_columns(path: Path) -> ShardColumns:
    """A shard with all its whole lines, as `experiments.core.records.read_shard` reads it.

    Raises:
        RecordsError: it is empty, foreign, of a newer schema, or damaged before its last line.
    """
    try:
        return _quickly(path)
    except (_Unusual, RecordsError, pa.ArrowException):
        shard = read_shard(path)
        return ShardColumns(path, shard.header, columns(shard.rows), shard.beats, shard.trailer, shard.torn)


def columns(rows: list[Row]) -> pa.Table:
    """Rows as columns."""
    values = zip(*map(msgspec.structs.astuple, rows), strict=True) if rows else ((),) * len(COLUMNS)
    made = [_column(column, field.type) for column, field in zip(values, COLUMNS, strict=True)]
    return pa.Table.from_arrays(made, schema=COLUMNS)


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    return pa.array(values, type=pa.string()).dictionary_encode() if kind == FEW else pa.array(values, type=kind)


def _quickly(path: Path) -> ShardColumns:
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        edges = _edges(descriptor)
        header = decode_header(path, os.pread(descriptor, edges[0] - 1, 0))

        def read(span: tuple[int, int]) -> tuple[pa.Table, list[Any]]:
            return _block(path, os.pread(descriptor, span[1] - span[0], span[0]))

        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            found = list(pool.map(read, pairwise(edges)))
        torn = edges[-1] != os.fstat(descriptor).st_size
    table = pa.concat_tables([COLUMNS.empty_table(), *(rows for rows, _ in found)]).unify_dictionaries()
    others = [item for _, items in found for item in items]
    beats = [item for item in others if isinstance(item, Beat)]
    trailers = [item for item in others if isinstance(item, Trailer)]
    return ShardColumns(path, header, table, beats, trailers[-1] if trailers else None, torn=torn)


def _edges(descriptor: int) -> list[int]:
    """Where blocks of whole lines begin, the first after the header, and where the last of them ends.

    A block is read by the thread that takes it to pieces: a whole file in memory is time spent on getting the memory.
    """
    edges: list[int] = []
    after = _after_line(descriptor, 0)
    while after is not None:
        edges.append(after)
        after = _after_line(descriptor, after + _BLOCK)
    if not edges:
        raise _Unusual
    rest = os.pread(descriptor, os.fstat(descriptor).st_size - edges[-1], edges[-1])
    end = edges[-1] + rest.rfind(b"\n") + 1
    return [*edges, end] if end > edges[-1] else edges


def _after_line(descriptor: int, at: int) -> int | None:
    """Where a line begins that does so after this place; None after the last."""
    while piece := os.pread(descriptor, _PIECE, at):
        found = piece.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(piece)
    return None


def _block(path: Path, block: bytes) -> tuple[pa.Table, list[Any]]:
    """The rows of some lines, and what the other lines say."""
    starts = _line_starts(block)
    ends = np.append(starts[1:], len(block))
    others = np.flatnonzero(np.frombuffer(block, dtype=np.uint8)[starts] != _OPENING)
    said = [decode_line(path, 0, block[starts[at] : ends[at] - 1]) for at in others]
    if others.size:
        firsts, lasts = np.append(0, ends[others]), np.append(starts[others], len(block))
        block = b"".join(block[first:last] for first, last in zip(firsts, lasts, strict=True))
        starts = _line_starts(block)
    return _rows(block, starts) if block else COLUMNS.empty_table(), said


def _line_starts(block: bytes) -> Any:
    """Where the lines of a block begin."""
    ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n"))
    return np.append(0, ends[:-1] + 1)


def _rows(block: bytes, starts: Any) -> pa.Table:
    """The rows of lines that are all rows of one length; an older writer left out the last columns."""
    written = block[: block.find(b"\n")].count(b",") + 1
    if not all(field.name not in _NEVER_EMPTY for field in list(COLUMNS)[written:]):
        raise _Unusual
    edges = np.append(starts, len(block)).astype(np.int32)
    lines = pa.StringArray.from_buffers(starts.size, pa.py_buffer(edges), pa.py_buffer(block))
    if not pc.all(pc.match_substring_regex(lines, _pattern(written))).as_py():
        raise _Unusual
    return _parsed(_as_csv(block, edges), written)


def _as_csv(block: bytes, edges: Any) -> Any:
    """The same bytes with each row's brackets gone: a space before its first number, a last column of nothing."""
    bytes_ = np.frombuffer(block, dtype=np.uint8).copy()
    bytes_[edges[:-1]] = _SPACE
    bytes_[edges[1:] - 2] = _COMMA
    return bytes_


def _pattern(written: int) -> str:
    """A line of so many columns, its end included."""
    parts = []
    for field in list(COLUMNS)[:written]:
        kind = _INTEGER if pa.types.is_integer(field.type) else _TEXT
        parts.append(kind if field.name in _NEVER_EMPTY else f"(?:{kind}|null)")
    return rf"^\[{','.join(parts)}\]\n$"


def _parsed(lines: Any, written: int) -> pa.Table:
    """The columns of CSV lines; those that were not written are empty."""
    table = pa_csv.read_csv(
        pa.py_buffer(lines),
        read_options=pa_csv.ReadOptions(
            use_threads=False, column_names=[*COLUMNS.names[:written], _REST], block_size=len(lines) + 1
        ),
        parse_options=pa_csv.ParseOptions(double_quote=False),
        convert_options=pa_csv.ConvertOptions(
            column_types=COLUMNS,
            include_columns=COLUMNS.names[:written],
            null_values=["null"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    for field in list(COLUMNS)[written:]:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.cast(COLUMNS)
