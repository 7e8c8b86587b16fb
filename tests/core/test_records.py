import errno
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.core import records
from experiments.core.errors import RecordsError

HEADER = records.ShardHeader(1, "run", "hash", "host", 7, records.COLUMNS, 0, 0)
ROW = records.Row(0, "id", "everyone", "p", 1, 2, 3, 200, "sig", None, "split/a", 4, None, 5)

text_or_none = st.none() | st.text(max_size=20)
rows = st.builds(
    records.Row,
    st.integers(0, 2**53),
    st.text(max_size=40),
    st.text(max_size=40),
    st.text(max_size=40),
    st.none() | st.integers(0, 2**53),
    st.integers(0, 2**53),
    st.integers(0, 2**53),
    st.integers(0, 999),
    text_or_none,
    text_or_none,
    text_or_none,
    st.none() | st.integers(0, 2**53),
    text_or_none,
    st.integers(0, 2**53),
)


def write(path, *items):
    appender = records.Appender(path)
    for item in items:
        appender.append(item)
    appender.close()
    return path


@given(st.lists(rows, max_size=20))
def test_a_shard_reads_back_as_it_was_written(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("shard") / "requests-h-1.jsonl"
    beat = records.Beat(1, 2, 3, cpu=0.5)
    shard = records.read_shard(write(path, HEADER, *written, beat, records.Trailer(9, len(written), len(written))))
    assert shard.header == HEADER
    assert shard.rows == written
    assert shard.beats == [beat]
    assert shard.complete


def test_a_shard_has_one_writer(tmp_path):
    path = write(tmp_path / "requests-h-1.jsonl", HEADER)
    with pytest.raises(RecordsError, match="one writer"):
        records.Appender(path)


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_last_line_is_left_out_and_said(tmp_path, cut):
    path = write(tmp_path / "requests-h-1.jsonl", HEADER, ROW, ROW)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    shard = records.read_shard(path)
    assert shard.torn
    assert shard.rows == [ROW]
    assert not shard.complete


def test_a_shard_without_its_trailer_or_with_fewer_rows_is_incomplete(tmp_path):
    without = records.read_shard(write(tmp_path / "requests-h-1.jsonl", HEADER, ROW))
    short = records.read_shard(write(tmp_path / "requests-h-2.jsonl", HEADER, ROW, records.Trailer(9, 2, 2)))
    assert not without.complete
    assert not short.complete


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty or torn"),
        (b'{"kind":"sha', "empty or torn"),
        (b"hello\n", "another tool's file"),
        (b'{"a": 1}\n', "no schema version"),
        (b'{"kind":"shard","schema":99}\n', "schema 99 is newer than 1"),
        (b"[1,2]\n[3]\n", "another tool's file"),
    ],
)
def test_what_is_no_shard_gets_one_line(tmp_path, content, says):
    path = tmp_path / "requests-h-1.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordsError, match=says) as refused:
        records.read_shard(path)
    assert "\n" not in str(refused.value)


def test_damage_before_the_last_line_is_refused_with_its_line(tmp_path):
    path = write(tmp_path / "requests-h-1.jsonl", HEADER, ROW, ROW)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:10], *lines[2:]]))
    with pytest.raises(RecordsError, match=r"jsonl:2: damaged line"):
        records.read_shard(path)


@pytest.mark.parametrize("number", [2**63, -(10**16), 10**30])
def test_a_number_that_no_table_holds_is_damage(tmp_path, number):
    path = write(tmp_path / "requests-h-1.jsonl", HEADER, msgspec.structs.replace(ROW, latency_us=number))
    with pytest.raises(RecordsError, match=r"jsonl:2: damaged line"):
        records.read_shard(path)


def test_a_killed_writer_loses_no_finished_row(tmp_path):
    path = tmp_path / "requests-h-1.jsonl"
    program = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from experiments.core import records
        shard = records.Appender(Path({str(path)!r}))
        shard.append(records.ShardHeader(1, "r", "h", "h", 1, records.COLUMNS, 0, 0))
        for n in range(10**9):
            shard.append(records.Row(n, "i", "c", "p", 1, 2, 3, 200, "s", None, None, None, None, 5))
            print(n, flush=True)
    """)
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    told = [int(writer.stdout.readline()) for _ in range(500)]
    writer.send_signal(signal.SIGKILL)
    told += [int(line) for line in writer.communicate()[0].splitlines() if line.strip().isdigit()]
    found = [row.sequence for row in records.read_shard(path).rows]
    assert found[: len(told)] == told
    assert len(found) - len(told) <= 1


def test_a_full_disk_is_said_in_one_line(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    appender = records.Appender(tmp_path / "requests-h-1.jsonl")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(RecordsError, match="cannot be written") as refused:
            for _ in range(1000):
                appender.append(ROW)
        assert os.strerror(errno.EFBIG) in str(refused.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_run_directories_are_distinct_and_the_newest_is_found(tmp_path):
    from datetime import UTC, datetime

    early = records.create_run(tmp_path, "b", datetime(2026, 1, 1, tzinfo=UTC))
    late = records.create_run(tmp_path, "a", datetime(2026, 1, 2, tzinfo=UTC))
    for run in (early, late):
        run.info.write_text("{}")
    assert records.newest_run(tmp_path) == late
    with pytest.raises(RecordsError, match="holds no run"):
        records.newest_run(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is no run directory"),
        ("", "not readable"),
        ("[]", "no schema version"),
        ('{"schema_version": 2}', "newer than 1"),
        ('{"schema_version": 1}', "not readable"),
    ],
)
def test_a_foreign_run_directory_gets_one_line(tmp_path, content, says):
    run = records.RunDir(tmp_path)
    if content is not None:
        run.info.write_text(content)
    with pytest.raises(RecordsError, match=says):
        records.read_info(run)


def test_run_info_reads_back(tmp_path):
    run = records.RunDir(tmp_path)
    info = records.RunInfo(1, "id", {"a": 1}, "hash", 5, "embedded", ended=records.Ending(9, "completed"))
    records.write_json(run.info, info)
    assert records.read_info(run) == info
    assert json.loads(run.info.read_text())["experiment"] == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_outputs_read_back_without_a_torn_tail(tmp_path):
    path = write(tmp_path / "outputs-h-1.jsonl", records.Output("s", "p", [0.5, float(1)]))
    path.write_bytes(path.read_bytes() + msgspec.json.encode(records.Output("t", "p", [1.0]))[:-3])
    assert list(records.read_outputs(path)) == [records.Output("s", "p", [0.5, 1.0])]
