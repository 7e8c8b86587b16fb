"""A run that is being written, moment after moment: what a load process would have on disk at a time."""

from dataclasses import replace
from pathlib import Path

import msgspec

from experiments.core import journal, records
from tests.analysis import synthetic

BEAT_US = 1_000_000


class Replay:
    """A whole synthetic run, and a copy of it that holds what was there at the time it has been advanced to."""

    def __init__(self, folder: Path, chosen=None, truth=None, layout=None, seed=1) -> None:
        self.whole = synthetic.write_run(folder / "whole", chosen, truth, layout, seed)
        self.shards = [records.read_shard(path) for path in self.whole.shards()]
        self.run = records.RunDir(folder / "live")
        self.run.path.mkdir(parents=True)
        for path in (*self.whole.outputs(), self.whole.references):
            if path.exists():
                (self.run.path / path.name).write_bytes(path.read_bytes())
        info = records.read_info(self.whole)
        records.write_json(self.run.info, msgspec.structs.replace(info, ended=None))
        self.entries = journal.read(self.whole.journal)
        self.files = {shard.path.name: self._open(shard) for shard in self.shards}
        self.now_us = synthetic.START_US - 2_000_000

    def _open(self, shard):
        appender = records.Appender(self.run.path / shard.path.name)
        appender.append(shard.header)
        return appender

    @property
    def rows(self):
        """Every row of the run, finished or not."""
        return [row for shard in self.shards for row in shard.rows]

    def advance(self, seconds: float) -> None:
        """Let time pass: rows appear in the order of their ends, beats every second, changes as they happen."""
        then = self.now_us
        self.now_us += round(seconds * 1e6)
        for entry in self.entries:
            if then < entry.at_us <= self.now_us:
                journal.append(self.run.journal, entry)
        for shard in self.shards:
            self._write(shard, then)

    def _write(self, shard, then) -> None:
        events = [(row.start_us + row.latency_us, 0, row) for row in shard.rows]
        first = synthetic.START_US
        events += [(at, 1, None) for at in range(first + BEAT_US, self.now_us + 1, BEAT_US)]
        for at, _kind, row in sorted(events, key=lambda event: event[:2]):
            if then < at <= self.now_us:
                self.files[shard.path.name].append(row or self._beat(shard, at))

    def _beat(self, shard, at):
        flying = [row.start_us for row in shard.rows if row.start_us <= at < row.start_us + row.latency_us]
        return records.Beat(at, min(flying, default=at), len(flying))

    def tear(self) -> None:
        """Leave half a line at the end of every shard."""
        for shard in self.shards:
            with (self.run.path / shard.path.name).open("ab") as file:
                file.write(b'[99,"half')

    def stop(self, *stops: records.Stop) -> None:
        """Write into run.json that phases were stopped."""
        info = records.read_info(self.run)
        records.write_json(self.run.info, msgspec.structs.replace(info, stops=list(stops)))

    def finish(self, how="completed") -> None:
        """Everything is written, and the run says how it ended."""
        self.advance(10_000)
        for shard in self.shards:
            if shard.trailer:
                self.files[shard.path.name].append(shard.trailer)
            self.files[shard.path.name].close()
        info = records.read_info(self.run)
        records.write_json(self.run.info, msgspec.structs.replace(info, ended=records.Ending(self.now_us, how)))


def slow(truth: synthetic.Truth, **changes) -> synthetic.Truth:
    return replace(truth, **changes)
