"""Before the load: how likely is each claim to be shown if all is well, and how much load would make it so?

It asks the tests that will judge. A healthy run is simulated: shares as configured, no failure, and a canary whose
latency is lognormal and differs from the baseline's by nothing; an earlier run's spread may be given.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis import words
from analysis.failures import Arm, Pair
from analysis.failures import is_shown as errors_shown
from analysis.needs import smallest_multiple
from analysis.split import Counts, judge_counts
from analysis.stats.exceedances import needed
from experiments.core import hypotheses
from experiments.core.hypotheses import ErrorsHypothesis, Hypotheses, LatencyHypothesis, SplitHypothesis
from experiments.core.spec import Experiment

POWER = 0.9
DRAWS = 200
CERTAIN = 0.99
SPREAD = 0.5
"""Standard deviation of log latency that is assumed where no earlier run says better."""

USABLE = 0.95
"""Part of a phase's requests that is left after its transition."""


@dataclass(frozen=True)
class Outlook:
    """One claim: the requests that it will have, the chance that it is shown if all is well, and what `POWER` takes.

    `needed` and `seconds` are requests and length of its phase; None where no amount would do.
    """

    id: str
    required: bool
    phase: str | None
    requests: float
    chance: float
    needed: float | None
    seconds: float | None
    assumption: str

    @property
    def decidable(self) -> bool:
        """Whether the load is enough."""
        return self.chance >= POWER


@dataclass(frozen=True)
class Plan:
    """The outlook of every claim."""

    outlooks: tuple[Outlook, ...]

    @property
    def undecidable(self) -> tuple[Outlook, ...]:
        """Required claims that this load will probably not decide."""
        return tuple(one for one in self.outlooks if one.required and not one.decidable)

    def lines(self) -> list[str]:
        """What to tell before the run."""
        table = [_line(one) for one in self.outlooks]
        if not self.undecidable:
            return [*table, "plan: this load can decide every required claim."]
        names = words.listed([one.id for one in self.undecidable])
        return [*table, f"plan: this load will probably not decide {names}: expect hold."]


def _line(one: Outlook) -> str:
    chance = words.percent(one.chance, 0) if one.chance < CERTAIN else "over 99%"
    text = f"plan: {one.id:<44} {words.count(one.requests):>8} requests, shown if healthy: {chance}"
    if one.decidable:
        return text
    if one.needed is None or one.seconds is None:
        return f"{text}; no load would do: {one.assumption}"
    return f"{text}; takes {words.requests(one.needed)}, a phase of {words.duration(one.seconds)}"


def plan(experiment: Experiment, spread: float = SPREAD) -> Plan:
    """The outlook of an experiment under its own load.

    Args:
        experiment: What is planned.
        spread: Standard deviation of log latency.
    """
    registered = hypotheses.hypotheses(experiment)
    outlooks = [_split(experiment, registered, one) for one in registered.split]
    outlooks += [_errors(experiment, registered, one) for one in registered.errors]
    outlooks += [_latency(experiment, registered, one, spread) for one in registered.latency]
    return Plan(tuple(outlooks))


def _expected(experiment: Experiment, phase: str, cohorts: Sequence[str]) -> float:
    share = math.fsum(experiment.cohorts[cohort].share for cohort in cohorts)
    return USABLE * share * hypotheses.expected_requests(experiment, experiment.phase(phase))


def _outlook(
    claim: SplitHypothesis | ErrorsHypothesis | LatencyHypothesis,
    place: tuple[Experiment, str, Sequence[str]],
    chance_at: Callable[[float], float],
    assumption: str,
) -> Outlook:
    """The chance now, and the multiple of the load at which it reaches `POWER`."""
    experiment, phase, cohorts = place
    n = _expected(experiment, phase, cohorts)
    chance = chance_at(1.0)
    multiple = 1.0 if chance >= POWER else smallest_multiple(lambda more: chance_at(more) >= POWER)
    duration = experiment.phase(phase).duration
    return Outlook(
        id=claim.id,
        required=claim.required,
        phase=phase,
        requests=n,
        chance=chance,
        needed=None if multiple is None else math.ceil(multiple * n),
        seconds=None if multiple is None else multiple * duration,
        assumption=assumption,
    )


def _never(claim: ErrorsHypothesis | LatencyHypothesis) -> Outlook:
    return Outlook(claim.id, claim.required, None, 0, 0.0, None, None, "no phase sends requests to both arms at once")


