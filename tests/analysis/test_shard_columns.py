"""Shards read as columns say just what the careful reader says, whatever the bytes."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from analysis import shard_columns
from analysis.shard_columns import columns, read_columns
from experiments.core import records
from experiments.core.errors import RecordsError
from tests.analysis.synthetic import experiment, header

ROW: list[Any] = [7, "r7", "everyone", "cat", 170, 171, 20, 200, "s-1", None, "split/old", None, "pod-1", 100, 5, 1]
BEAT = records.Beat(at_us=5, watermark_us=4, in_flight=1)
TRAILER = records.Trailer(at_us=9, rows=3, locust_requests=3)


def line(**changes: Any) -> bytes:
    row = dict(zip(records.COLUMNS, ROW, strict=True)) | changes
    return msgspec.json.encode(list(row.values()))


def shard(folder: Path, *lines: bytes | msgspec.Struct, torn: bytes = b"") -> Path:
    path = folder / "requests-host-1.jsonl"
    encoded = [one if isinstance(one, bytes) else msgspec.json.encode(one) for one in (synthetic_header(), *lines)]
    path.write_bytes(b"\n".join(encoded) + b"\n" + torn)
    return path


def synthetic_header() -> records.ShardHeader:
    return header(experiment())


def same(path: Path) -> None:
    found, careful = read_columns(path), records.read_shard(path)
    assert found.table.to_pylist() == columns(careful.rows).to_pylist()
    assert (found.header, found.beats, found.trailer, found.torn) == (
        careful.header,
        careful.beats,
        careful.trailer,
        careful.torn,
    )


NULLS = dict.fromkeys(("intended_us", "signature", "error", "route", "upstream_us", "pod", "attempts"))
QUICK = [
    (line(), line(sequence=8)),
    (line(), BEAT, line(sequence=8), BEAT, BEAT, line(sequence=9), TRAILER),
    (BEAT, TRAILER),
    (line(**NULLS), line(sequence=-3, latency_us=-0)),
    (line(signature="null", error="", cohort="null", pod="NA"), line(payload="é, [日本]", cohort=" a ")),
    (line(route="a,b]", pod="['x'"), line(request_id="{}")),
    (msgspec.json.encode(ROW[:14]), msgspec.json.encode([*ROW[:11], None, None, 3])),
]
CAREFUL = [
    (line(pod='a "quoted" \\ one'), line()),
    (line().replace(b",", b", "),),
    (msgspec.json.encode(ROW[:14]), line()),
    (msgspec.json.encode([*ROW, "more"]),),
]
DAMAGED = [
    b"[1, 2",
    b"",
    line(sequence="7"),
    line(cohort=None),
    line().replace(b'"cat"', b"cat"),
    line(signature=5),
    line(sequence=1.5),
    line().replace(b"[7,", b"[07,"),
    line()[:-1],
    line() + b"]",
    line(pod="\x00").replace(b"\\u0000", b"\x00"),
    line(pod="x").replace(b'"x"', b'"\xff"'),
    msgspec.json.encode(ROW[:13]),
    b'{"kind":"tape"}',
]


@pytest.fixture(params=[4 << 20, 64])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_columns, "_BLOCK", request.param)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("lines", QUICK)
def test_usual_lines_never_need_the_careful_reader(
    tmp_path: Path, lines: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [shard(tmp_path, *lines)]
    same(paths[0])
    monkeypatch.delattr(shard_columns, "read_shard")
    read_columns(paths[0])


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("lines", CAREFUL)
def test_unusual_lines_are_read_all_the_same(tmp_path: Path, lines: tuple[Any, ...]) -> None:
    same(shard(tmp_path, *lines))


@pytest.mark.parametrize("torn", [b"[1, ", b"[", b'{"kind', line()])
def test_a_torn_last_line_is_left_out(tmp_path: Path, torn: bytes) -> None:
    path = shard(tmp_path, line(), torn=torn)
    same(path)
    assert read_columns(path).torn


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("damaged", DAMAGED)
def test_damage_is_named_by_its_line(tmp_path: Path, damaged: bytes) -> None:
    path = shard(tmp_path, line(), BEAT, damaged, line())
    with pytest.raises(RecordsError) as careful:
        records.read_shard(path)
    with pytest.raises(RecordsError) as found:
        read_columns(path)
    assert str(found.value) == str(careful.value)
    assert ":4:" in str(found.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"half a line", b"{}\n", b'{"schema":99}\n'])
def test_without_a_header_the_refusal_is_the_same(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "requests-host-1.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordsError) as careful:
        records.read_shard(path)
    with pytest.raises(RecordsError) as found:
        read_columns(path)
    assert str(found.value) == str(careful.value)
