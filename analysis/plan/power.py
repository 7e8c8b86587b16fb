"""The chance that a claim is shown if all is well, by the tests that will judge it: exact, or by drawn runs."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.failures import Arm, Pair
from analysis.failures import is_shown as errors_shown
from analysis.plan.history import Past, Shape, lognormal
from analysis.plan.setting import Setting, by_arm, duration, expected
from analysis.split import Counts, judge_counts
from analysis.stats import distributions
from analysis.stats.bins import bin_of, lower_edge, middle
from analysis.stats.exceedances import Histogram
from analysis.trials import Trial, fewest, least, limit_trial, mean_trial, quantile_trial
from experiments.core.hypotheses import ErrorsHypothesis, Hypotheses, LatencyHypothesis, SplitHypothesis, batch_seconds

NODES = 5
"""Sizes of a random group that stand for all of them."""

FINE, COARSE = 3000, 4
"""Answers beyond which four bins count as one: limits are then off by 0.2 % at most, and a test takes milliseconds."""

SURE_NODES = 40
"""The same, where each size either shows a claim or does not."""

NARROW = 0.02
"""A group whose size varies by less than this part of it is taken as it is expected."""


@dataclass(frozen=True)
class Chance:
    """A probability; `error` is its standard error where it was simulated, 0 where it is exact."""

    value: float
    error: float = 0.0


def simulated(shown: Iterable[bool]) -> Chance:
    """The share of drawn runs in which a claim was shown; its error never below that of one run in all."""
    found = list(shown)
    share = sum(found) / len(found)
    return Chance(share, math.sqrt(max(share * (1 - share), 1 / len(found)) / len(found)))


def sizes(total: float, part: float, nodes: int = NODES) -> list[int]:
    """What a group of a random part of the requests may number: the middles of equally likely slices."""
    if part >= 1 or total * part < 1 or (1 - part) / (total * part) < NARROW**2:
        return [round(total * min(part, 1.0))]
    return [int(distributions.binomial_quantile((i + 0.5) / nodes, round(total), part)) for i in range(nodes)]


def split_chance(here: Setting, claim: SplitHypothesis, multiple: float) -> Chance:
    """The chance at a multiple of the load."""
    part = math.fsum(here.experiment.cohorts[cohort].share for cohort in claim.cohorts)
    total = multiple * expected(here, claim.phase, list(here.experiment.cohorts))
    positive = [arm for arm, share in claim.shares.items() if share > 0]
    each = sizes(total, part)
    if len(positive) <= 2:  # noqa: PLR2004 - then one count says all
        return Chance(float(np.mean([_exact(here.registered, claim, n, positive) for n in each])))
    random = np.random.default_rng(1)
    draws = (random.multinomial(each[i % len(each)], list(claim.shares.values())) for i in range(here.draws))
    return simulated(_split_shown(here.registered, claim, draw.tolist()) for draw in draws)


def _split_shown(registered: Hypotheses, claim: SplitHypothesis, counts: Sequence[float]) -> bool:
    return judge_counts(Counts(tuple(claim.shares), (tuple(counts),), (0.0,)), claim, registered).shown


def _exact(registered: Hypotheses, claim: SplitHypothesis, n: int, positive: Sequence[str]) -> float:
    """The binomial probability of the counts for which the claim is shown: they lie between two bounds."""

    def shown(hits: int) -> bool:
        counts = dict.fromkeys(claim.shares, 0) | {positive[0]: hits}
        if len(positive) > 1:
            counts[positive[1]] = n - hits
        return _split_shown(registered, claim, list(counts.values()))

    if len(positive) < 2:  # noqa: PLR2004 - all go to one arm
        return float(shown(n))
    share = claim.shares[positive[0]]
    middle = round(n * share)
    if not shown(middle):
        return 0.0
    low, high = (_edge(middle, end, shown) for end in (0, n))
    return distributions.binomial_at_most(high, n, share) - distributions.binomial_at_most(low - 1, n, share)


def _edge(inside: int, end: int, shown: Callable[[int], bool]) -> int:
    """The last count, on the way from one that is shown to an end, that is shown."""
    if shown(end):
        return end
    outside = end
    while abs(outside - inside) > 1:
        middle = (inside + outside) // 2
        inside, outside = (middle, outside) if shown(middle) else (inside, middle)
    return inside


def errors_chance(here: Setting, claim: ErrorsHypothesis, multiple: float) -> Chance:
    """The chance at a multiple of the load, with failures at the rates of the earlier run.

    A canary that failed more often than the margin allows is planned for as if it failed like the baseline.
    """
    canary, baseline = by_arm(here, claim).values()
    total, part = multiple * (canary + baseline), canary / (canary + baseline)
    rates = _failing(here, claim)
    if not any(rates):
        pairs = [Pair(Arm(n), Arm(round(total) - n), Arm()) for n in sizes(total, part, SURE_NODES)]
        return Chance(sum(_errors_shown(here, claim, pair) for pair in pairs) / len(pairs))
    random = np.random.default_rng(1)
    drawn = (_pair(random, (total, part), rates) for _ in range(here.draws))
    return simulated(_errors_shown(here, claim, pair) for pair in drawn)


def _errors_shown(here: Setting, claim: ErrorsHypothesis, pair: Pair) -> bool:
    return errors_shown(pair, claim.max_increase, here.registered.alpha_errors)


def _failing(here: Setting, claim: ErrorsHypothesis) -> tuple[float, float]:
    baseline = here.past.failing.get(here.registered.baseline, 0.0)
    canary = here.past.failing.get(claim.canary, 0.0)
    return (canary if canary < baseline + claim.max_increase else baseline), baseline


def _pair(random: np.random.Generator, size: tuple[float, float], rates: tuple[float, float]) -> Pair:
    total, part = size
    canary = int(random.binomial(round(total), part))
    numbers = canary, round(total) - canary
    first, second = (Arm(n, float(random.binomial(n, rate))) for n, rate in zip(numbers, rates, strict=True))
    return Pair(first, second, Arm())


@dataclass(frozen=True)
class Comparison:
    """What the latency test will see: answers of each arm, time batches, and where latencies come from."""

    claim: LatencyHypothesis
    canary: float
    baseline: float
    batches: int
    seconds: float
    past: Past


def comparison(here: Setting, claim: LatencyHypothesis, multiple: float) -> Comparison:
    """The latency test at a multiple of the phase's length: its batches are laid out anew, as registering would."""
    arms = by_arm(here, claim)
    length = multiple * duration(here, claim.phase or "")
    seconds = batch_seconds(length)
    known = here.past.latency.get(claim.id) or unknown_past()
    canary, baseline = (multiple * n for n in arms.values())
    batches = math.floor(length / seconds + 1e-9)
    return Comparison(claim, canary, baseline, batches, seconds, known)