def _split(experiment: Experiment, registered: Hypotheses, claim: SplitHypothesis) -> Outlook:
    """Drawn counts, judged as they will be; the number of the cohort's requests is drawn too."""
    arms = tuple(claim.shares)
    total = USABLE * hypotheses.expected_requests(experiment, experiment.phase(claim.phase))
    part = math.fsum(experiment.cohorts[cohort].share for cohort in claim.cohorts)

    def chance_at(multiple: float) -> float:
        random = np.random.default_rng(1)
        sizes = random.binomial(round(multiple * total), min(part, 1.0), size=DRAWS)
        draws = [random.multinomial(size, list(claim.shares.values())).tolist() for size in sizes]
        judged = (judge_counts(Counts(arms, (tuple(draw),), (0.0,)), claim, registered) for draw in draws)
        return sum(one.shown for one in judged) / DRAWS

    return _outlook(claim, (experiment, claim.phase, claim.cohorts), chance_at, "shares as configured")


def _errors(experiment: Experiment, registered: Hypotheses, claim: ErrorsHypothesis) -> Outlook:
    if claim.phase is None:
        return _never(claim)
    places = [one for one in registered.split if one.phase == claim.phase]
    arrivals = {one.id: _expected(experiment, claim.phase, one.cohorts) for one in places}

    def drawn(random: np.random.Generator, arm: str, multiple: float) -> Arm:
        mean = math.fsum(multiple * arrivals[one.id] * one.shares[arm] for one in places)
        return Arm(float(random.poisson(mean)), 0.0)

    def chance_at(multiple: float) -> float:
        random = np.random.default_rng(1)

        def pair() -> Pair:
            canary, baseline = (drawn(random, arm, multiple) for arm in (claim.canary, registered.baseline))
            return Pair(canary, baseline, Arm())

        pairs = (pair() for _ in range(DRAWS))
        return sum(errors_shown(pair, claim.max_increase, registered.alpha_errors) for pair in pairs) / DRAWS

    return _outlook(claim, (experiment, claim.phase, list(experiment.cohorts)), chance_at, "nothing fails")


def _latency(experiment: Experiment, registered: Hypotheses, claim: LatencyHypothesis, spread: float) -> Outlook:
    if claim.phase is None:
        return _never(claim)
    n = _expected(experiment, claim.phase, claim.cohorts)
    canary = sum(_latency_share(experiment, registered, claim, claim.canary))
    baseline = sum(_latency_share(experiment, registered, claim, registered.baseline))
    seconds = registered.batch_seconds[claim.phase]
    duration = experiment.phase(claim.phase).duration

    def chance_at(multiple: float) -> float:
        batches = math.floor(multiple * duration / seconds)
        sizes = multiple * canary, multiple * baseline
        if batches < registered.min_batches or min(sizes) < needed(claim.quantile):
            return 0.0
        if claim.limit_us is not None:
            return float(canary > 0)  # no earlier run says how far below its limit the canary lies
        return latency_chance(claim, (*sizes, batches), spread, registered.looks[-1].alpha) if n else 0.0

    return _outlook(claim, (experiment, claim.phase, claim.cohorts), chance_at, f"log latency varies by {spread:g}")


def _latency_share(
    experiment: Experiment, registered: Hypotheses, claim: LatencyHypothesis, arm: str
) -> Iterator[float]:
    """Expected answers of an arm in the phase of comparison."""
    for one in registered.split:
        if one.phase == claim.phase and set(one.cohorts) <= set(claim.cohorts):
            yield _expected(experiment, one.phase, one.cohorts) * one.shares[arm]


def latency_chance(claim: LatencyHypothesis, sizes: tuple[float, float, int], spread: float, alpha: float) -> float:
    """The power of the exceedance test against the margin, for lognormal arms that do not differ, by its normal limit.

    Args:
        claim: Quantile and margin.
        sizes: Answers of the canary and of the baseline, and time batches.
        spread: Standard deviation of log latency.
        alpha: One-sided level.
    """
    canary, baseline, batches = sizes
    if claim.measure == "mean":
        error = math.sqrt(math.expm1(spread**2) * (1 / canary + 1 / baseline))
        return float(stats.norm.cdf(math.log1p(claim.margin) / error - float(stats.t.isf(alpha, batches - 1))))
    beyond = 1 - claim.quantile
    place = float(stats.norm.isf(beyond)) + math.log1p(claim.margin) / spread
    seen = float(stats.norm.sf(place))
    error = math.sqrt(beyond * (1 - beyond) * (1 / canary + 1 / baseline))
    critical = float(stats.t.isf(alpha, batches - 1))
    return float(stats.norm.cdf((beyond - seen) / error - critical))
