"""What a run will be judged on, fixed before its load: claims, alpha, places of comparison, batches, looks (pure)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import msgspec

from experiments.core.errors import ExperimentError, RecordsError
from experiments.core.profile import expected_requests
from experiments.core.routing import Expectation, phase_expectations
from experiments.core.spec import Experiment, LatencyClaim, Phase

ALPHA = 0.05
"""The chance, per run, that anything true is called broken."""

SPLIT_PART, ERRORS_PART, LATENCY_PART = 0.5, 0.25, 0.25
"""How alpha is shared between the three families of claims."""

CONCENTRATIONS = (15.0, 700.0, 1500.0)
"""Prior weights of the split's mixture, in requests: small ones find large errors soon, large ones small errors."""

BATCH_SECONDS = 3.0
"""The batch length that is aimed at; shorter only where a phase would have too few of them."""

FEWEST_BATCHES, MOST_BATCHES = 12, 60
SHORTEST_BATCH_SECONDS = 1.0

MIN_BATCHES = 8
"""Fewer batches cannot estimate their own variance: the claim stays undecided (benchmarks/calibration)."""

LOOKS = (0.5, 1.0)
"""When latency may be decided: halfway, where only a large effect is, and at the end."""

Routes = Mapping[str, Sequence[Mapping[str, Any]]]


class SplitHypothesis(msgspec.Struct, frozen=True):
    """Cohorts of one phase that share an expectation get each arm within `tolerance` of its share."""

    id: str
    phase: str
    cohorts: list[str]
    shares: dict[str, float]
    tolerance: float
    required: bool


class Unconfigured(msgspec.Struct, frozen=True):
    """A phase and cohort for which no share is configured: shown, not judged."""

    phase: str
    cohort: str
    reason: str


class ErrorsHypothesis(msgspec.Struct, frozen=True):
    """The canary's failure rate exceeds the baseline's by at most `max_increase`.

    It is shown in `phase`, the one with the most expected requests, and can be refuted in each of `phases`.
    """

    id: str
    canary: str
    phase: str | None
    phases: list[str]
    max_increase: float
    required: bool


class LatencyHypothesis(msgspec.Struct, frozen=True):
    """The canary's quantile is at most (1 + margin) × the baseline's, over the named cohorts of one phase.

    `across_cohorts`: no cohort reaches both arms, so that different cohorts are compared. `measure` is `quantile`, or
    `mean`, where `quantile` means nothing. With `limit_us` the claim is absolute: the canary's own quantile, from the
    intended start, lies below it, and `margin` means nothing.
    """

    id: str
    canary: str
    quantile: float
    margin: float
    required: bool
    phase: str | None
    cohorts: list[str]
    across_cohorts: bool
    measure: str = "quantile"
    limit_us: int | None = None


class Look(msgspec.Struct, frozen=True):
    """A moment at which latency may be decided, as a fraction of the planned batches of the phase of comparison.

    `alpha` is what is spent there, on each side; the last look uses all that the phase has given.
    """

    fraction: float
    alpha: float


class Hypotheses(msgspec.Struct, frozen=True):
    """Everything that is registered before the load."""

    alpha: float
    alpha_split: float
    alpha_errors: float
    alpha_latency: float
    concentrations: list[float]
    baseline: str
    split: list[SplitHypothesis]
    unconfigured: list[Unconfigured]
    errors: list[ErrorsHypothesis]
    latency: list[LatencyHypothesis]
    batch_seconds: dict[str, float]
    min_batches: int
    looks: list[Look]
    planned_batches: dict[str, int] = {}


@dataclass(frozen=True)
class Group:
    """Cohorts of one phase with the same configured shares."""

    phase: Phase
    cohorts: tuple[str, ...]
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """Where a canary meets the baseline, and how many of its requests are expected there."""

    phase: str
    cohorts: tuple[str, ...]
    across_cohorts: bool
    canary_requests: float


def register(experiment: Experiment, routes: Routes | None = None) -> dict[str, Any]:
    """The hypotheses of an experiment, ready for JSON.

    Args:
        experiment: Its claims, phases and load.
        routes: `spec.http` of each phase whose route is somebody's own VirtualService file, by the phase's name.
    """
    built: dict[str, Any] = msgspec.to_builtins(hypotheses(experiment, routes))
    return built


