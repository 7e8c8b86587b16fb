"""What a mapping states, for want of an experiment: arms, cohorts, phases and claims → hypotheses and periods."""

from collections.abc import Mapping as Shares
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import numpy as np

from analysis.tables.mapping import Expected, Mapping, Stretch
from analysis.tables.rows import Table
from experiments.core import hypotheses
from experiments.core.errors import ExperimentError, RecordsError
from experiments.core.hypotheses import Hypotheses, Unconfigured
from experiments.core.journal import Period
from experiments.core.spec import Arm, Cohort, Experiment, Load, Phase, Route

WHOLE = "whole-table"
UNSTATED = "the mapping states no shares"


@dataclass(frozen=True)
class Stated:
    """An experiment as far as a mapping tells one; `baseline_named`: whether it says which arm is the baseline."""

    experiment: Experiment
    registered: Hypotheses
    periods: tuple[Period, ...]
    baseline_named: bool


def state(mapping: Mapping, table: Table, name: str) -> Stated:
    """The experiment of a table.

    Raises:
        ExperimentError: phases overlap or lie outside the table, or shares do not sum to 100 %.
        RecordsError: fewer than two arms can be told.
    """
    stretches = mapping.phases or (Stretch(name=WHOLE),)
    arms, named = _arms(mapping, table)
    periods = _periods(stretches, table)
    phases = [
        _phase(stretch, period, _shares(stretch.expect or mapping.expect, arms, table))
        for stretch, period in zip(stretches, periods, strict=True)
    ]
    experiment = _experiment((name, mapping), arms, phases, table)
    return Stated(experiment, _hypotheses(experiment), tuple(periods), named)


def _arms(mapping: Mapping, table: Table) -> tuple[tuple[str, ...], bool]:
    """The arms, the baseline first; from the table alone it is not known which that is."""
    expected = [one for one in (mapping.expect, *(phase.expect for phase in mapping.phases)) if one]
    stated = dict.fromkeys(mapping.arms)
    for one in expected:
        stated |= dict.fromkeys(_first(one))
    if mapping.signature is not None:
        stated |= dict.fromkeys(mapping.signature.arms) if stated else {}
    found = table.named or tuple(sorted(mapping.signature.arms if mapping.signature else ()))
    if stated:
        if table.named and not set(table.named) & set(stated):
            raise RecordsError(
                f"the table names the arms {', '.join(table.named[:8])}, none of {', '.join(stated)}; mend the mapping."
            )
        return tuple(stated), True
    if len(found) < 2:  # noqa: PLR2004 - one arm is compared with nothing
        told = f"only the arm {found[0]}" if found else "no arm"
        raise RecordsError(f"the table names {told}; say which there are with --expect old=70%,new=30%.")
    return found, False


def _first(expected: Expected) -> Sequence[str]:
    """Arms, in order."""
    names: dict[str, None] = {}
    for key, value in expected.items():
        names |= dict.fromkeys(value) if isinstance(value, dict) else {key: None}
    return list(names)


def _shares(expected: Expected | None, arms: Sequence[str], table: Table) -> dict[str, dict[str, float]]:
    """By cohort: the share of each arm; none for a cohort of which nothing is stated."""
    if expected is None:
        return {}
    for_all = {arm: share for arm, share in expected.items() if not isinstance(share, dict)}
    by_cohort = {cohort: value for cohort, value in expected.items() if isinstance(value, dict)}
    by_cohort = by_cohort or dict.fromkeys(table.cohorts, for_all)
    for cohort, shares in by_cohort.items():
        total = sum(float(share) for share in shares.values())
        if abs(total - 1) > 1e-9:  # noqa: PLR2004 - rounding
            raise ExperimentError(f"expect: the shares of {cohort} sum to {100 * total:g}%, must be 100%; mend them.")
    return {cohort: {arm: float(shares.get(arm, 0.0)) for arm in arms} for cohort, shares in by_cohort.items()}


def _periods(stretches: Sequence[Stretch], table: Table) -> list[Period]:
    found: list[Period] = []
    for index, stretch in enumerate(stretches):
        start, end = _moment(stretch.start, table, table.start_us), _moment(stretch.end, table, table.end_us)
        if start >= end or start >= table.end_us or end <= table.start_us:
            raise ExperimentError(f"phase {stretch.name}: holds no time of the table; check from and to.")
        if found and start < found[-1].end_us:
            raise ExperimentError(
                f"phase {stretch.name}: begins before {found[-1].phase} ends; phases must not overlap."
            )
        found.append(Period(index, stretch.name, start, end))
    return found


def _moment(stated: datetime | float | None, table: Table, otherwise: int) -> int:
    if stated is None:
        return otherwise
    if isinstance(stated, datetime):
        return round(stated.timestamp() * 1e6)
    return table.start_us + round(stated * 1e6)


def _phase(stretch: Stretch, period: Period, expect: dict[str, dict[str, float]]) -> Phase:
    seconds = (period.end_us - period.start_us) / 1e6
    return Phase.model_construct(name=stretch.name, route=Route(), duration=seconds, arms=None, expect=expect or None)


def _experiment(what: tuple[str, Mapping], arms: Sequence[str], phases: Sequence[Phase], table: Table) -> Experiment:
    """Names are the table's own: they need not be fit for Kubernetes."""
    name, mapping = what
    cohorts = table.rows.table["cohort"].to_numpy(zero_copy_only=False)
    shares = {cohort: float(np.mean(cohorts == cohort)) for cohort in table.cohorts}
    seconds = (table.end_us - table.start_us) / 1e6
    return Experiment.model_construct(
        name=name,
        description="",
        model="",
        arms={arm: Arm() for arm in arms},
        payloads=(),
        cohorts={cohort: Cohort.model_construct(share=share, headers={}) for cohort, share in shares.items()},
        phases=tuple(phases),
        load=Load.model_construct(arrivals=len(cohorts) / seconds, pattern="constant", warmup=mapping.warmup),
        claims=mapping.claims,
        attribution="output" if mapping.signature is not None else "route-header",
        namespace="",
    )


def _hypotheses(experiment: Experiment) -> Hypotheses:
    """As a run registers them; where no shares are stated, arms are compared all the same, and no split is judged."""
    equal: Shares[str, float] = {arm: 1 / len(experiment.arms) for arm in experiment.arms}
    supposed = []
    unstated = set()
    for phase in experiment.phases:
        expect = dict(phase.expect or {})
        for cohort in experiment.cohorts:
            if cohort not in expect:
                unstated.add((phase.name, cohort))
                expect[cohort] = dict(equal)
        supposed.append(phase.model_copy(update={"expect": expect}))
    built = hypotheses.hypotheses(experiment.model_copy(update={"phases": tuple(supposed)}))
    split = []
    for one in built.split:
        cohorts = [cohort for cohort in one.cohorts if (one.phase, cohort) not in unstated]
        if cohorts:
            split.append(msgspec.structs.replace(one, cohorts=cohorts))
    missing = [Unconfigured(phase, cohort, UNSTATED) for phase, cohort in sorted(unstated)]
    return msgspec.structs.replace(built, split=split, unconfigured=missing)
