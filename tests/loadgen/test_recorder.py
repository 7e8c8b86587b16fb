import errno
import itertools
import json
import os
import time

import pytest

from experiments.core import records
from experiments.core.errors import RecordsError
from loadgen import recorder as recording


@pytest.fixture
def run(tmp_path):
    return records.RunDir(tmp_path)


@pytest.fixture
def opened(run):
    clock = recording.anchored()
    return recording.Recorder(run, recording.header("r", "h", clock, clock.now()))


def row(sequence):
    return records.Row(sequence, f"id-{sequence}", "c", "p", 1, 2, 3, 200, "s", None, None, None, None, 4)


def answer(*values):
    return json.dumps({"predictions": [values]}).encode()


def the_shard(run):
    (path,) = run.shards()
    return records.read_shard(path)


def test_a_row_is_on_disk_when_the_call_returns(run, opened):
    for sequence in range(5):
        opened.row(row(sequence))
        assert [each.sequence for each in the_shard(run).rows] == list(range(sequence + 1))


def test_the_trailer_counts_and_makes_the_shard_complete(run, opened):
    opened.row(row(0))
    opened.output("p", answer(0.5, 0.5))
    assert not the_shard(run).complete
    opened.close(records.Trailer(9, 0, 1, scheduled=3, never_sent=2))
    shard = the_shard(run)
    assert shard.complete
    assert shard.trailer == records.Trailer(9, 1, 1, 1, outputs_capped=False, scheduled=3, never_sent=2)


def test_each_distinct_output_is_stored_once_for_each_payload(run, opened):
    for payload, body in itertools.product(["p", "q"], [answer(0.1, 0.9), answer(0.2, 0.8)] * 3):
        assert opened.output(payload, body)[1]
    found = list(records.read_outputs(run.outputs()[0]))
    assert [(each.payload, each.values) for each in found] == [
        ("p", [0.1, 0.9]), ("p", [0.2, 0.8]), ("q", [0.1, 0.9]), ("q", [0.2, 0.8]),
    ]  # fmt: skip


HOSTILE = {
    "page": b"<html>",
    "deep": b"[" * 200_000,
    "deeper": b'{"predictions": ' + b"[" * 200_000,
    "no float": b'{"predictions": [[' + b"9" * 400 + b"]]}",
    "no integer": b'{"predictions": [[' + b"9" * 5000 + b"]]}",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_prediction_is_told_every_time_and_stored_never(run, opened, body):
    assert [opened.output("p", body)[1] for _ in range(3)] == [False] * 3
    assert list(records.read_outputs(run.outputs()[0])) == []


def test_values_that_json_cannot_hold_are_none(run, opened):
    assert opened.output("p", b'{"predictions": [[NaN, Infinity, 0.5]]}')[1]
    (found,) = records.read_outputs(run.outputs()[0])
    assert found.values == [None, None, 0.5]


def test_outputs_are_capped_and_the_trailer_says_so(run, opened, monkeypatch):
    monkeypatch.setattr(recording, "OUTPUTS_CAP", 3)
    assert all(opened.output("p", answer(float(value)))[1] for value in range(5))
    opened.close(records.Trailer(0, 0, 0))
    assert len(list(records.read_outputs(run.outputs()[0]))) == 3
    assert the_shard(run).trailer.outputs_capped


def test_a_second_writer_of_a_shard_is_refused(run, opened):
    assert opened.writable
    clock = recording.anchored()
    with pytest.raises(RecordsError, match="one writer"):
        recording.Recorder(run, recording.header("r", "h", clock, 0))


def test_after_a_failed_write_nothing_is_written(run, opened, monkeypatch):
    opened.row(row(0))
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:20]) and raise_full())
    with pytest.raises(RecordsError, match="No space left"):
        opened.row(row(1))
    monkeypatch.setattr(os, "write", write)
    opened.row(row(2))
    opened.beat(records.Beat(0, 0, 0))
    opened.close(records.Trailer(0, 0, 0))
    shard = the_shard(run)
    assert [each.sequence for each in shard.rows] == [0]
    assert (shard.torn, shard.complete, opened.rows) == (True, False, 1)


def raise_full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_clock_follows_the_monotonic_clock_from_one_anchor():
    clock = recording.anchored()
    assert abs(clock.now() - time.time_ns() // 1000) < 50_000
    now = time.monotonic_ns()
    assert clock.at(now + 1_000_000_000) - clock.at(now) == 1_000_000
    assert clock.monotonic(clock.at(now)) == pytest.approx(now / 1e9, abs=2e-6)
