"""Finished requests → rows in this process's shard; each distinct output once beside it.

A row is one write, made before anybody else hears of the request: a process killed at any moment loses no finished
request. After the first write that fails nothing more is written, so that what is there stays readable.
"""

import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from experiments.core import records
from experiments.core.answers import UndecodableAnswerError, output_vector, signature
from experiments.core.errors import RecordsError
from experiments.core.records import Appender, Beat, Output, Row, RunDir, ShardHeader, Trailer

OUTPUTS_CAP = 20_000
"""Distinct outputs stored by one process; a trailer says when there were more."""

_ANCHOR_TRIES = 5


@dataclass(frozen=True)
class Clock:
    """Microseconds since the epoch that never step: the wall clock read once, the monotonic clock ever after."""

    wall_us: int
    monotonic_us: int

    def at(self, monotonic_ns: int) -> int:
        """The time of a reading of `time.monotonic_ns`."""
        return self.wall_us + monotonic_ns // 1000 - self.monotonic_us

    def shifted(self, offset_us: int) -> "Clock":
        """The clock of a machine whose time is `offset_us` ahead of this one's."""
        return Clock(self.wall_us + offset_us, self.monotonic_us)

    def now(self) -> int:
        """The time."""
        return self.at(time.monotonic_ns())

    def monotonic(self, at_us: int) -> float:
        """The reading of `time.monotonic`, in seconds, at a time."""
        return (at_us - self.wall_us + self.monotonic_us) / 1e6


def anchored() -> Clock:
    """A clock whose two anchors were read as nearly at once as a few tries allow."""
    tries = []
    for _ in range(_ANCHOR_TRIES):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        tries.append((after - before, wall // 1000, (before + after) // 2000))
    _gap, wall_us, monotonic_us = min(tries)
    return Clock(wall_us, monotonic_us)


def host_name() -> str:
    """This machine's name, fit to be part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.]", "-", socket.gethostname()) or "host"


class Recorder:
    """The one writer of one process's shard and outputs.

    Raises (every method that writes):
        RecordsError: the first write that failed; from then on nothing is written.
    """

    def __init__(self, run: RunDir, header: ShardHeader) -> None:
        self._shard = Appender(records.shard_path(run.path, header.host, header.pid))
        self._outputs = Appender(records.outputs_path(run.path, header.host, header.pid))
        self._known: dict[tuple[str, str], bool] = {}
        self._stored = 0
        self._capped = False
        self.writable = True
        self.rows = 0
        self._append(self._shard, header)

    @property
    def path(self) -> str:
        """Where the rows go."""
        return str(self._shard.path)

    @property
    def files(self) -> list[Path]:
        """Both files."""
        return [self._shard.path, self._outputs.path]

    def row(self, row: Row) -> None:
        """Write a finished request."""
        if self.writable:
            self._append(self._shard, row)
            self.rows += 1

    def beat(self, beat: Beat) -> None:
        """Write the state of the process."""
        if self.writable:
            self._append(self._shard, beat)

    def output(self, payload: str, body: bytes) -> tuple[str, bool]:
        """The signature of an answer, and whether it can be decoded; its output is stored when it is new.

        Beyond the cap an answer that was not seen before is neither decoded nor stored, and taken as decodable.
        """
        key = (signature(body), payload)
        known = self._known.get(key)
        if known is None:
            known = self._learn(key, body)
        return key[0], known

    def _learn(self, key: tuple[str, str], body: bytes) -> bool:
        if len(self._known) >= OUTPUTS_CAP:
            self._capped = True
            return True
        try:
            values = output_vector(body)
        except UndecodableAnswerError:
            self._known[key] = False
            return False
        self._known[key] = True
        if self.writable:
            # JSON has no NaN: None stands for every value that is no finite number.
            numbers = [value if np.isfinite(value) else None for value in values.tolist()]
            self._append(self._outputs, Output(key[0], key[1], numbers))
            self._stored += 1
        return True

    def close(self, trailer: Trailer) -> None:
        """Write the trailer with our counts and close both files; what could not be written stays without a trailer."""
        if self.writable:
            counts = {"rows": self.rows, "outputs": self._stored, "outputs_capped": self._capped}
            self._append(self._shard, msgspec.structs.replace(trailer, **counts))
        self.writable = False
        self._shard.close()
        self._outputs.close()

    def _append(self, file: Appender, item: ShardHeader | Row | Beat | Trailer | Output) -> None:
        try:
            file.append(item)
        except RecordsError:
            self.writable = False
            raise


def header(run: str, experiment_hash: str, clock: Clock, origin_us: int) -> ShardHeader:
    """A shard header of this process; the caller fills in what it knows beyond that."""
    return ShardHeader(
        schema=records.SCHEMA,
        run=run,
        experiment_hash=experiment_hash,
        host=host_name(),
        pid=os.getpid(),
        columns=records.COLUMNS,
        monotonic_us=clock.monotonic_us,
        wall_us=clock.wall_us,
        origin_us=origin_us,
    )