def read(registered: Mapping[str, Any]) -> Hypotheses:
    """What `register` wrote.

    Raises:
        RecordsError: it is something else.
    """
    try:
        return msgspec.convert(registered, Hypotheses)
    except msgspec.ValidationError as error:
        raise RecordsError(f"run.json: hypotheses are not readable ({error}); were they edited?") from error


def hypotheses(experiment: Experiment, routes: Routes | None = None) -> Hypotheses:
    """The hypotheses of an experiment; see `register`."""
    expected = {phase.name: expectations(experiment, phase, routes) for phase in experiment.phases}
    groups = [group for phase in experiment.phases for group in _groups(phase, expected[phase.name])]
    return Hypotheses(
        alpha=ALPHA,
        alpha_split=ALPHA * SPLIT_PART,
        alpha_errors=ALPHA * ERRORS_PART,
        alpha_latency=ALPHA * LATENCY_PART,
        concentrations=list(CONCENTRATIONS),
        baseline=experiment.baseline,
        split=[_split(experiment, group) for group in groups],
        unconfigured=list(_unconfigured(expected)),
        errors=[_errors(experiment, canary, groups) for canary in experiment.canaries],
        latency=[hypothesis for canary in experiment.canaries for hypothesis in _latency(experiment, canary, groups)],
        batch_seconds={phase.name: batch_seconds(phase.duration) for phase in experiment.phases},
        min_batches=MIN_BATCHES,
        looks=looks(ALPHA * LATENCY_PART),
        planned_batches={
            phase.name: max(int(phase.duration / batch_seconds(phase.duration)), 1) for phase in experiment.phases
        },
    )


def looks(alpha: float, fractions: Sequence[float] = LOOKS) -> list[Look]:
    """Alpha spent at each look: what 2 − 2Φ(z / √fraction) has grown by, with z the upper alpha/2 quantile.

    The sum is alpha, so that Bonferroni's inequality keeps the level whatever the dependence between looks.

    Source: Lan & DeMets 1983, the spending function that resembles O'Brien & Fleming's boundaries.

    >>> [round(look.alpha, 5) for look in looks(0.025, (0.5, 1.0))]
    [0.00153, 0.02347]
    """
    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha / 2)
    spent = [2 - 2 * normal.cdf(z / math.sqrt(fraction)) for fraction in fractions[:-1]] + [alpha]
    return [
        Look(fraction, now - before) for fraction, now, before in zip(fractions, spent, [0.0, *spent[:-1]], strict=True)
    ]


def batch_seconds(duration: float) -> float:
    """The length of the time batches of a phase, from nothing but its planned duration in seconds.

    >>> batch_seconds(45.0), batch_seconds(30.0), batch_seconds(600.0), batch_seconds(5.0)
    (3.0, 2.5, 10.0, 1.0)
    """
    number = min(max(round(duration / BATCH_SECONDS), FEWEST_BATCHES), MOST_BATCHES)
    return max(duration / number, SHORTEST_BATCH_SECONDS)


def expectations(experiment: Experiment, phase: Phase, routes: Routes | None = None) -> dict[str, Expectation]:
    """What each cohort should get in a phase; without the phase's own VirtualService nothing is configured."""
    http = (routes or {}).get(phase.name)
    try:
        return phase_expectations(experiment, phase, http)
    except ExperimentError as error:
        return {cohort: Expectation(None, str(error)) for cohort in experiment.cohorts}


def _groups(phase: Phase, expected: Mapping[str, Expectation]) -> list[Group]:
    """Cohorts by what they expect, in the experiment's order."""
    by_shares: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for cohort, expectation in expected.items():
        if expectation.shares is not None:
            by_shares.setdefault(tuple(expectation.shares.items()), []).append(cohort)
    return [Group(phase, tuple(cohorts), dict(shares)) for shares, cohorts in by_shares.items()]


def _split(experiment: Experiment, group: Group) -> SplitHypothesis:
    claim = experiment.claims.split
    name = f"split/{group.phase.name}/{'+'.join(group.cohorts)}"
    return SplitHypothesis(
        name,
        group.phase.name,
        list(group.cohorts),
        dict(group.shares),
        claim.tolerance,
        # A run that never rolls back proves nothing about it.
        claim.required and not group.phase.rollback,
    )


