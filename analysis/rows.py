"""Shards → requests.parquet: derived, stamped with what it was made from, made anew when that differs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from analysis.shard_columns import COLUMNS, FEW, ShardColumns, columns, read_columns
from analysis.uncollected import uncollected
from experiments.core.errors import RecordsError
from experiments.core.records import Beat, Row, RunDir, RunInfo, ShardHeader, Trailer

DERIVED = "requests.parquet"
_STAMP = b"splitproof"
_BLOCK = 1 << 20
_FEW = [field.name for field in COLUMNS if field.type == FEW]
_STEADY = dict.fromkeys(("sequence", "intended_us", "start_us"), "DELTA_BINARY_PACKED")
"""What goes up by small steps: a fraction of the bytes, in less time than compressing them takes."""

_VERSION = 4
"""Raised when what is derived from a shard changes, so that older files are made anew."""

_NUMBER = pa.field("shard", pa.int32())
SCHEMA = pa.schema([_NUMBER, *(field.with_type(pa.string()) if field.type == FEW else field for field in COLUMNS)])
"""The columns of rows; those of a whole run hold text of which there are few different ones as `FEW`."""


BUSY = 0.9
"""Share of a core from which on a process has no time to spare."""

LAGGING_US = 100_000
"""What an event loop may keep waiting in a second: more of it is the generator's own latency, not the service's."""


class Effort(msgspec.Struct, frozen=True):
    """What the beats of a shard say of its process: see `experiments.core.records.Beat`.

    `beats` are about as many as seconds, `busy` those with next to no CPU to spare, `lagging` those whose event loop
    kept something waiting for `LAGGING_US` or more; `lag_us` and `backlog` are the worst; `clock_moved_us` is how far
    the wall clock moved. `due` is what the schedule asked of it (None in a closed loop), in `seconds`.
    """

    beats: int = 0
    busy: int = 0
    lag_us: int = 0
    backlog: int = 0
    sent: int = 0
    starved: int = 0
    queued: int = 0
    clock_moved_us: int = 0
    lagging: int = 0
    due: int | None = None
    seconds: float = 0.0


def effort(header: ShardHeader, beats: Sequence[Beat], trailer: Trailer | None) -> Effort:
    """The beats of a shard in a few numbers; the trailer's counts go before the last beat's."""
    if not beats:
        return Effort()
    last = trailer or beats[-1]
    due = trailer.scheduled if trailer else (beats[-1].sent or 0) + beats[-1].backlog
    seconds = 0.0 if header.origin_us is None else max(last.at_us - header.origin_us, 0) / 1e6
    offsets = [beat.wall_us for beat in beats]
    return Effort(
        beats=sum(beat.cpu is not None or not beat.users for beat in beats),
        busy=sum((beat.cpu or 0) >= BUSY for beat in beats),
        lag_us=max(beat.lag_us or 0 for beat in beats),
        backlog=max(beat.backlog for beat in beats),
        sent=trailer.scheduled - trailer.never_sent
        if trailer and trailer.scheduled is not None
        else max(beat.sent or 0 for beat in beats),
        starved=last.starved,
        queued=last.queued,
        clock_moved_us=max(offsets) - min(offsets),
        lagging=sum((beat.lag_us or 0) >= LAGGING_US for beat in beats),
        due=due if header.mode == "open" else None,
        seconds=seconds,
    )


class ShardSummary(msgspec.Struct, frozen=True):
    """What a shard says beside its rows, and what its sequence numbers say about rows that are missing.

    `gaps` counts numbers of its own stride that it never wrote, up to its last one; `repeated` those written twice.
    """

    name: str
    digest: str
    header: ShardHeader
    trailer: Trailer | None
    last_beat: Beat | None
    rows: int
    torn: bool
    gaps: int
    repeated: int
    last_end_us: int | None
    effort: Effort = Effort()

    @property
    def complete(self) -> bool:
        """Whether it was closed in order with all the rows that its trailer counts."""
        return self.trailer is not None and self.trailer.rows == self.rows and not self.torn

    @property
    def lost(self) -> int:
        """Requests that were sent and of which nothing is recorded: the most that there can be."""
        last = self.last_beat
        if self.trailer is None and last is not None and last.users:
            return max(self.gaps, last.users)  # whatever was in flight, each user had one request at most
        if self.trailer is None:
            return self.gaps + (last.in_flight if last else 0)
        if self.trailer.scheduled is not None:
            return max(self.trailer.scheduled - self.trailer.never_sent - self.rows, 0)
        return max(self.gaps - self.trailer.never_sent, 0)

    @property
    def watermark_us(self) -> int:
        """Requests issued before it are all finished and recorded."""
        if self.trailer is not None and not self.lost:
            return max(self.trailer.at_us, self.last_end_us or 0) + 1
        if self.last_beat is not None:
            return self.last_beat.watermark_us
        return (self.last_end_us or 0) + 1


class _Stamp(msgspec.Struct, frozen=True):
    version: int
    shards: list[ShardSummary]
    shared: int


@dataclass(frozen=True)
class Rows:
    """All rows of a run as an Arrow table, and the summary of each shard; `shard` counts in that order.

    `shared` counts sequence numbers that more than one shard holds: requests that several processes sent.
    """

    table: pa.Table
    shards: tuple[ShardSummary, ...]
    shared: int = 0

    @property
    def origin_us(self) -> int | None:
        """Time zero of the schedule: the first shard's."""
        return min(
            (shard.header.origin_us for shard in self.shards if shard.header.origin_us is not None), default=None
        )

    @property
    def clock_uncertainty_us(self) -> int:
        """How far the clocks of load processes may be off one another."""
        return max((shard.header.clock_uncertainty_us for shard in self.shards), default=0)


