"""Which weight of the canary, at which rate of arrivals, decides every required claim soonest?

The planned design is worked out by the tests themselves. Other weights start from it by the arithmetic of two samples
(the variance of a difference goes with 1/n_canary + 1/n_baseline) and the best of them is then worked out likewise.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from analysis.plan.model import Design, Designs
from analysis.plan.outlook import floor, multiple_of
from analysis.plan.setting import Claim, Setting, by_arm, duration, setting
from experiments.core.hypotheses import LatencyHypothesis, SplitHypothesis
from experiments.core.profile import mean_rate
from experiments.core.spec import Experiment, Phase, Rule

WEIGHTS = (5, 10, 15, 20, 25, 30, 40, 50)
"""Per cent for the canary: no more than half, since the point of a canary is that few meet it."""

FASTER = (1, 2)
"""Multiples of the planned arrivals that are looked at."""

CLEARLY = 0.95
"""A design must take less than this part of the planned time to be called cheaper."""


@dataclass(frozen=True)
class Place:
    """A rule that splits by weight between the baseline and one canary: the phase, and where in its rules."""

    phase: str
    rule: int
    canary: str
    weight: int


def compare(here: Setting) -> Designs | None:
    """The designs of an experiment; None where no phase splits by weight between the baseline and one canary."""
    place = where(here)
    if place is None:
        return None
    known = {claim.id: multiple_of(here, claim) for claim in here.claims if claim.required and claim.phase}
    planned = design(here, place.weight, known)
    guesses = {weight: _guess(here, place, weight, known) for weight in WEIGHTS if weight != place.weight}
    best = min(guesses, key=lambda weight: guesses[weight].seconds or math.inf)
    compared = [*guesses.values()]
    if (guesses[best].seconds or math.inf) < CLEARLY * (planned.seconds or math.inf):
        compared = [one for one in compared if one.weight != best]
        compared += _checked(here, place, best)
    else:
        compared = [one for one in compared if one.seconds is None or one.seconds >= (planned.seconds or 0)]
    return Designs(
        place.phase, place.canary, planned, tuple(sorted(compared, key=lambda one: (one.arrivals, one.weight)))
    )


def where(here: Setting) -> Place | None:
    """The weighted rule in the phase in which the canary is compared."""
    phases = {one.phase for one in here.registered.latency} | {one.phase for one in here.registered.errors}
    for phase in here.experiment.phases:
        for index, rule in enumerate(phase.route.rules):
            weighted = {arm: weight for arm, weight in rule.to.items() if weight > 0}
            canaries = [arm for arm in weighted if arm != here.experiment.baseline]
            if phase.name in phases and len(weighted) == 2 and len(canaries) == 1:  # noqa: PLR2004 - two arms
                share = weighted[canaries[0]] / sum(weighted.values())
                return Place(phase.name, index, canaries[0], round(100 * share))
    return None


def with_weight(experiment: Experiment, place: Place, weight: int) -> Experiment:
    """The experiment with another weight of the canary."""
    to = {experiment.baseline: 100 - weight, place.canary: weight}
    phases = tuple(_reweighted(phase, place, to) if phase.name == place.phase else phase for phase in experiment.phases)
    return experiment.model_copy(update={"phases": phases})


def _reweighted(phase: Phase, place: Place, to: Mapping[str, int]) -> Phase:
    rules = [
        Rule(when=rule.when, to=dict(to)) if index == place.rule else rule
        for index, rule in enumerate(phase.route.rules)
    ]
    return phase.model_copy(update={"route": phase.route.model_copy(update={"rules": tuple(rules)}), "expect": None})


def design(here: Setting, weight: int, multiples: Mapping[str, float | None]) -> Design:
    """How long each phase must be for every required claim in it; phases without one stay as they are."""
    claims = {claim.id: claim for claim in here.claims}
    lengths: dict[str, float] = {}
    longest: tuple[float, str | None] = 0.0, None
    for name, multiple in multiples.items():
        phase = claims[name].phase or ""
        if multiple is None:
            return Design(weight, mean_rate(here.experiment), None, name)
        lengths[phase] = max(lengths.get(phase, 0.0), multiple * duration(here, phase))
        longest = max(longest, (multiple * duration(here, phase), name))
    whole = {phase.name: lengths.get(phase.name, phase.duration) for phase in here.experiment.phases}
    return Design(weight, mean_rate(here.experiment), whole, longest[1])


def _guess(here: Setting, place: Place, weight: int, known: Mapping[str, float | None]) -> Design:
    """A design by arithmetic from the planned one; its split claims, which are quick, by their test."""
    other = _other(here, with_weight(here.experiment, place, weight))
    planned = {claim.id: claim for claim in here.claims}
    multiples: dict[str, float | None] = {}
    for claim in other.claims:
        before = planned.get(claim.id)
        if not (claim.required and claim.phase):
            continue
        if isinstance(claim, SplitHypothesis):
            same = isinstance(before, SplitHypothesis) and before.shares == claim.shares
            multiples[claim.id] = known[claim.id] if same else multiple_of(other, claim)
        elif before is not None:
            multiples[claim.id] = _scaled(here, other, (before, claim), known.get(claim.id))
    return design(other, weight, multiples)


def _other(here: Setting, experiment: Experiment) -> Setting:
    return setting(experiment, here.past, here.power, here.draws)


def _scaled(here: Setting, other: Setting, claims: tuple[Claim, Claim], known: float | None) -> float | None:
    """A multiple by the variance of a difference of two samples, never below what is judged at all."""
    before, after = claims
    if known is None or isinstance(before, SplitHypothesis) or isinstance(after, SplitHypothesis):
        return known
    first, second = (sum(1 / max(n, 1e-9) for n in by_arm(s, c).values()) for s, c in ((here, before), (other, after)))
    ratio = second / first * duration(here, before.phase or "") / duration(other, after.phase or "")
    least = floor(other, after) if isinstance(after, LatencyHypothesis) else 0.0
    return max(known * ratio, least)


def _checked(here: Setting, place: Place, weight: int) -> Iterator[Design]:
    """A weight worked out by the tests themselves, at the planned arrivals and above."""
    same: dict[str, float | None] = {}
    load = here.experiment.load
    for faster in FASTER if not load.steps else FASTER[:1]:  # steps are a shape of load that somebody chose
        changed = here.experiment.model_copy(update={"load": load.model_copy(update={"arrivals": faster * load.rate})})
        other = _other(here, with_weight(changed, place, weight))
        for claim in other.claims:
            if not (claim.required and claim.phase):
                continue
            known = same.get(claim.id)
            if known is None or isinstance(claim, LatencyHypothesis):
                same[claim.id] = multiple_of(other, claim, (known or 1.0) / faster)
            else:  # nothing but the number of requests counts
                same[claim.id] = known / faster
        yield design(other, weight, same)
