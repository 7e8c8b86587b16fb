"""How many requests a claim will have under an experiment's load."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from analysis.plan.history import History
from analysis.plan.model import POWER
from experiments.core import hypotheses
from experiments.core.hypotheses import ErrorsHypothesis, Hypotheses, LatencyHypothesis, SplitHypothesis
from experiments.core.profile import expected_requests
from experiments.core.spec import Experiment

USABLE = 0.95
"""Part of a phase's requests that is left after its transition."""

Claim = SplitHypothesis | ErrorsHypothesis | LatencyHypothesis


@dataclass(frozen=True)
class Setting:
    """What is planned, what is known, what is asked for, and how many healthy runs are drawn to find out."""

    experiment: Experiment
    registered: Hypotheses
    past: History = field(default_factory=History)
    power: float = POWER
    draws: int = 200

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Everything registered, in the order in which it is told."""
        return (*self.registered.split, *self.registered.errors, *self.registered.latency)


def setting(experiment: Experiment, past: History, power: float, draws: int) -> Setting:
    """The setting of an experiment as it would be registered."""
    return Setting(experiment, hypotheses.hypotheses(experiment), past, power, draws)


def duration(here: Setting, phase: str) -> float:
    """Seconds that a phase is planned for."""
    return here.experiment.phase(phase).duration


def expected(here: Setting, phase: str, cohorts: Sequence[str]) -> float:
    """The requests of some cohorts that will be judged."""
    share = math.fsum(here.experiment.cohorts[cohort].share for cohort in cohorts)
    return USABLE * share * expected_requests(here.experiment, here.experiment.phase(phase))


def cohorts_of(here: Setting, claim: Claim) -> Sequence[str]:
    """Whose requests a claim looks at."""
    return list(here.experiment.cohorts) if isinstance(claim, ErrorsHypothesis) else claim.cohorts


def by_arm(here: Setting, claim: ErrorsHypothesis | LatencyHypothesis) -> Mapping[str, float]:
    """Expected requests of each arm at the place of a comparison."""
    cohorts = set(cohorts_of(here, claim))
    places = [one for one in here.registered.split if one.phase == claim.phase and set(one.cohorts) <= cohorts]
    return {
        arm: math.fsum(expected(here, one.phase, one.cohorts) * one.shares[arm] for one in places)
        for arm in (claim.canary, here.registered.baseline)
    }
