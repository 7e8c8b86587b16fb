"""How often do the intervals of a report hold what they are about?

python benchmarks/calibration/coverage.py [RUNS]

Sequences are looked at from 50 requests on, twenty times a decade: one miss at any look so far is a miss. What excludes
the truth is worked out for all looks at once by the formulas of `sequential.py`, and what `analysis` says is asked at
the worst look of every run. Intervals for one look are asked at each size.
"""

import math
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import betaln, xlogy
from sequential import SplitCase, against, asked, log_difference, log_peak

from analysis import secondary
from analysis.split import BEFORE_A_HIT
from analysis.stats import bernoulli, fixed
from analysis.stats.bands import band_sum, largest_gap
from analysis.stats.bins import bin_of, lower_edge, middle
from analysis.stats.quantiles import order_statistic_interval, quantile_sequence
from analysis.stats.ranks import brunner_munzel, shift_ratio, superiority_interval

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

ALPHA = 0.05
SIZES = (50, 200, 1000, 10_000, 100_000, 1_000_000)
LOOKS = np.unique(np.concatenate([np.geomspace(50, 1e6, 87).round(), SIZES])).astype(np.int64)
STEPS = np.diff(LOOKS, prepend=0)
AT = np.searchsorted(LOOKS, SIZES)
SIGMA = 0.3

WEIGHT = 0.3
"""Part of the requests that go to the canary."""


def sequence(excluded: Flags) -> Floats:
    """Coverage up to each size, from where each look of each run excludes the truth."""
    ever: Flags = np.logical_or.accumulate(excluded, axis=1)
    return np.asarray(1 - ever[:, AT].mean(axis=0))


def shares(random: np.random.Generator, case: SplitCase, arm: int, runs: int) -> Floats:
    """The confidence sequence of one arm's share."""
    each = np.stack([random.multinomial(step, case.true, runs) for step in STEPS], axis=1)
    hidden = random.binomial(each, case.hidden) if case.hidden else np.zeros_like(each)
    known, unknown = (each - hidden).cumsum(1).astype(np.float64), hidden.sum(-1).cumsum(1).astype(np.float64)
    ways = [known + unknown[..., None] * (np.arange(len(case.true)) == to) for to in range(len(case.true))]
    logs = np.min([against(case, [way], arm) for way in ways if case.hidden or way is ways[0]], axis=0)
    excluded = logs > -math.log(ALPHA)
    for run, look in enumerate(logs.argmax(axis=1)):
        low, high = asked(case, [known], [unknown], (run, int(look))).intervals[arm]
        inside = low <= case.true[arm] <= high
        # With unknown requests the interval also spans what lies between its extremes: it may hold more, never less.
        assert inside >= (not excluded[run, look]), (case.name, run, look)
        excluded[run] &= not inside
    return sequence(excluded)


def leak(random: np.random.Generator, true: float, runs: int) -> Floats:
    """The share of an arm that should get nothing."""
    hits = np.stack([random.binomial(step, true, runs) for step in STEPS], axis=1).cumsum(1).astype(np.float64)
    n = LOOKS.astype(np.float64)
    spread = betaln(hits + 0.5, n - hits + 0.5) - math.log(math.pi)
    logs = spread - xlogy(hits, true) - xlogy(n - hits, 1 - true)
    never = n * math.log1p(-true) < math.log(BEFORE_A_HIT * ALPHA)
    excluded = np.where(hits > 0, logs > -math.log((1 - BEFORE_A_HIT) * ALPHA), never)
    case = SplitCase("leak", (1.0, 0.0), (1 - true, true))
    for run in range(runs):
        look = int(excluded[run].argmax())
        low, high = asked(case, [np.stack([n - hits[run], hits[run]], -1)], [0 * n], (look,)).intervals[1]  # type: ignore[arg-type]
        assert (low <= true <= high) == (not excluded[run, look]), (true, run, look)
    return sequence(excluded)


