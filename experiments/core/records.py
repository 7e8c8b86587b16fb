"""Rows, shards and run directories: append, read, reconcile.

A shard is a file of JSON lines that one load process creates exclusively and appends to, one finished request at a
time. Objects are about the shard (header, beats, trailer), arrays are rows. A process killed at any moment loses no
finished row; a shard without its trailer is incomplete, and says so.
"""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from experiments.core.errors import RecordsError

SCHEMA = 1
"""Version of everything in a run directory; a newer one is refused by name."""

Whole = Annotated[int, msgspec.Meta(gt=-(10**16), lt=10**16)]
Small = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
"""Sixteen digits are three centuries of microseconds, and sums of them fit a column: a larger number is damage."""


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One finished request. Times are microseconds since the epoch on a monotonic clock that was anchored once."""

    sequence: Whole
    request_id: str
    cohort: str
    payload: str
    intended_us: Whole | None
    start_us: Whole
    latency_us: Whole
    status: Small
    signature: str | None
    error: str | None
    route: str | None
    upstream_us: Whole | None
    pod: str | None
    response_bytes: Whole
    first_byte_us: Whole | None = None  # from the start to the first bytes of the answer
    attempts: Small | None = None  # the proxy's own count of tries, where it sets x-envoy-attempt-count


COLUMNS = Row.__struct_fields__


class ShardHeader(msgspec.Struct, frozen=True, tag="shard", tag_field="kind"):
    """Who wrote a shard, for which run, on which clock.

    `origin_us` is time zero of the schedule: warm-up is counted from there. `mode` is `open` (a schedule) or `closed`
    (users that wait for their answers). `client` is the process as Locust names it. `clock_offset_us` was added to this
    machine's clock so that it agrees with the master's, to within `clock_uncertainty_us`. `slots` are those of all
    processes together, as the load began. `worker` is its place among `workers` then; one that came late has none.
    """

    schema: int
    run: str
    experiment_hash: str
    host: str
    pid: int
    columns: tuple[str, ...]
    monotonic_us: int
    wall_us: int
    origin_us: int | None = None
    clock_uncertainty_us: int = 0
    mode: str = "open"
    worker: int = 0
    workers: int = 1
    client: str = ""
    slots: int | None = None
    clock_offset_us: int = 0


class Beat(msgspec.Struct, frozen=True, tag="beat", tag_field="kind", omit_defaults=True):
    """The state of a load process, about once a second.

    `watermark_us` is the start of the oldest request still in flight, or the time of the beat if there is none.
    `cpu` is the share of one core that the process used since the beat before, `lag_us` the longest that its event loop
    kept something waiting. Counted from the start: `sent`; `starved`, the arrivals that found every slot busy;
    `queued`, the requests that waited for one of a limited number of connections. `wall_us` is how far the wall clock
    has moved away from the clock of the shard. `users` is the most users (in the open loop: slots) that the process
    may run so far, each with one request at most; a beat that only says so, before they send, has no `cpu`.
    """

    at_us: int
    watermark_us: int
    in_flight: int
    backlog: int = 0
    cpu: float | None = None
    lag_us: int | None = None
    workers: int = 1
    sent: int | None = None
    starved: int = 0
    queued: int = 0
    wall_us: int = 0
    users: int = 0


class Trailer(msgspec.Struct, frozen=True, tag="trailer", tag_field="kind"):
    """The last line of a shard that was closed in order."""

    at_us: int
    rows: int
    locust_requests: int
    outputs: int = 0
    outputs_capped: bool = False
    scheduled: int | None = None
    never_sent: int = 0
    starved: int = 0
    queued: int = 0


_Meta = ShardHeader | Beat | Trailer
_meta_decoder = msgspec.json.Decoder(_Meta)
_row_decoder = msgspec.json.Decoder(Row)


class Output(msgspec.Struct, frozen=True):
    """A distinct output, once a process: what `outputs-*.jsonl` holds."""

    signature: str
    payload: str
    values: list[float | None]  # None: a value that is no finite number, for which JSON has no word


_output_decoder = msgspec.json.Decoder(Output)


@dataclass(frozen=True)
class Shard:
    """A shard as it was found on disk."""

    path: Path
    header: ShardHeader
    rows: list[Row]
    beats: list[Beat]
    trailer: Trailer | None
    torn: bool

    @property
    def complete(self) -> bool:
        """Whether it was closed in order and holds the rows that its trailer counts."""
        return self.trailer is not None and self.trailer.rows == len(self.rows) and not self.torn


class Appender:
    """An exclusively created file of JSON lines; each line is one write, so a killed process tears at most the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._encoder = msgspec.json.Encoder()
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError as error:
            raise RecordsError(f"{path}: is there already; a shard has one writer; use a new run directory.") from error
        except OSError as error:
            raise _unwritable(path, error) from error

    def append(self, item: msgspec.Struct) -> None:
        """Write one line.

        Raises:
            RecordsError: the disk is full, or the file cannot be written.
        """
        line = self._encoder.encode(item) + b"\n"
        try:
            written = os.write(self._descriptor, line)
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def close(self) -> None:
        """Close the file; its lines were handed to the kernel when they were appended."""
        os.close(self._descriptor)