def _unconfigured(expected: Mapping[str, Mapping[str, Expectation]]) -> Iterator[Unconfigured]:
    for phase, cohorts in expected.items():
        for cohort, expectation in cohorts.items():
            if expectation.shares is None:
                yield Unconfigured(phase, cohort, expectation.reason)


def comparisons(experiment: Experiment, canary: str, groups: Sequence[Group]) -> list[Comparison]:
    """Where both arms get traffic at once, the best first.

    Within one group of cohorts goes before across cohorts: then nothing but the router's draw separates the arms.
    """
    found = [*_within(experiment, canary, groups), *_across(experiment, canary, groups)]
    return sorted(found, key=lambda place: (place.across_cohorts, -place.canary_requests))


def _cohort_requests(experiment: Experiment, group: Group) -> float:
    share = sum(experiment.cohorts[cohort].share for cohort in group.cohorts)
    return share * expected_requests(experiment, group.phase)


def _within(experiment: Experiment, canary: str, groups: Sequence[Group]) -> Iterator[Comparison]:
    for group in groups:
        if group.shares[canary] > 0 and group.shares[experiment.baseline] > 0:
            requests = _cohort_requests(experiment, group) * group.shares[canary]
            yield Comparison(group.phase.name, group.cohorts, across_cohorts=False, canary_requests=requests)


def _across(experiment: Experiment, canary: str, groups: Sequence[Group]) -> Iterator[Comparison]:
    for phase in experiment.phases:
        here = [group for group in groups if group.phase.name == phase.name]
        canaries = [group for group in here if group.shares[canary] > 0]
        baselines = [group for group in here if group.shares[experiment.baseline] > 0]
        if canaries and baselines:
            used = [group for group in here if group in canaries or group in baselines]
            requests = sum(_cohort_requests(experiment, group) * group.shares[canary] for group in canaries)
            cohorts = tuple(cohort for group in used for cohort in group.cohorts)
            yield Comparison(phase.name, cohorts, across_cohorts=True, canary_requests=requests)


def _errors(experiment: Experiment, canary: str, groups: Sequence[Group]) -> ErrorsHypothesis:
    """Failures are compared over whole phases: cohorts are drawn at random, and a failure may have no cohort's rule."""
    places = sorted(_across(experiment, canary, groups), key=lambda place: -place.canary_requests)
    claim = experiment.claims.errors
    return ErrorsHypothesis(
        id=f"errors/{canary}",
        canary=canary,
        phase=places[0].phase if places else None,
        phases=[place.phase for place in places],
        max_increase=claim.max_increase,
        required=claim.required,
    )


def _latency(experiment: Experiment, canary: str, groups: Sequence[Group]) -> Iterator[LatencyHypothesis]:
    """A hypothesis for each quantile where the canary has most requests; another, not required, in each gated phase."""
    places = comparisons(experiment, canary, groups)
    best = places[0] if places else None
    gated = {phase.name for phase in experiment.phases if phase.gate}
    others: dict[str, Comparison] = {}
    for place in places[1:]:
        if place.phase in gated and best and place.phase != best.phase:
            others.setdefault(place.phase, place)
    for measure, claim in experiment.claims.latency.items():
        yield from _latency_at(canary, measure, claim, best)
        for place in others.values():
            for here in _latency_at(canary, measure, claim, place):
                yield msgspec.structs.replace(here, id=f"{here.id}@{place.phase}", required=False)


def _latency_at(
    canary: str, measure: str, claim: LatencyClaim, place: Comparison | None
) -> Iterator[LatencyHypothesis]:
    """Against the baseline where the claim has a margin, against its limit where it has one."""
    relative = LatencyHypothesis(
        id=f"latency/{canary}/{measure}",
        canary=canary,
        quantile=0.5 if measure == "mean" else round(float(measure[1:]) / 100, 12),
        margin=claim.margin or 0.0,
        required=claim.required,
        phase=place.phase if place else None,
        cohorts=list(place.cohorts) if place else [],
        across_cohorts=bool(place and place.across_cohorts),
        measure="mean" if measure == "mean" else "quantile",
    )
    if claim.margin is not None:
        yield relative
    if claim.limit is not None:
        absolute = f"{relative.id}/limit"
        yield msgspec.structs.replace(relative, id=absolute, margin=0.0, limit_us=round(claim.limit * 1e6))