def beside_leak(random: np.random.Generator, true: float, runs: int) -> Floats:
    """The share of an arm beside one that should get nothing: both sequences together, at a third of the looks."""
    case = SplitCase("beside a leak", (0.7, 0.3, 0.0), (0.7 * (1 - true), 0.3 * (1 - true), true))
    known = np.stack([random.multinomial(step, case.true, runs) for step in STEPS], axis=1).cumsum(1).astype(np.float64)
    excluded = np.zeros(known.shape[:2], dtype=bool)
    for look in sorted({*range(0, len(LOOKS), 3), *AT.tolist()}):
        for run in range(runs):
            low, high = asked(case, [known], [np.zeros(known.shape[:2])], (run, look)).intervals[0]
            excluded[run, look] = not low <= case.true[0] <= high
    return sequence(excluded)


def rates(random: np.random.Generator, true: float, runs: int) -> Floats:
    """The confidence sequence of a failure rate."""
    hits = np.stack([random.binomial(step, true, runs) for step in STEPS], axis=1).cumsum(1).astype(np.float64)
    n = np.broadcast_to(LOOKS.astype(np.float64), hits.shape)
    logs = log_peak(n, hits) + xlogy(hits, hits / n / true) + xlogy(n - hits, (n - hits) / n / (1 - true))
    excluded = logs > -math.log(ALPHA)
    for run, look in enumerate(logs.argmax(axis=1)):
        low, high = bernoulli.rate_interval(bernoulli.observe(float(n[run, look]), float(hits[run, look])), ALPHA)
        assert (low <= true <= high) == (not excluded[run, look]), (true, run, look)
    return sequence(excluded)


Arms = tuple[Floats, Floats, Floats, Floats]


def two_arms(random: np.random.Generator, p: float, q: float, runs: int) -> Arms:
    """Requests and failures of canary and baseline at every look."""
    new = [random.binomial(step, WEIGHT, runs) for step in STEPS]
    n = np.stack(new, axis=1)
    x, y = random.binomial(n, p), random.binomial(STEPS - n, q)
    n, m = n.cumsum(1), (STEPS - n).cumsum(1)
    return n.astype(np.float64), x.cumsum(1).astype(np.float64), m.astype(np.float64), y.cumsum(1).astype(np.float64)


def differences(random: np.random.Generator, p: float, q: float, runs: int) -> Floats:
    """The confidence sequence of a difference of failure rates."""
    n, x, m, y = two_arms(random, p, q, runs)
    first, second, sign = ((n, x), (m, y), 1) if p >= q else ((m, y), (n, x), -1)
    logs = log_difference(first, second, abs(p - q))
    excluded = logs > -math.log(ALPHA)
    for run, look in enumerate(logs.argmax(axis=1)):
        ours, theirs = (bernoulli.observe(float(a[run, look]), float(b[run, look])) for a, b in (first, second))
        low, high = bernoulli.difference_interval(ours, theirs, ALPHA)
        assert (low <= sign * (p - q) <= high) == (not excluded[run, look]), (p, q, run, look)
    return sequence(excluded)


@lru_cache(maxsize=200_000)
def _difference_at_one_look(
    first: tuple[float, float], second: tuple[float, float], alpha: float
) -> tuple[float, float]:
    return fixed.newcombe(first, second, alpha)


def difference_for_one_look(random: np.random.Generator, p: float, q: float, alpha: float, runs: int) -> Floats:
    """Newcombe's interval."""
    n, x, m, y = (each[:, AT] for each in two_arms(random, p, q, runs))
    found = np.empty(n.shape, dtype=bool)
    for at in np.ndindex(*n.shape):
        low, high = _difference_at_one_look((x[at], n[at]), (y[at], m[at]), alpha)
        found[at] = low <= p - q <= high
    return np.asarray(found.mean(axis=0))


