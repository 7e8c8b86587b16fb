"""A run directory that is still being written → the evidence of a look, at the cost of what is new since the last one.

A look uses the requests issued before its watermark, the start of the oldest request still in flight in any process:
they are all finished and recorded, whichever arm they went to. Rows that no later line of the journal can concern are
tallied once; tallies add.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pandas as pd
import pyarrow as pa

from analysis.answers import Answer, Attributor
from analysis.latency import limits
from analysis.live_shard import LiveShard, ShardState
from analysis.query import expression, tables
from analysis.rows import SCHEMA, Rows, ShardSummary
from analysis.stops import horizons
from analysis.tail import Tail
from analysis.tally import KEYS, SUMS, Plan, Tally
from analysis.validity import Evidence
from experiments.core import hypotheses, journal, reading
from experiments.core.errors import RecordsError
from experiments.core.home import stack_dir
from experiments.core.hypotheses import Hypotheses
from experiments.core.journal import Change, Entry, Foreign, Period
from experiments.core.records import References, RunDir, RunInfo, decode_output, read_info, read_references
from experiments.core.spec import Experiment
from experiments.core.stack import StackDir

SETTLED_US = 5_000_000
"""How long before the watermark a row is settled: longer than a journal's line takes to be seen, or clocks are off."""

MOST_PENDING = 3_000
"""Rows beyond which those that are old enough are tallied for good."""

SILENT_US = 15_000_000
"""A process that has not beaten for so long, while others have, is not waited for: its last watermark stays its own."""

NEVER_US = 2**60


@dataclass(frozen=True)
class Seen:
    """What one look found.

    `phase` is the one applied last; `ages_s` says how long each phase was in force up to the watermark, `over` which
    phases have been followed by another; `silent` names the shards that are not waited for.
    """

    experiment: Experiment
    evidence: Evidence
    watermark_us: int
    origin_us: int | None
    phase: str | None
    ages_s: Mapping[str, float]
    over: frozenset[str]
    silent: tuple[str, ...]

    @property
    def phase_s(self) -> float:
        """How long the phase that was applied last has been in force."""
        return self.ages_s.get(self.phase or "", 0.0)


