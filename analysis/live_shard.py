"""A shard that is still being written: what has been read of it, and what it says of itself at a look."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pyarrow as pa

from analysis.rows import ShardSummary, arrow_table, check_belongs, effort
from analysis.tail import Tail
from experiments.core.errors import RecordsError
from experiments.core.records import Beat, Row, ShardHeader, Trailer, decode_header, decode_line


class LiveShard(ShardSummary, frozen=True):
    """A shard whose process is at work: what it has not written yet is not missing, and lies behind the watermark."""

    horizon_us: int = 0

    @property
    def complete(self) -> bool:
        """Nothing is missing yet."""
        return True

    @property
    def lost(self) -> int:
        """What is in flight is not lost."""
        return 0

    @property
    def watermark_us(self) -> int:
        """Requests issued before it are all finished and recorded, in this process and in every other."""
        return self.horizon_us


@dataclass
class ShardState:
    """What was read of a shard so far."""

    path: Path
    index: int
    tail: Tail
    header: ShardHeader | None = None
    beats: list[Beat] = field(default_factory=list)
    trailer: Trailer | None = None
    rows: int = 0
    last_end_us: int | None = None
    _lines: int = field(default=0)

    @classmethod
    def of(cls, path: Path, index: int) -> "ShardState":
        """One of which nothing has been read."""
        return cls(path, index, Tail(path))

    def read(self, run: str) -> pa.Table | None:
        """The rows that were finished since the last call; None if there are none.

        Raises:
            RecordsError: the shard is damaged, of another run or of a newer schema, or was taken away.
        """
        rows: list[Row] = []
        for number, line in enumerate(self.tail.read(), start=self._lines + 1):
            self._lines = number
            if self.header is None:
                self.header = decode_header(self.path, line)
                check_belongs(self.path, self.header, run)
                continue
            item = decode_line(self.path, number, line)
            if isinstance(item, Row):
                rows.append(item)
            elif isinstance(item, Beat):
                self.beats.append(item)
            elif isinstance(item, Trailer):
                self.trailer = item
        if not rows:
            return None
        self.rows += len(rows)
        self.last_end_us = max(self.last_end_us or 0, *(row.start_us + row.latency_us for row in rows))
        return arrow_table(rows, self.index)

    @property
    def beat(self) -> Beat | None:
        """The last one."""
        return self.beats[-1] if self.beats else None

    @property
    def closed(self) -> bool:
        """Whether its process closed it in order."""
        return self.trailer is not None

    @property
    def watermark_us(self) -> int | None:
        """Requests that this process issued before it are all recorded; None before its first beat."""
        if self.trailer is not None:
            return max(self.trailer.at_us, self.last_end_us or 0) + 1
        return self.beat.watermark_us if self.beat else None

    @property
    def heard_us(self) -> int:
        """When it was last heard of."""
        return self.trailer.at_us if self.trailer else self.beat.at_us if self.beat else 0

    def summary(self, watermark_us: int, silent_before_us: int) -> ShardSummary:
        """What it says of itself at a look.

        A process that has been silent for too long is taken for dead: then its shard is one without a trailer.
        """
        if self.header is None:
            raise RecordsError(f"{self.path}:1: no shard header.")
        plain = ShardSummary(
            name=self.path.name,
            digest="",
            header=self.header,
            trailer=self.trailer,
            last_beat=self.beat,
            rows=self.rows,
            torn=False,
            gaps=0,
            repeated=0,
            last_end_us=self.last_end_us,
            effort=effort(self.header, self.beats, self.trailer),
        )
        if self.trailer is None and self.heard_us < silent_before_us:
            return plain
        return LiveShard(**msgspec.structs.asdict(plain), horizon_us=watermark_us)