def rate_for_one_look(random: np.random.Generator, p: float, runs: int) -> Floats:
    """Clopper and Pearson's interval."""
    found = []
    for n in SIZES:
        hits, times = np.unique(random.binomial(n, p, runs), return_counts=True)
        ends = [fixed.clopper_pearson(int(hit), n, ALPHA) for hit in hits]
        found.append(sum(k for (low, high), k in zip(ends, times, strict=True) if low <= p <= high) / runs)
    return np.array(found)


def quantile(random: np.random.Generator, p: float, runs: int, *, one_look: bool) -> Floats:
    """Order statistics that bound a quantile: what matters of the values is how many lie below it."""
    below = np.stack([random.binomial(step, p, runs) for step in STEPS], axis=1).cumsum(1)
    excluded = np.zeros(below.shape, dtype=bool)
    for look, n in enumerate(LOOKS.tolist()):
        ranks = np.arange(1.0, n + 1)
        told = (ranks, np.ones(n), p, ALPHA)
        low, high = order_statistic_interval(*told) if one_look else quantile_sequence(*told, secondary.FIRST_LOOK)
        excluded[:, look] = (below[:, look] < (low or 0)) | (below[:, look] >= (high or math.inf))
    if one_look:
        return np.asarray(1 - excluded[:, AT].mean(axis=0))
    return sequence(excluded)