@dataclass
class Following:
    """A run directory and all that was read of it so far."""

    run: RunDir
    info: RunInfo | None = None
    shards: dict[Path, ShardState] = field(default_factory=dict)
    pending: list[pa.Table] = field(default_factory=list)
    settled: list[Any] = field(default_factory=list)
    cuts: dict[int, int] = field(default_factory=dict)
    count: int = 0
    _attributor: Attributor | None = None
    _outputs: dict[Path, Tail] = field(default_factory=dict)
    _query: tuple[Any, str] | None = None
    _connection: Any = None
    _registered: Hypotheses | None = None
    _experiment: Experiment | None = None

    def look(self) -> Seen | str:
        """The evidence now, or the sentence that says what is waited for.

        Raises:
            RecordsError: what is there is damaged, foreign or of a newer schema, or was taken away.
            ExperimentError: the experiment in it breaks rules.
        """
        self._read_info()
        if self.info is None:
            return f"waiting for {self.run.path}: it has no run.json yet"
        # Rows first: an output is stored before its row, and a change is journalled before it acts.
        self._read_shards(self.info)
        begun = [state for state in self.shards.values() if state.header is not None]
        if not begun:
            return f"waiting for the load: {self.run.path} holds no requests yet"
        watermark = self._watermark(begun)
        if watermark is None:
            return "waiting for the first beat of the load processes"
        return self._seen(self.info, begun, watermark)

    @property
    def closed(self) -> bool:
        """Whether the run says how it ended."""
        return self.info is not None and self.info.ended is not None

    def _read_info(self) -> None:
        if self.info is not None and not self.run.path.is_dir():
            raise _vanished(self.run)
        if not self.run.info.exists():
            if self.info is not None:
                raise _vanished(self.run)
            return
        info = read_info(self.run)
        if self.info is not None and self.info.id == info.id and self.info.experiment == info.experiment:
            self.info = info
            return
        self.info = info
        self._experiment = reading.from_mapping(info.experiment, str(self.run.info))
        known = info.hypotheses
        self._registered = hypotheses.read(known) if known else hypotheses.hypotheses(self._experiment)

    def _read_shards(self, info: RunInfo) -> None:
        for path in self.run.shards():
            state = self.shards.setdefault(path, ShardState.of(path, len(self.shards)))
            rows = state.read(info.id)
            if rows is not None:
                self.pending.append(rows)
                self.count += rows.num_rows
        if missing := [path for path in self.shards if not path.exists()]:
            raise _vanished(RunDir(missing[0]))

    def _watermark(self, begun: Sequence[ShardState]) -> int | None:
        if any(state.watermark_us is None for state in begun):
            return None
        heard = max(state.heard_us for state in begun)
        alive = [state for state in begun if not state.closed and state.heard_us >= heard - SILENT_US]
        open_ones = [state.watermark_us for state in alive if state.watermark_us is not None]
        ended = [state.watermark_us for state in begun if state.watermark_us is not None]
        return min(open_ones, default=max(ended))

    def _seen(self, info: RunInfo, begun: Sequence[ShardState], watermark: int) -> Seen:
        experiment, registered = self._experiment, self._registered
        assert experiment is not None  # noqa: S101 - set with `info`
        assert registered is not None  # noqa: S101
        entries = journal.read(self._journal(experiment))
        changes = _of_run(journal.changes(entries), begun)
        uncertainty = max(state.header.clock_uncertainty_us for state in begun if state.header)
        foreign = _foreign(entries, changes)
        periods = journal.periods(changes, NEVER_US, uncertainty, foreign)
        self._note_cuts(periods)
        references = self._references(experiment)
        silent_before = max(state.heard_us for state in begun) - SILENT_US
        shards = tuple(state.summary(watermark, silent_before) for state in begun)
        plan = self._plan(experiment, registered, periods, shards)
        counted = self._count(plan, shards, watermark)
        return Seen(
            experiment=experiment,
            evidence=Evidence(
                info=info,
                rows=Rows(pa.table({"row": pa.nulls(self.count)}), shards),
                references=references,
                changes=[change for change in changes if change.effective_us is not None or change is not changes[-1]],
                foreign=foreign,
                periods=[replace(period, end_us=min(period.end_us, watermark)) for period in periods],
                tally=counted,
                registered=registered,
                by_header=plan.by_header,
            ),
            watermark_us=watermark,
            origin_us=min((s.header.origin_us for s in shards if s.header.origin_us is not None), default=None),
            phase=changes[-1].phase if changes else None,
            ages_s=_ages_s(periods, watermark),
            over=frozenset(change.phase for change in changes[:-1]),
            silent=tuple(shard.name for shard in shards if not isinstance(shard, LiveShard) and shard.trailer is None),
        )

    def _journal(self, experiment: Experiment) -> Path:
        """The run's own; a run without a conductor gets it when it is closed, and until then the stack has it."""
        own = self.run.journal
        return own if own.exists() else StackDir(stack_dir(experiment.name)).journal

    def _references(self, experiment: Experiment) -> References | None:
        known = read_references(self.run)
        if known is None:
            known = read_references(RunDir(stack_dir(experiment.name)))
        if self._attributor is None or self._attributor.references != known:
            self._attributor, self._outputs = Attributor(known), {}
        return known

    def _plan(
        self, experiment: Experiment, registered: Hypotheses, periods: Sequence[Period], shards: Sequence[ShardSummary]
    ) -> Plan:
        origins = [shard.header.origin_us for shard in shards if shard.header.origin_us is not None]
        warm_until = min(origins) + round(experiment.load.warmup * 1e6) if origins else 0
        info = self.info
        stops = horizons(info, periods) if info else {}
        return Plan(
            arms=tuple(experiment.arms),
            periods=periods,
            batch_seconds=registered.batch_seconds,
            warm_until_us=warm_until,
            by_header=experiment.attribution == "route-header",
            horizons={
                period.index: min(stops.get(period.index, NEVER_US), self.cuts.get(period.index, NEVER_US))
                for period in periods
            },
            limits_us=limits(registered),
        )

    def _note_cuts(self, periods: Sequence[Period]) -> None:
        """The start of the oldest request in flight at the end of each period, over all rows that are not settled."""
        for table in self.pending:
            start = table["start_us"].to_numpy()
            end = start + table["latency_us"].to_numpy()
            for period in periods:
                crossing = start[(start >= period.start_us) & (start < period.end_us) & (end >= period.end_us)]
                if crossing.size:
                    self.cuts[period.index] = min(int(crossing.min()), self.cuts.get(period.index, NEVER_US))

    def _read_outputs(self) -> list[Answer]:
        """The answers to all outputs so far."""
        assert self._attributor is not None  # noqa: S101 - set with the references
        for path in self.run.outputs():
            tail = self._outputs.setdefault(path, Tail(path))
            for line in tail.read():
                self._attributor.learn(decode_output(path, tail.number, line))
        return self._attributor.answers

    def _count(self, plan: Plan, shards: Sequence[ShardSummary], watermark: int) -> Tally:
        """Everything up to now; rows that are old enough are counted for good."""
        answers = self._read_outputs()
        table = pa.concat_tables(self.pending) if self.pending else SCHEMA.empty_table()
        if table.num_rows > MOST_PENDING:
            old = table["start_us"].to_numpy() < watermark - SETTLED_US
            self.settled.append(self._tally(table.filter(pa.array(old)), answers, plan, shards).cells)
            self.settled = [pd.concat(self.settled, ignore_index=True)]
            table = table.filter(pa.array(~old))
        self.pending = [table]
        live = self._tally(table, answers, plan, shards)
        # Laid one after the other and not summed: whoever reads a tally groups it anyway.
        return Tally(pd.concat([*self.settled, live.cells], ignore_index=True))

    def _tally(self, table: pa.Table, answers: Sequence[Answer], plan: Plan, shards: Sequence[ShardSummary]) -> Tally:
        """`tally.tally` with its query translated once, for each look would pay for that again."""
        given = tables(Rows(table, tuple(shards)), answers, plan)
        constants = (plan.arms, plan.warm_until_us, plan.by_header, bool(plan.periods), _first(plan))
        if self._query is None or self._query[0] != constants:
            unbound = tuple(ibis.table(ibis.memtable(each).schema(), name=name) for name, each in given.items())
            self._query = constants, str(ibis.to_sql(expression(unbound, plan), dialect="duckdb"))
        if self._connection is None:
            self._connection = duckdb.connect(config={"threads": 1})
        for name, each in given.items():
            self._connection.register(name, each)
        cells = self._connection.sql(self._query[1]).to_arrow_table().to_pandas()
        return Tally(cells[[*KEYS, *SUMS]].sort_values(list(KEYS), ignore_index=True))


