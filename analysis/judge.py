"""Run directory → report: the one path from evidence to verdict."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property

from analysis import balance, failures, latency, outputs, secondary, split, validity, words
from analysis.answers import Answer, attribute_outputs
from analysis.counting import tally
from analysis.findings import Check
from analysis.latency import limits
from analysis.report import SCHEMA_VERSION, PeriodLine, Records, Report, Subject
from analysis.rows import Rows, read_rows
from analysis.stops import horizons
from analysis.tally import JUDGED, OUTSIDE, TRANSITION, UNFINISHED, WARM_UP, Plan
from analysis.validity import Evidence, lost_requests
from analysis.verdict import decide
from experiments.core import hypotheses, journal, reading
from experiments.core.hypotheses import Hypotheses
from experiments.core.journal import Foreign, Period
from experiments.core.profile import mean_rate
from experiments.core.records import RunDir, RunInfo, read_info, read_references
from experiments.core.spec import Experiment

__all__ = ["Examined", "Found", "Report", "examine", "judge"]

BY_HEADER = (
    "Arms are told by the route header, not by the outputs, as the experiment asks: "
    "a gateway that lies about its route would not be found out."
)

CLOSED_LOOP = (
    "The load was a closed loop: users waited for each answer before they asked again, so a slow answer made for fewer "
    "requests, and a stall shows in fewer latencies than it would have cost."
)


def judge(run: RunDir) -> Report:
    """The report of a run.

    Raises:
        RecordsError: the run directory is empty, damaged, foreign or of a newer schema.
        ExperimentError: the experiment in it breaks rules.
    """
    return examine(run).report


@dataclass(frozen=True)
class Found:
    """What is known of a run before any claim is judged."""

    run: RunDir
    experiment: Experiment
    evidence: Evidence
    answers: Sequence[Answer]
    plan: Plan

    @cached_property
    def subject(self) -> Subject:
        """Which run this is about."""
        return _subject(self.evidence.info, self.experiment)

    @cached_property
    def periods(self) -> list[PeriodLine]:
        """Its routings, one after another."""
        return _periods(self.evidence)


@dataclass(frozen=True)
class Examined:
    """A report with what it was made from: pictures and tables of counts need more than its sentences."""

    found: Found
    report: Report

    @property
    def run(self) -> RunDir:
        """The run directory."""
        return self.found.run

    @property
    def experiment(self) -> Experiment:
        """What was asked."""
        return self.found.experiment

    @property
    def evidence(self) -> Evidence:
        """What was found."""
        return self.found.evidence


def examine(
    run: RunDir, begun: Future[Rows] | None = None, meanwhile: Callable[[Found], object] | None = None
) -> Examined:
    """The report of a run and its evidence; raises as `judge` does.

    Args:
        run: Its directory.
        begun: Its rows, where reading them was begun ahead.
        meanwhile: Begins what may as well be done while claims are judged.
    """
    info = read_info(run)
    experiment = reading.from_mapping(info.experiment, str(run.info))
    rows = begun.result() if begun else read_rows(run, info)
    answers = attribute_outputs(run, read_references(run))
    seen, plan = _evidence(run, (info, experiment), rows, answers)
    found = Found(run, experiment, seen, answers, plan)
    if meanwhile:
        meanwhile(found)
    unjudged = balance.told(seen.tally, seen.registered, list(experiment.arms))
    remarks = [*remarks_on(info, experiment), *_loop(rows), *unjudged]
    return Examined(found, conclude(experiment, seen, validity.checks(seen), remarks))


def conclude(experiment: Experiment, seen: Evidence, conditions: Sequence[Check], remarks: Sequence[str]) -> Report:
    """Every claim judged on the evidence, wherever that came from: a run directory, or a table of another tool's.

    Args:
        experiment: What was asked.
        seen: What was found.
        conditions: Which claims may be judged at all.
        remarks: What a reader must know before any number.
    """
    registered = seen.registered
    lost = lost_requests(seen.rows)
    mean = mean_rate(experiment)
    rates = {name: mean * cohort.share for name, cohort in experiment.cohorts.items()}
    split_claims, shares = split.judge(seen.tally, registered, lost, rates)
    errors_claims, failed = failures.judge(seen.tally, registered, lost, rates)
    latency_claims, latencies = latency.judge(seen.tally, registered, rates)
    claims = [validity.apply(claim, conditions) for claim in [*split_claims, *errors_claims, *latency_claims]]
    arms = list(experiment.arms)
    return Report(
        schema_version=SCHEMA_VERSION,
        subject=_subject(seen.info, experiment),
        verdict=decide(claims),
        remarks=[*remarks, *_timed_out(seen)],
        claims=claims,
        shares=[*shares, *balance.shares(seen.tally, registered, arms)],
        dispersions=list(balance.dispersions(seen.tally, registered, arms)),
        failures=failed,
        latencies=latencies,
        outputs=outputs.describe(seen.references, experiment.baseline),
        outputs_applicable=not _random(seen.info),
        checks=list(conditions),
        records=_records(seen),
        periods=_periods(seen),
        alpha=registered.alpha,
        secondary=list(secondary.describe(seen.tally, registered)),
        drifts=list(balance.drifts(seen.tally, registered)),
        waited=list(latency.waits(seen.tally, registered)),
    )


def _registered(info: RunInfo, experiment: Experiment) -> Hypotheses:
    """What was fixed before the load; made from the experiment where the run was started without the conductor."""
    return hypotheses.read(info.hypotheses) if info.hypotheses else hypotheses.hypotheses(experiment)


def _evidence(
    run: RunDir, known: tuple[RunInfo, Experiment], rows: Rows, answers: Sequence[Answer]
) -> tuple[Evidence, Plan]:
    info, experiment = known
    entries = journal.read(run.journal)
    changes = journal.changes(entries)
    foreign = [entry for entry in entries if isinstance(entry, Foreign)]
    end_us = max(shard.watermark_us for shard in rows.shards)
    periods = journal.periods(changes, end_us, rows.clock_uncertainty_us, foreign)
    registered = _registered(info, experiment)
    plan = _plan(rows, known, (registered, periods))
    seen = Evidence(
        info=info,
        rows=rows,
        references=read_references(run),
        changes=changes,
        foreign=foreign,
        periods=periods,
        tally=tally(rows, answers, plan),
        registered=registered,
        by_header=plan.by_header,
    )
    return seen, plan


def _plan(rows: Rows, known: tuple[RunInfo, Experiment], found: tuple[Hypotheses, Sequence[Period]]) -> Plan:
    info, experiment = known
    registered, periods = found
    origin = rows.origin_us
    warm_until = origin + round(experiment.load.warmup * 1e6) if origin is not None else 0
    by_header = experiment.attribution == "route-header"
    stopped = horizons(info, periods)
    arms = tuple(experiment.arms)
    return Plan(arms, periods, registered.batch_seconds, warm_until, by_header, stopped, limits(registered))


def _subject(info: RunInfo, experiment: Experiment) -> Subject:
    return Subject(
        run=info.id,
        experiment=experiment.name,
        experiment_hash=info.experiment_hash,
        description=experiment.description,
        target=info.target,
        started_us=info.started_us,
        baseline=experiment.baseline,
        arms=list(experiment.arms),
        attribution=experiment.attribution,
        ended=f"{info.ended.how}: {info.ended.detail}".rstrip(": ") if info.ended else None,
        weights={arm: str(model.get("weights", "unknown")) for arm, model in sorted(info.models.items())},
    )


def _random(info: RunInfo) -> list[str]:
    return sorted(arm for arm, model in info.models.items() if model.get("weights") == "random")


def remarks_on(info: RunInfo, experiment: Experiment) -> list[str]:
    """What a reader must know before any number."""
    remarks = [BY_HEADER] if experiment.attribution == "route-header" else []
    if _random(info):
        remarks.append(f"Weights of {', '.join(_random(info))} are random: what the models answer means nothing.")
    if not info.hypotheses:
        remarks.append("No hypotheses were registered before the load; those of the experiment as run are used.")
    if info.ended is not None and info.ended.how != "completed":
        remarks.append(f"The run was {info.ended.how}: {info.ended.detail or 'no reason was given'}.")
    remarks += [f"Phase {stop.phase} ended at look {stop.look}: {stop.outcome}: {stop.rule}." for stop in info.stops]
    return [*remarks, *info.notes, *info.departed]


def _timed_out(seen: Evidence) -> list[str]:
    """What the slowest requests of all are worth to latencies of answers: nothing."""
    judged = seen.tally.judged
    number, n = (int(cells["n"].sum()) for cells in (judged[judged["outcome"] == failures.TIMEOUT], judged))
    if not number:
        return []
    left_out = f"{words.requests(number)} of {words.count(n)} ({words.percent(number / n, 2)}) timed out"
    return [f"{left_out}: latencies are those of successful answers, so these count as failures and in no quantile."]


def _loop(rows: Rows) -> list[str]:
    return [CLOSED_LOOP] if any(shard.header.mode == "closed" for shard in rows.shards) else []


def _records(seen: Evidence) -> Records:
    by_standing: Mapping[str, int] = seen.tally.cells.groupby("standing")["n"].sum().to_dict()
    return Records(
        requests=seen.rows.table.num_rows,
        judged=int(by_standing.get(JUDGED, 0)),
        warm_up=int(by_standing.get(WARM_UP, 0)),
        transition=int(by_standing.get(TRANSITION, 0)),
        unfinished=int(by_standing.get(UNFINISHED, 0)),
        outside=int(by_standing.get(OUTSIDE, 0)),
        shards=len(seen.rows.shards),
        complete=all(shard.complete for shard in seen.rows.shards),
        lost_at_most=lost_requests(seen.rows),
    )


def _periods(seen: Evidence) -> list[PeriodLine]:
    origin = seen.rows.origin_us or (seen.periods[0].start_us if seen.periods else 0)
    counted: Mapping[int, int] = seen.tally.judged.groupby("period")["n"].sum().to_dict()
    return [
        PeriodLine(
            index=period.index,
            phase=period.phase,
            start_s=(period.start_us - origin) / 1e6,
            end_s=(period.end_us - origin) / 1e6,
            requests=int(counted.get(period.index, 0)),
        )
        for period in seen.periods
    ]