class Latencies:
    """Lognormal latencies on the bins of a report: arms that differ by a factor."""

    def __init__(self, factor: float) -> None:
        edges = [20_000 * math.exp(SIGMA * z) * f for z, f in ((-6, min(factor, 1)), (6, max(factor, 1)))]
        first, last = bin_of(edges)
        self.bins = np.arange(first, last + 1)
        self.factor = factor
        top = lower_edge(self.bins + 1)
        self.parts = [np.diff(stats.norm.cdf(np.log(top / 20_000 / by) / SIGMA), prepend=0) for by in (1.0, factor)]
        for part in self.parts:
            part[-1] += 1 - part.sum()

    def draw(self, random: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        """Counts by bin of baseline and canary, `n` requests in all."""
        canary = int(random.binomial(n, WEIGHT))
        first, second = (random.multinomial(k, part) for k, part in zip((n - canary, canary), self.parts, strict=True))
        return first.astype(np.float64), second.astype(np.float64)


def ranks(random: np.random.Generator, factor: float, runs: int) -> Floats:
    """Brunner and Munzel's interval of the chance that the canary is slower."""
    drawn = Latencies(factor)
    below = np.cumsum(drawn.parts[0]) - drawn.parts[0] / 2
    true = float((below * drawn.parts[1]).sum())

    def holds(first: Floats, second: Floats) -> bool:
        found = brunner_munzel(first, second, ALPHA)
        if found is None:
            return True
        low, high = superiority_interval(found, first.sum(), second.sum(), ALPHA)
        return low <= true <= high

    return one_look(random, drawn, holds, runs)


def factors(random: np.random.Generator, factor: float, runs: int) -> Floats:
    """Hodges and Lehmann's interval of the factor."""
    drawn = Latencies(factor)
    values = middle(drawn.bins)

    def holds(first: Floats, second: Floats) -> bool:
        some = [(values[counts > 0], counts[counts > 0]) for counts in (first, second)]
        found = shift_ratio(some[0], some[1], ALPHA)
        return found is None or found[1] <= factor <= found[2]

    return one_look(random, drawn, holds, runs)


def bands(random: np.random.Generator, factor: float, runs: int) -> Floats:
    """The band of the largest gap between the distributions."""
    drawn = Latencies(factor)
    true = float(np.abs(np.cumsum(drawn.parts[0]) - np.cumsum(drawn.parts[1])).max())

    def holds(first: Floats, second: Floats) -> bool:
        radius = band_sum(first.sum(), second.sum(), ALPHA, secondary.FIRST_LOOK)
        gap = max(largest_gap(first, second))
        return gap - radius <= true <= gap + radius

    return one_look(random, drawn, holds, runs)


def one_look(
    random: np.random.Generator, drawn: Latencies, holds: Callable[[Floats, Floats], bool], runs: int
) -> Floats:
    """Coverage at each size."""
    return np.array([np.mean([holds(*drawn.draw(random, n)) for _ in range(runs)]) for n in SIZES])


SHARES = (
    (SplitCase("70/30", (0.7, 0.3), (0.7, 0.3)), 1),
    (SplitCase("70/30, served 30/70", (0.7, 0.3), (0.3, 0.7)), 1),
    (SplitCase("99/1", (0.99, 0.01), (0.99, 0.01)), 1),
    (SplitCase("99.99/0.01", (0.9999, 0.0001), (0.9999, 0.0001)), 1),
    (SplitCase("60/30/10, the 10", (0.6, 0.3, 0.1), (0.6, 0.3, 0.1)), 2),
    (SplitCase("70/30, a fifth of the 30 unattributed", (0.7, 0.3), (0.7, 0.3), hidden=(0.0, 0.2)), 1),
)
PAIRS = ((0.0001, 0.0001), (0.001, 0.001), (0.01, 0.01), (0.1, 0.1), (0.5, 0.5), (0.02, 0.001), (0.0, 0.01), (0.3, 0.1))


def _leaks(random: np.random.Generator, runs: int) -> Iterator[tuple[str, Floats]]:
    for true in (1e-5, 0.001, 0.05):
        yield f"share that should be none, every look: {true:g}", leak(random, true, runs)
    for true in (0.0, 0.001, 0.05):
        beside = np.random.default_rng(5)  # its own, so that what comes after it stays as it was
        yield f"share beside a leak, every look: {true:g} of 70/30/0", beside_leak(beside, true, runs)


def table(runs: int) -> Iterator[tuple[str, Floats]]:
    """Every interval, a case at a time."""
    random = np.random.default_rng(4)
    for case, arm in SHARES:
        yield f"share, every look: {case.name}", shares(random, case, arm, runs)
    yield from _leaks(random, runs)
    for true in (1e-4, 0.01, 0.3, 0.999):
        yield f"failure rate, every look: {true:g}", rates(random, true, runs)
    for p, q in PAIRS:
        yield f"difference of failures, every look: {p:g} − {q:g}", differences(random, p, q, runs)
    for p, q in PAIRS:
        for alpha in (ALPHA, ALPHA / 4):
            name = f"difference of failures, one look, {1 - alpha:.2%}: {p:g} − {q:g}"
            yield name, difference_for_one_look(random, p, q, alpha, runs)
    for true in (0.001, 0.05, 0.5, 0.9):
        yield f"accuracy, one look: {true:g}", rate_for_one_look(random, true, runs)
    for p in (0.5, 0.95, 0.99, 0.999):
        yield f"quantile {p:g}, every look", quantile(random, p, runs, one_look=False)
        yield f"quantile {p:g}, one look", quantile(random, p, runs, one_look=True)
    for factor in (1.0, 1.2, 3.0):
        yield f"chance to be slower, one look: times {factor:g}", ranks(random, factor, runs)
        yield f"largest gap of distributions: times {factor:g}", bands(random, factor, runs)
        yield f"factor, one look: times {factor:g}", factors(random, factor, runs)


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    se = math.sqrt(ALPHA * (1 - ALPHA) / runs)
    print(f"Level 95 % where none is named, {runs} runs a case (s.e. of .95: {se:.4f}).\n")
    print(f"| interval, truth | {' | '.join(f'{n:,}'.replace(',', ' ') for n in SIZES)} |")
    print(f"|---|{'---|' * len(SIZES)}")
    for name, found in table(runs):
        print(f"| {name} | {' | '.join(f'{value:.4f}' for value in found)} |", flush=True)


if __name__ == "__main__":
    main()
