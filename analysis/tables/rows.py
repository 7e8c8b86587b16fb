"""Typed values → the rows that a run has; what a table cannot say is left empty, never made up."""

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import xxhash

from analysis.answers import Answer
from analysis.rows import SCHEMA, Rows, ShardSummary
from analysis.tables.mapping import Mapping, Signature
from analysis.tables.values import Value
from experiments.core.records import COLUMNS, ShardHeader, Trailer

PAYLOAD = "(any)"
EVERYONE = "everyone"
UNKNOWN_OUTPUT = "the mapping names no arm for this output"


@dataclass(frozen=True)
class Table:
    """The requests of a table, the arms that it names, and what its distinct outputs are said to be."""

    rows: Rows
    digest: str
    named: tuple[str, ...]
    cohorts: tuple[str, ...]
    answers: tuple[Answer, ...]
    whole_seconds: bool

    @property
    def start_us(self) -> int:
        """When the first request was sent."""
        return int(self.rows.table["start_us"].to_numpy().min())

    @property
    def end_us(self) -> int:
        """Just after the last answer."""
        return self.rows.shards[0].watermark_us


def build(connection: duckdb.DuckDBPyConnection, found: list[Value], mapping: Mapping) -> Table:
    """The rows of `typed`, in an order that does not depend on the file's."""
    known = {value.name for value in found}
    read = connection.sql(f"SELECT {', '.join(_columns(known, mapping))} FROM typed ORDER BY ALL").to_arrow_table()  # noqa: S608
    n = read.num_rows
    columns = {
        "shard": pa.array(np.zeros(n, dtype=np.int32)),
        "sequence": pa.array(np.arange(n, dtype=np.int64)),
        "request_id": pa.repeat(pa.scalar("", pa.string()), n),
        "payload": pa.repeat(pa.scalar(PAYLOAD, pa.string()), n),
    }
    arrays = [columns[field.name] if field.name in columns else _array(read, field, n) for field in SCHEMA]
    table = pa.Table.from_arrays(arrays, schema=SCHEMA)
    return Table(
        rows=Rows(table, (_summary(table),)),
        digest=_digest(read),
        named=tuple(_distinct(read, "arm")) if "arm" in known else (),
        cohorts=tuple(_distinct(read, "cohort")),
        answers=_answers(read, mapping.signature),
        whole_seconds=not (read["at_us"].to_numpy() % 1_000_000).any(),
    )


def _columns(known: set[str], mapping: Mapping) -> list[str]:
    start = "at_us - latency_us" if mapping.time.at == "end" else "at_us"
    status = "status" if "status" in known else "200"
    failed = f"({'error' if 'error' in known else 'NULL'})"
    return [
        f"{start} AS start_us", "latency_us", "at_us", f"{status} AS status",
        f"{_error(failed, status)} AS error",
        f"coalesce({'cohort' if 'cohort' in known else 'NULL'}, '{EVERYONE}') AS cohort",
        f"{'arm' if 'arm' in known else 'NULL'} AS arm",
        f"{_route('arm' if 'arm' in known else 'NULL')} AS route",
        f"{'signature' if 'signature' in known else 'NULL'} AS signature",
    ]  # fmt: skip


def _error(text: str, status: str) -> str:
    """The class of a failure, as our own load process names it; None where the status says all.

    Texts of errors hold addresses and ports: they are no classes.
    """
    lowered = f"lower({text})"
    return f"""CASE
        WHEN {status} = 0 AND regexp_matches({lowered}, 'timeout|timed out|deadline') THEN 'timeout'
        WHEN {status} = 0 AND regexp_matches({lowered}, 'refused|no such host|dial|lookup') THEN 'connect'
        WHEN {status} = 0 AND regexp_matches({lowered}, 'reset|eof|closed') THEN 'reset'
        WHEN {status} = 0 THEN 'no-answer'
        WHEN {status} BETWEEN 200 AND 299 AND {text} IS NOT NULL THEN 'broken-answer'
    END"""


def _route(arm: str) -> str:
    """As a route header names an arm, without a phase."""
    return f"CASE WHEN {arm} IS NOT NULL THEN '/' || {arm} END"


def _array(read: pa.Table, field: pa.Field, n: int) -> pa.Array:
    if field.name in read.column_names:
        return read[field.name].cast(field.type).combine_chunks()
    return pa.array(np.zeros(n, dtype=np.int64)) if field.name == "response_bytes" else pa.nulls(n, field.type)


def _digest(read: pa.Table) -> str:
    """A hash of what was read, the same for any order of rows and any name of the file."""
    whole = xxhash.xxh3_128()
    for name in read.column_names:
        column = read[name].combine_chunks()
        if pa.types.is_integer(column.type):
            whole.update(name.encode() + column.cast(pa.int64()).to_numpy().tobytes())
        else:
            coded = column.cast(pa.string()).fill_null("\0").dictionary_encode()
            words = "\n".join(coded.dictionary.to_pylist())
            whole.update(f"{name}\0{words}\0".encode() + coded.indices.to_numpy().tobytes())
    return whole.hexdigest()


def _distinct(read: pa.Table, name: str) -> list[str]:
    return sorted(value for value in read[name].unique().to_pylist() if value is not None)


def _summary(table: pa.Table) -> ShardSummary:
    starts = table["start_us"].to_numpy()
    end = int((starts + table["latency_us"].to_numpy()).max())
    header = ShardHeader(
        schema=1, run="table", experiment_hash="", host="", pid=0, columns=COLUMNS, monotonic_us=0,
        wall_us=int(starts.min()), origin_us=int(starts.min()), mode="closed",
    )  # fmt: skip
    return ShardSummary(
        name="table", digest="", header=header, trailer=Trailer(end, table.num_rows, table.num_rows), last_beat=None,
        rows=table.num_rows, torn=False, gaps=0, repeated=0, last_end_us=end,
    )  # fmt: skip


def _answers(read: pa.Table, signature: Signature | None) -> tuple[Answer, ...]:
    """Whose each distinct output is."""
    if signature is None:
        return ()
    whose = {output: arm for arm, outputs in signature.arms.items() for output in outputs}
    found = _distinct(read, "signature")
    return tuple(
        Answer(PAYLOAD, output, whose.get(output, ""), "" if output in whose else UNKNOWN_OUTPUT) for output in found
    )
