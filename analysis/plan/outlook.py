"""Every claim of an experiment → its chance now, and the load at which that chance is what was asked for."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from analysis.plan.history import newest
from analysis.plan.model import POWER, Outlook, Plan
from analysis.plan.power import Chance, comparison, errors_chance, latency_chance, split_chance
from analysis.plan.setting import Claim, Setting, by_arm, cohorts_of, duration, expected, setting
from analysis.stats import distributions
from analysis.trials import fewest, least
from experiments.core import home
from experiments.core.hypotheses import SHORTEST_BATCH_SECONDS, ErrorsHypothesis, LatencyHypothesis, SplitHypothesis
from experiments.core.spec import Experiment

QUICK_DRAWS = 60
"""Drawn runs just before a load: a chance of 90 % is then known to 4 points, in a fraction of a second."""

LARGEST, SMALLEST = 2.0**14, 2.0**-10
"""Nobody waits for more than this many times the load, and none is shorter than that part of it."""

SEARCH_DRAWS = 80
"""Drawn runs at each step of a search: what is found is checked with all of them."""

ROUNDS = 3
"""Steps towards the load that a simulated test needs."""


def plan(experiment: Experiment, *, runs: Path | None = None) -> Plan:
    """What can be said in a fraction of a second: every claim under the experiment's own load.

    Args:
        experiment: What is planned.
        runs: Where an earlier run may lie; the usual place where it is None.
    """
    past = newest(runs or home.runs(), experiment.name, quick=True)
    return look(setting(experiment, past, POWER, QUICK_DRAWS))


def look(here: Setting) -> Plan:
    """The plan of a setting, its designs not compared."""
    return Plan(
        experiment=here.experiment.name,
        power=here.power,
        history=here.past.told,
        outlooks=tuple(outlook(here, claim) for claim in here.claims),
        durations={phase.name: phase.duration for phase in here.experiment.phases},
    )


def outlook(here: Setting, claim: Claim) -> Outlook:
    """The outlook of one claim."""
    if claim.phase is None:
        return _nowhere(here, claim)
    chance = chance_at(here, claim, 1.0)
    multiple = 1.0 if chance.value >= here.power else multiple_of(here, claim)
    n = expected(here, claim.phase, cohorts_of(here, claim))
    return Outlook(
        id=claim.id,
        required=claim.required,
        phase=claim.phase,
        requests=n,
        chance=chance.value,
        error=chance.error,
        power=here.power,
        needed=None if multiple is None else math.ceil(multiple * n),
        seconds=None if multiple is None else multiple * duration(here, claim.phase),
        assumption=assumption(here, claim),
    )


def _nowhere(here: Setting, claim: Claim) -> Outlook:
    reason = "no phase sends requests to both arms at once"
    return Outlook(claim.id, claim.required, None, 0, 0.0, 0.0, here.power, None, None, reason)


def chance_at(here: Setting, claim: Claim, multiple: float) -> Chance:
    """The chance of one claim at a multiple of its phase."""
    if isinstance(claim, SplitHypothesis):
        return split_chance(here, claim, multiple)
    if isinstance(claim, ErrorsHypothesis):
        return errors_chance(here, claim, multiple)
    return latency_chance(here, claim, multiple)


def multiple_of(here: Setting, claim: Claim, start: float = 1.0) -> float | None:
    """The multiple of its phase at which a claim reaches the power that is asked for; None where none does."""
    at = partial(chance_at, replace(here, draws=min(here.draws, SEARCH_DRAWS)), claim)
    if isinstance(claim, LatencyHypothesis):
        return _by_scores(at, here, max(start, floor(here, claim)), floor(here, claim))
    return _by_halving(lambda multiple: at(multiple).value >= here.power, start)


def floor(here: Setting, claim: LatencyHypothesis) -> float:
    """The multiple below which a latency claim is not judged at all: too few answers, or too few batches."""
    few = fewest(claim, *by_arm(here, claim).values())
    by_size = 1.1 * least(claim) / few if few else LARGEST
    by_time = here.registered.min_batches * SHORTEST_BATCH_SECONDS / duration(here, claim.phase or "")
    return max(by_size, by_time)


def _by_halving(enough: Callable[[float], bool], start: float) -> float | None:
    """The smallest multiple, to 4 %, on a scale of factors."""
    high = start
    while not enough(high):
        high *= 2
        if high > LARGEST:
            return None
    low = high / 2
    while low > SMALLEST and enough(low):
        low, high = low / 2, low
    while high / low > 1.04:  # noqa: PLR2004 - four per cent
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _by_scores(at: Callable[[float], Chance], here: Setting, start: float, least: float) -> float | None:
    """The same for a simulated test, whose score grows with the root of the data: a few simulations suffice."""
    critical = distributions.normal_upper(here.registered.looks[-1].alpha)
    aim = distributions.normal_quantile(here.power) + critical
    multiple = start
    for _ in range(ROUNDS):
        clear = 0.5 / here.draws
        seen = distributions.normal_quantile(min(max(at(multiple).value, clear), 1 - clear)) + critical
        if seen <= 0:
            multiple *= 4
        else:
            multiple = max(multiple * min(max((aim / seen) ** 2, 1 / 4), 4), least)
        if multiple > LARGEST:
            return None
    return multiple


def assumption(here: Setting, claim: Claim) -> str:
    """What a chance supposes."""
    if isinstance(claim, SplitHypothesis):
        return "shares as configured"
    if isinstance(claim, ErrorsHypothesis):
        return "failures as there" if here.past.failing else "nothing fails"
    return comparison(here, claim, 1.0).past.told