def unknown_past() -> Past:
    """Lognormal latencies, the same in both arms and at all times."""
    same = lognormal()
    return Past(same, same, 0.0, "latencies lognormal, their logarithms varying by 0.5")


def latency_chance(here: Setting, claim: LatencyHypothesis, multiple: float) -> Chance:
    """The chance at a multiple of the phase's length, by drawn histograms through the test itself."""
    what = comparison(here, claim, multiple)
    registered = here.registered
    if what.batches < registered.min_batches or fewest(claim, what.canary, what.baseline) < least(claim):
        return Chance(0.0)
    random = np.random.default_rng(1)
    return simulated(latency_shown(what, registered, random) for _ in range(here.draws))


def latency_shown(what: Comparison, registered: Hypotheses, random: np.random.Generator) -> bool:
    """Whether one drawn run shows the claim."""
    canary, baseline = (
        draw(shape, (n, what.batches), what.past.wander / what.seconds, random)
        for shape, n in ((what.past.canary, what.canary), (what.past.baseline, what.baseline))
    )
    if fewest(what.claim, canary.n, baseline.n) < least(what.claim):
        return False
    found = _trial(what, canary, baseline)
    if found is None or found.weather.batches < registered.min_batches or found.weather.endless:
        return False
    return found.p_below <= registered.looks[-1].alpha


def _trial(what: Comparison, canary: Histogram, baseline: Histogram) -> Trial | None:
    """The test that will judge; of an absolute limit, the share of the canary's answers beyond it."""
    claim = what.claim
    if claim.limit_us is not None:
        over = canary.counts[:, lower_edge(canary.bins) >= claim.limit_us].sum(axis=1)
        return limit_trial(canary, over, 1 - claim.quantile)
    if claim.measure == "mean":
        first, second = (one.counts @ middle(one.bins) for one in (canary, baseline))
        return mean_trial((canary, first), (baseline, second), 1 + claim.margin)
    return quantile_trial(canary, baseline, claim.quantile, 1 + claim.margin)


def draw(shape: Shape, size: tuple[float, int], variance: float, random: np.random.Generator) -> Histogram:
    """Answers of one arm by batch: numbers by chance, latencies from its shape, each batch shifted as batches were."""
    n = int(random.poisson(size[0]))
    batch = random.integers(0, size[1], n)
    shifts = math.sqrt(variance) * random.standard_normal(size[1])
    logs = np.interp(random.random(n), shape.probabilities, shape.logs) + shifts[batch]
    step = 1 if n <= FINE else COARSE
    # The last bin of its cell stands for a cell, so that the cell's upper edge is where it ends.
    bins, columns = np.unique(bin_of(np.exp(logs)) // step * step + step - 1, return_inverse=True)
    counts = np.zeros((size[1], bins.size), dtype=np.int64)
    np.add.at(counts, (batch, columns), 1)
    return Histogram(bins, counts)