def _first(plan: Plan) -> int:
    return min((period.start_us for period in plan.periods), default=0)


def _of_run(changes: Sequence[Change], begun: Sequence[ShardState]) -> list[Change]:
    """The routing that was in force when the load began, and every later one; a stack's journal may go further back."""
    origin = min(
        (state.header.origin_us for state in begun if state.header and state.header.origin_us is not None), default=None
    )
    if origin is None:
        return list(changes)
    first = max((change.sequence for change in changes if change.applied_us <= origin), default=0)
    return [change for change in changes if change.sequence >= first]


def _foreign(entries: Sequence[Entry], changes: Sequence[Change]) -> list[Foreign]:
    """What others changed since the first of the run's own changes."""
    since = min((change.applied_us for change in changes), default=0)
    return [entry for entry in entries if isinstance(entry, Foreign) and entry.at_us >= since]


def _ages_s(periods: Sequence[Period], watermark_us: int) -> dict[str, float]:
    """How long each phase was in force up to the watermark, over all its periods."""
    ages: dict[str, float] = {}
    for period in periods:
        seconds = (min(period.end_us, watermark_us) - period.start_us) / 1e6
        ages[period.phase] = ages.get(period.phase, 0.0) + max(seconds, 0.0)
    return ages


def _vanished(run: RunDir) -> RecordsError:
    return RecordsError(f"{run.path}: is gone; it was removed while it was watched.")