def _unwritable(path: Path, error: OSError) -> RecordsError:
    return RecordsError(f"{path}: cannot be written: {error.strerror}; free space or change permissions, then rerun.")


def shard_path(run: Path, host: str, pid: int) -> Path:
    """Where the rows of a load process go."""
    return run / f"requests-{host}-{pid}.jsonl"


def outputs_path(run: Path, host: str, pid: int) -> Path:
    """Where the distinct outputs that a load process saw go."""
    return run / f"outputs-{host}-{pid}.jsonl"


def read_shard(path: Path) -> Shard:
    """A shard with all its whole lines; one torn last line is accepted and reported.

    Raises:
        RecordsError: it is empty, foreign, of a newer schema, or damaged before its last line.
    """
    lines = path.read_bytes().split(b"\n")
    torn = lines.pop() != b""  # a whole file ends in a newline
    if not lines:
        raise RecordsError(f"{path}:1: no shard header; the file is empty or torn; leave it out of the run directory.")
    header = decode_header(path, lines[0])
    rows: list[Row] = []
    beats: list[Beat] = []
    trailer: Trailer | None = None
    for number, line in enumerate(lines[1:], start=2):
        item = decode_line(path, number, line)
        if isinstance(item, Row):
            rows.append(item)
        elif isinstance(item, Beat):
            beats.append(item)
        elif isinstance(item, Trailer):
            trailer = item
    return Shard(path, header, rows, beats, trailer, torn)


def decode_line(path: Path, number: int, line: bytes) -> Row | ShardHeader | Beat | Trailer:
    """One line of a shard.

    Raises:
        RecordsError: it is none; the message names it by its number.
    """
    try:
        return _row_decoder.decode(line) if line[:1] == b"[" else _meta_decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordsError(
            f"{path}:{number}: damaged line ({error}); restore the file from where it was recorded."
        ) from error


def decode_header(path: Path, line: bytes) -> ShardHeader:
    """The first line of a shard.

    Raises:
        RecordsError: it is another tool's, or of a newer schema.
    """
    try:
        version = msgspec.json.decode(line, type=dict[str, Any]).get("schema")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordsError(f"{path}:1: no shard header; is it another tool's file?") from error
    check_schema(path, version)
    header = decode_line(path, 1, line)
    if not isinstance(header, ShardHeader):
        raise RecordsError(f"{path}:1: no shard header; is it another tool's file?")
    return header


def check_schema(path: Path, version: Any) -> None:
    """Refuse what another version wrote.

    Raises:
        RecordsError: the version is newer than ours, or there is none.
    """
    if not isinstance(version, int):
        raise RecordsError(f"{path}: no schema version; is it another tool's file?")
    if version > SCHEMA:
        raise RecordsError(
            f"{path}: schema {version} is newer than {SCHEMA}, the newest known here; update Splitproof."
        )


def read_outputs(path: Path) -> Iterator[Output]:
    """The distinct outputs of one process; a torn last line is left out."""
    *lines, _torn = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        yield decode_output(path, number, line)


def decode_output(path: Path, number: int, line: bytes) -> Output:
    """One line of a file of outputs.

    Raises:
        RecordsError: it is none; the message names it by its number.
    """
    try:
        return _output_decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordsError(f"{path}:{number}: damaged line ({error}).") from error


class Ending(msgspec.Struct, frozen=True):
    """How a run ended: `completed`, `interrupted` or `failed`, with a sentence."""

    at_us: int
    how: str
    detail: str = ""


class Stop(msgspec.Struct, frozen=True):
    """A phase that ended at a look: its requests count up to the look's watermark, as they did when it was decided.

    `rule` is the sentence that ended it; `outcome` is `decided`, `broken`, `passed` or `held` (the last two: a gate's).
    """

    phase: str
    look: int
    watermark_us: int
    at_us: int
    outcome: str
    rule: str


class RunInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """`run.json`: the experiment as run, the registered hypotheses, and the circumstances.

    `stopping` is the rule by which phases could end before their time, fixed before the load; `stops` those that did.
    `departed` has a sentence for each load process that ended in order before the load did.
    """

    schema_version: int
    id: str
    experiment: dict[str, Any]
    experiment_hash: str
    started_us: int
    target: str
    hypotheses: dict[str, Any] = {}
    versions: dict[str, str] = {}
    host: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    expectations: dict[str, dict[str, Any]] = {}
    load_started_us: int | None = None
    load_processes: list[str] = []
    departed: list[str] = []
    locust_requests: int | None = None
    stopping: str | None = None
    stops: list[Stop] = []
    ended: Ending | None = None


class Wish(msgspec.Struct, frozen=True):
    """What a conductor on another machine has of a run's records: file name to bytes."""

    have: dict[str, int] = {}


class Piece(msgspec.Struct, frozen=True):
    """What a file holds from a byte on, compressed (zlib) and in base64."""

    offset: int
    data: str


class Fetched(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a wish: the master's wall clock, its run, what is new; `info` once that is all of an ended run."""

    now_us: int
    run: str
    ended: bool
    files: dict[str, Piece] = {}
    info: RunInfo | None = None


class DirectAnswer(msgspec.Struct, frozen=True):
    """What one pod answered when it was asked directly, past the gateway."""

    pod: str
    distance: float
    matches: bool


class ArmReference(msgspec.Struct, frozen=True):
    """The reference output of an arm for a payload, and how its pods compare with it."""

    output: list[float]
    noise: float
    direct: list[DirectAnswer] = []


class PayloadReference(msgspec.Struct, frozen=True):
    """Everything known beforehand of one payload."""

    arms: dict[str, ArmReference]
    label: int | None = None


class References(msgspec.Struct, frozen=True):
    """`references.json`. `source` says where the outputs came from: the artefact (`export`) or the pods (`direct`)."""

    schema_version: int
    source: str
    payloads: dict[str, PayloadReference]
    checked_us: int | None = None
    problems: list[str] = []


@dataclass(frozen=True)
class RunDir:
    """The paths inside a run directory."""

    path: Path
    info: Path = field(init=False)
    journal: Path = field(init=False)
    references: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "info", self.path / "run.json")
        object.__setattr__(self, "journal", self.path / "journal.jsonl")
        object.__setattr__(self, "references", self.path / "references.json")

    def shards(self) -> list[Path]:
        """The shards, in an order that does not depend on the file system."""
        return sorted(self.path.glob("requests-*.jsonl"))

    def outputs(self) -> list[Path]:
        """The files of distinct outputs, in order."""
        return sorted(self.path.glob("outputs-*.jsonl"))


def create_run(runs: Path, experiment: str, now: datetime | None = None, run_id: str | None = None) -> RunDir:
    """A new, empty run directory `runs/EXPERIMENT/TIME-ID`, or `runs/EXPERIMENT/RUN_ID`.

    Raises:
        RecordsError: it cannot be made.
    """
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    path = runs / experiment / (run_id or f"{moment}-{secrets.token_hex(2)}")
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise RecordsError(
            f"{path}: cannot be made: {error.strerror}; use --runs DIR to name another place."
        ) from error
    return RunDir(path)


def newest_run(runs: Path) -> RunDir:
    """The run that was started last, of any experiment.

    Raises:
        RecordsError: there is none.
    """
    found = sorted(runs.glob("*/*/run.json"), key=lambda path: path.parent.name)
    if not found:
        raise RecordsError(f"{runs}: holds no run; make one with: python -m experiments run quickstart")
    return RunDir(found[-1].parent)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file at once: a reader sees the old or the new one, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def read_info(run: RunDir) -> RunInfo:
    """`run.json`, or a sentence about what is wrong with it."""
    info: RunInfo = _read_json(run.info, RunInfo)
    return info


def read_references(run: RunDir) -> References | None:
    """`references.json`; None where the run has none."""
    if not run.references.exists():
        return None
    references: References = _read_json(run.references, References)
    return references


def _read_json(path: Path, kind: Any) -> Any:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise RecordsError(
            f"{path.parent}: is no run directory: it has no {path.name}; name one under runs/."
        ) from error
    try:
        decoded = msgspec.json.decode(content)
        check_schema(path, decoded.get("schema_version") if isinstance(decoded, dict) else None)
        return msgspec.convert(decoded, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordsError(f"{path}: not readable ({error}); restore it from where it was recorded.") from error