def _now(work: Callable[..., object], *given: object) -> object:
    return work(*given)


def read_rows(run: RunDir, info: RunInfo, do: Callable[..., object] = _now) -> Rows:
    """The rows of a run, from the derived file where it still matches the shards.

    Args:
        run: Its directory.
        info: What it says of itself.
        do: Calls what it is given with the rest: at once, or later where somebody else has time to keep the rows.

    Raises:
        RecordsError: a shard is damaged, foreign, of another run or of a newer schema, or there is none.
    """
    paths = run.shards()
    if not paths:
        raise RecordsError(f"{run.path}: holds no requests-*.jsonl: nothing was recorded; run the experiment again.")
    digests = [_digest(path) for path in paths]
    kept = _derived(run.path / DERIVED, paths, digests)
    if kept is not None:
        return kept
    rows = _build(info, paths, digests)
    do(_write, run.path / DERIVED, rows.table)
    return rows


def _digest(path: Path) -> str:
    """The digest of a file, block by block: memory that was never used before costs more than the digest."""
    made, block = xxhash.xxh3_128(), memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while length := file.readinto(block):
            made.update(block[:length])
    return made.hexdigest()


def _derived(path: Path, paths: list[Path], digests: list[str]) -> Rows | None:
    """The derived file, if it was made from just these shards by this version."""
    try:
        table = pq.read_table(path)
        stamp = msgspec.json.decode(table.schema.metadata[_STAMP], type=_Stamp)
    except (OSError, pa.ArrowException, msgspec.MsgspecError, KeyError, TypeError):
        return None
    known = [(shard.name, shard.digest) for shard in stamp.shards]
    if stamp.version != _VERSION or known != [(p.name, digest) for p, digest in zip(paths, digests, strict=True)]:
        return None
    return Rows(table, tuple(stamp.shards), stamp.shared)


def _build(info: RunInfo, paths: list[Path], digests: list[str]) -> Rows:
    tables, summaries = [], []
    for index, (path, digest) in enumerate(zip(paths, digests, strict=True)):
        with uncollected():
            shard = read_columns(path)
            check_belongs(shard.path, shard.header, info.id)
        tables.append(_numbered(shard.table, index))
        summaries.append(_summary(shard, digest))
    _check_distinct(paths, summaries)
    shared = _shared(tables, summaries)
    stamped = (
        pa.concat_tables(tables)
        .unify_dictionaries()
        .replace_schema_metadata({_STAMP: msgspec.json.encode(_Stamp(_VERSION, summaries, shared))})
    )
    return Rows(stamped, tuple(summaries), shared)


