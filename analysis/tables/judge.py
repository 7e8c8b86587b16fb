"""Another tool's table → a report, by the code that judges runs; what a table cannot show is said."""

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import msgspec
import xxhash

from analysis import validity, words
from analysis.counting import tally
from analysis.findings import Check
from analysis.judge import Examined, Found, conclude
from analysis.latency import limits
from analysis.report import Report
from analysis.tables import mapping as mappings
from analysis.tables.mapping import Mapping
from analysis.tables.opening import form_of, open_table
from analysis.tables.rows import Table, build
from analysis.tables.stated import Stated, state
from analysis.tables.values import read
from analysis.tally import Plan
from analysis.validity import EVERY, Evidence
from experiments.core.errors import ExperimentError, RecordsError
from experiments.core.records import SCHEMA, RunDir, RunInfo

TOLD = ("answers attributed", "route header agrees", "arms concurrent")
"""Conditions that a table can be checked for; all others are about what only our own load processes write."""

UNKNOWN = (
    "A table does not say what a run does: when requests should have started, which routing was in force, what was "
    "lost on the way, or what was answered. Phases, shares and claims are as the mapping states them."
)
UNREGISTERED = "Nothing was registered before the load: whoever chose claims after seeing the data chose the verdict."


def judge_table(path: Path, name_or_file: str, expect: str | None = None) -> Report:
    """The report of a table; see `examine_table`."""
    return examine_table(path, name_or_file, expect).report


def examine_table(
    path: Path, name_or_file: str, expect: str | None = None, meanwhile: Callable[[Found], object] | None = None
) -> Examined:
    """The report of a table and its evidence.

    Args:
        path: CSV, JSON lines or Parquet, by its content.
        name_or_file: A mapping file, or the name of a shipped one.
        expect: Shares in place of the mapping's, as `old=70%,new=30%`, the baseline first.
        meanwhile: Begins what may as well be done while claims are judged.

    Raises:
        ExperimentError: the mapping breaks rules.
        RecordsError: the table does, or has no such columns.
    """
    form = form_of(path)
    mapping = mappings.read(name_or_file, form)
    if expect is not None:
        mapping = mapping.model_copy(update={"expect": shares(expect), "arms": (), "phases": mapping.phases})
    table = _table(path, mapping)
    name = Path(name_or_file).stem if Path(name_or_file).is_file() else name_or_file
    try:
        stated = state(mapping, table, name)
    except RecordsError as error:
        raise RecordsError(f"{path}: {error}") from error
    seen, plan = _evidence(table, stated, mapping)
    found = Found(RunDir(path), stated.experiment, seen, table.answers, plan)
    if meanwhile:
        meanwhile(found)
    conditions, remarks = list(_conditions(seen, stated, mapping)), list(_remarks(table, stated, mapping))
    return Examined(found, conclude(stated.experiment, seen, conditions, remarks))


def shares(text: str) -> dict[str, float]:
    """Shares from text.

    >>> shares("old=70%,new=30%")
    {'old': 0.7, 'new': 0.3}

    Raises:
        ExperimentError: it is written otherwise.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        arm, _, share = part.strip().partition("=")
        number = share.removesuffix("%").strip()
        if not arm or not number.replace(".", "", 1).isdigit() or arm in found:
            raise ExperimentError(f"--expect {text}: must be shares such as old=70%,new=30%; write them so.")
        found[arm] = float(number) / 100
    return found


def _table(path: Path, mapping: Mapping) -> Table:
    connection = duckdb.connect()
    try:
        opened = open_table(connection, path, mapping.format or form_of(path), mapping.columns)
        return build(connection, read(connection, opened, mapping), mapping)
    finally:
        connection.close()


def _evidence(table: Table, stated: Stated, mapping: Mapping) -> tuple[Evidence, Plan]:
    experiment = stated.experiment
    by_header = mapping.signature is None
    warm_until = table.start_us + round(mapping.warmup * 1e6)
    batches, over = stated.registered.batch_seconds, limits(stated.registered)
    what = Plan(tuple(experiment.arms), stated.periods, batches, warm_until, by_header, limits_us=over)
    seen = Evidence(
        info=_info(table, mapping),
        rows=table.rows,
        references=None,
        changes=[],
        foreign=[],
        periods=stated.periods,
        tally=tally(table.rows, table.answers, what),
        registered=stated.registered,
        by_header=by_header,
    )
    return seen, what


def _info(table: Table, mapping: Mapping) -> RunInfo:
    said = msgspec.json.encode(mapping.model_dump(mode="json", by_alias=True), order="deterministic")
    return RunInfo(
        schema_version=SCHEMA,
        id=f"records-{table.digest[:12]}",
        experiment={},
        experiment_hash=xxhash.xxh3_128_hexdigest(said),
        started_us=table.start_us,
        target="own records",
    )


def _conditions(seen: Evidence, stated: Stated, mapping: Mapping) -> Iterator[Check]:
    """What can be checked, and which claims a table of this kind cannot carry."""
    n = seen.rows.table.num_rows
    yield Check("records", ok=True, sentence=f"{words.requests(n)} read; whether the tool kept all is not known.")
    yield from (check for check in validity.checks(seen) if check.name.startswith(TOLD))
    if not stated.baseline_named:
        arms = words.listed(list(stated.experiment.arms))
        sentence = f"which of {arms} is the baseline is not said: add --expect old=70%,new=30%, the baseline first."
        yield Check("baseline named", ok=False, sentence=sentence, voids=EVERY)
    if mapping.status is None:
        sentence = "the mapping names no status: which requests failed is not known."
        yield Check("failures known", ok=False, sentence=sentence, voids=["errors", "latency"])


def _remarks(table: Table, stated: Stated, mapping: Mapping) -> Iterator[str]:
    """What a reader must know before any number."""
    source = mapping.signature or mapping.arm
    kind = "the answers themselves" if mapping.signature is not None else "the table"
    yield f"Arms are told by {kind}: {source.told if source else ''}."
    yield UNKNOWN
    yield UNREGISTERED
    if table.whole_seconds:
        yield "Times are whole seconds: where one phase ends and the next begins is not known better than that."
    strangers = sorted(set(table.named) - set(stated.experiment.arms))
    if strangers:
        yield f"Arms that nobody expected count as unknown: {', '.join(strangers[:8])}."
