"""Run directory → report: the one path from evidence to verdict."""

from collections.abc import Mapping, Sequence

from analysis import balance, failures, latency, outputs, secondary, split, validity
from analysis.answers import attribute_outputs
from analysis.latency import limits
from analysis.report import SCHEMA_VERSION, PeriodLine, Records, Report, Subject
from analysis.rows import Rows, read_rows
from analysis.tally import JUDGED, OUTSIDE, TRANSITION, UNFINISHED, WARM_UP, Plan, Tally, tally
from analysis.validity import Evidence, lost_requests
from analysis.verdict import decide
from experiments.core import hypotheses, journal, reading
from experiments.core.hypotheses import Hypotheses
from experiments.core.journal import Foreign, Period
from experiments.core.records import RunDir, RunInfo, read_info, read_references
from experiments.core.spec import Experiment

__all__ = ["Report", "judge"]

BY_HEADER = (
    "Arms are told by the route header, not by the outputs, as the experiment asks: "
    "a gateway that lies about its route would not be found out."
)


def judge(run: RunDir, *, live: bool = False) -> Report:
    """The report of a run.

    Args:
        run: Where its records are.
        live: The run goes on: latency is decided only at those registered looks that have been reached.

    Raises:
        RecordsError: the run directory is empty, damaged, foreign or of a newer schema.
        ExperimentError: the experiment in it breaks rules.
    """
    info = read_info(run)
    experiment = reading.from_mapping(info.experiment, str(run.info))
    registered = _registered(info, experiment)
    seen = _evidence(run, info, experiment, registered)
    lost = lost_requests(seen.rows)
    rates = {name: experiment.load.arrivals * cohort.share for name, cohort in experiment.cohorts.items()}
    split_claims, shares = split.judge(seen.tally, registered, lost, rates)
    errors_claims, failed = failures.judge(seen.tally, registered, lost, rates)
    latency_claims, latencies = latency.judge(seen.tally, registered, rates, live=live)
    conditions = validity.checks(seen)
    claims = [validity.apply(claim, conditions) for claim in [*split_claims, *errors_claims, *latency_claims]]
    arms = list(experiment.arms)
    return Report(
        schema_version=SCHEMA_VERSION,
        subject=_subject(info, experiment),
        verdict=decide(claims),
        remarks=_remarks(info, experiment),
        claims=claims,
        shares=[*shares, *balance.shares(seen.tally, registered, arms)],
        dispersions=list(balance.dispersions(seen.tally, registered, arms)),
        failures=failed,
        latencies=latencies,
        outputs=outputs.describe(seen.references, experiment.baseline),
        outputs_applicable=not _random(info),
        checks=conditions,
        records=_records(seen),
        periods=_periods(seen),
        alpha=registered.alpha,
        secondary=list(secondary.describe(seen.tally, registered)),
        drifts=list(balance.drifts(seen.tally, registered)),
    )


def _registered(info: RunInfo, experiment: Experiment) -> Hypotheses:
    """What was fixed before the load; made from the experiment where the run was started without the conductor."""
    return hypotheses.read(info.hypotheses) if info.hypotheses else hypotheses.hypotheses(experiment)


def _evidence(run: RunDir, info: RunInfo, experiment: Experiment, registered: Hypotheses) -> Evidence:
    rows = read_rows(run, info)
    entries = journal.read(run.journal)
    known = journal.changes(entries)
    end_us = max(shard.watermark_us for shard in rows.shards)
    periods = journal.periods(known, end_us, rows.clock_uncertainty_us)
    references = read_references(run)
    by_header = experiment.attribution == "route-header"
    counted = _tally(run, rows, (experiment, registered, periods))
    return Evidence(
        info=info,
        rows=rows,
        references=references,
        changes=known,
        foreign=[entry for entry in entries if isinstance(entry, Foreign)],
        periods=periods,
        tally=counted,
        registered=registered,
        by_header=by_header,
    )


def _tally(run: RunDir, rows: Rows, known: tuple[Experiment, Hypotheses, Sequence[Period]]) -> Tally:
    experiment, registered, periods = known
    origin = rows.origin_us
    warm_until = origin + round(experiment.load.warmup * 1e6) if origin is not None else 0
    by_header = experiment.attribution == "route-header"
    plan = Plan(tuple(experiment.arms), periods, registered.batch_seconds, warm_until, by_header, limits(registered))
    return tally(rows, attribute_outputs(run, read_references(run)), plan)


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


def _remarks(info: RunInfo, experiment: Experiment) -> list[str]:
    """What a reader must know before any number."""
    remarks = [BY_HEADER] if experiment.attribution == "route-header" else []
    if _random(info):
        remarks.append(f"Weights of {', '.join(_random(info))} are random: what the models answer means nothing.")
    if not info.hypotheses:
        remarks.append("No hypotheses were registered before the load; those of the experiment as run are used.")
    if info.ended is not None and info.ended.how != "completed":
        remarks.append(f"The run was {info.ended.how}: {info.ended.detail or 'no reason was given'}.")
    return remarks + list(info.notes)


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