def _check_distinct(paths: Sequence[Path], shards: Sequence[ShardSummary]) -> None:
    """Refuse two shards of one process: one of them is a copy, and its requests would count twice.

    Raises:
        RecordsError: there are two.
    """
    seen: dict[tuple[str, str, int], Path] = {}
    for path, shard in zip(paths, shards, strict=True):
        writer = (shard.header.client, shard.header.host, shard.header.pid)
        if writer in seen:
            raise RecordsError(
                f"{path}:1: holds the records of the process that wrote {seen[writer].name} too; "
                "one is a copy; move it out of the run directory."
            )
        seen[writer] = path


def _shared(tables: Sequence[pa.Table], shards: Sequence[ShardSummary]) -> int:
    """Sequence numbers that are in more than one shard; what one shard holds twice is that shard's own affair."""
    if len(tables) == 1:
        return 0
    # Runs that are sorted already, or nearly so, which this way of sorting merges.
    ordered = np.sort(np.concatenate([table["sequence"].to_numpy() for table in tables]), kind="stable")
    return int(np.count_nonzero(ordered[1:] == ordered[:-1])) - sum(shard.repeated for shard in shards)


def check_belongs(path: Path, header: ShardHeader, run: str) -> None:
    """Refuse the shard of another run.

    Raises:
        RecordsError: it is.
    """
    if header.run != run:
        raise RecordsError(f"{path}:1: belongs to run {header.run!r}, not to {run!r}; move it to its own directory.")


def _write(path: Path, table: pa.Table) -> None:
    """Best effort: a run directory on read-only storage can be judged all the same."""
    temporary = path.with_name(f".{path.name}")
    try:
        # Without each column's extremes, which nobody asks this file for, it takes two thirds of the time.
        pq.write_table(
            table, temporary, compression="lz4", use_dictionary=_FEW, column_encoding=_STEADY, write_statistics=False
        )
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)


def arrow_table(rows: list[Row], index: int) -> pa.Table:
    """Rows of the shard that is counted as `index`."""
    return _numbered(columns(rows), index).cast(SCHEMA)


def _numbered(table: pa.Table, index: int) -> pa.Table:
    return table.add_column(0, _NUMBER, pa.array(np.full(table.num_rows, index, dtype=np.int32)))


def _summary(shard: ShardColumns, digest: str) -> ShardSummary:
    table = shard.table
    gaps, repeated = _gaps(shard, table["sequence"].to_numpy())
    ends = table["start_us"].to_numpy() + table["latency_us"].to_numpy()
    return ShardSummary(
        name=shard.path.name,
        digest=digest,
        header=shard.header,
        trailer=shard.trailer,
        last_beat=shard.beats[-1] if shard.beats else None,
        rows=table.num_rows,
        torn=shard.torn,
        gaps=gaps,
        repeated=repeated,
        last_end_us=int(ends.max()) if ends.size else None,
        effort=effort(shard.header, shard.beats, shard.trailer),
    )


def _gaps(shard: ShardColumns, numbers: Any) -> tuple[int, int]:
    """Missing and repeated numbers: a worker of an open schedule takes every n-th arrival, otherwise each counts."""
    if not numbers.size:
        return 0, 0
    ordered = np.sort(numbers)
    distinct = 1 + int(np.count_nonzero(np.diff(ordered)))
    repeated = int(ordered.size) - distinct
    beats = {beat.workers for beat in shard.beats} | {shard.header.workers}
    late = shard.header.worker >= max(shard.header.workers, 1)
    if shard.header.mode != "open" or len(beats) > 1 or late:
        # Its stride changed on the way, or each process counts by itself: only the whole run can be reconciled.
        return 0, repeated
    stride = max(shard.header.workers, 1)
    due = (int(ordered[-1]) - shard.header.worker) // stride + 1
    return max(due - distinct, 0), repeated
