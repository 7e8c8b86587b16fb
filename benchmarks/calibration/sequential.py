"""Do the sequential tests keep their level when they are looked at all the time, and how soon do they stop?

python benchmarks/calibration/sequential.py [RUNS]

Every look of every run is worked out at once, by formulas written down anew with scipy; what `analysis` itself says is
asked at the look of each run that is most against the truth, and must agree.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, gammaln, logsumexp, xlogy

from analysis import failures, split
from analysis.failures import Arm, Pair
from analysis.split import Counts
from analysis.stats import multinomial
from analysis.stats.bernoulli import ZERO_WEIGHT
from experiments.core.hypotheses import CONCENTRATIONS, Hypotheses, SplitHypothesis

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
EVERY = 100
LOOKS = 200
AT_ONCE = 250
"""Runs that are simulated together: more only take memory."""


@dataclass(frozen=True)
class SplitCase:
    """Configured and true shares; `hidden` is the part of each arm's requests whose arm nobody knows."""

    name: str
    configured: tuple[float, ...]
    true: tuple[float, ...]
    tolerance: float = 0.0
    concentrations: tuple[float, ...] = CONCENTRATIONS
    hidden: tuple[float, ...] = ()
    periods: int = 1


TWO = (0.7, 0.3)
EDGE = (0.65, 0.35)
SPLITS = (
    SplitCase("70/30", TWO, TWO),
    *(SplitCase(f"70/30, only k = {k:g}", TWO, TWO, concentrations=(k,)) for k in CONCENTRATIONS),
    SplitCase("50/50", (0.5, 0.5), (0.5, 0.5)),
    SplitCase("99/1", (0.99, 0.01), (0.99, 0.01)),
    SplitCase("99.99/0.01", (0.9999, 0.0001), (0.9999, 0.0001)),
    SplitCase("60/30/10", (0.6, 0.3, 0.1), (0.6, 0.3, 0.1)),
    SplitCase("50 arms of 2", (0.02,) * 50, (0.02,) * 50),
    SplitCase("70/30/0, nothing leaks", (0.7, 0.3, 0.0), (0.7, 0.3, 0.0)),
    SplitCase("70/30 in three periods", TWO, TWO, periods=3),
    SplitCase("70/30 ± 5 pp, served 65/35", TWO, EDGE, 0.05),
    SplitCase("60/30/10 ± 5 pp, served 65/25/10", (0.6, 0.3, 0.1), (0.65, 0.25, 0.1), 0.05),
    SplitCase("70/30, a fifth of the 30 unattributed", TWO, TWO, hidden=(0.0, 0.2)),
    SplitCase("70/30, a tenth of all unattributed", TWO, TWO, hidden=(0.1, 0.1)),
    SplitCase("70/30 ± 5 pp, served 65/35, a tenth unattributed", TWO, EDGE, 0.05, hidden=(0.1, 0.1)),
)


@dataclass(frozen=True)
class FailureCase:
    """True failure rates of the canary and of the baseline; `hidden` is the part of failures whose arm is unknown."""

    name: str
    canary: float
    baseline: float
    margin: float = 0.0
    weight: float = 0.3
    hidden: float = 0.0


FAILURES = (
    *(FailureCase(f"{rate:g} in both", rate, rate) for rate in (0.0, 1e-4, 1e-3, 0.01, 0.1, 0.5, 1.0)),
    FailureCase("0.01 in both, canary 1 %", 0.01, 0.01, weight=0.01),
    FailureCase("0.1 in both, canary 50 %", 0.1, 0.1, weight=0.5),
    FailureCase("1 pp more, 1 pp allowed, baseline never", 0.01, 0.0, 0.01),
    FailureCase("1 pp more, 1 pp allowed, baseline 0.001", 0.011, 0.001, 0.01),
    FailureCase("5 pp more, 5 pp allowed, baseline 0.1", 0.15, 0.1, 0.05),
    FailureCase("0.05 in both, half of the failures of no known arm", 0.05, 0.05, hidden=0.5),
)


def registered(concentrations: tuple[float, ...]) -> Hypotheses:
    """What a run would have registered, but with all of alpha for the test under examination."""
    return Hypotheses(
        ALPHA, ALPHA, ALPHA, ALPHA, list(concentrations), "a0", [], [], [], [], {}, 8, []
    )  # fmt: skip


def log_mixture(periods: list[Floats], shares: Floats, concentrations: tuple[float, ...]) -> Floats:
    """The log of the mean over k of the Dirichlet-multinomial probability of counts by period (last axis: arms)."""
    logs = []
    for k in concentrations:
        posterior = sum(gammaln(k * shares + one).sum(-1) - gammaln(k + one.sum(-1)) for one in periods)
        logs.append(posterior - len(periods) * (gammaln(k * shares).sum() - gammaln(k)))
    return np.asarray(logsumexp(logs, axis=0) - math.log(len(logs)))


def log_wrong(case: SplitCase, periods: list[Floats]) -> Floats:
    """The log e-value against every share within the tolerance, of counts by period (run, look, arm)."""
    shares = np.array(case.configured)
    some = shares > 0
    mixed = log_mixture([counts[..., some] for counts in periods], shares[some], case.concentrations)
    counts = np.asarray(sum(periods))[..., some]
    n = counts.sum(-1)
    peak = mixed - (xlogy(counts, counts).sum(-1) - xlogy(n, n))
    low, high = np.maximum(shares[some] - case.tolerance, 0), np.minimum(shares[some] + case.tolerance, 1)
    nearest = np.clip(counts / n[..., None], low, high)
    rest = n[..., None] - counts
    gap = xlogy(counts, counts / n[..., None] / nearest) + xlogy(rest, rest / n[..., None] / (1 - nearest))
    return np.asarray(peak + gap.max(-1))


def ways(case: SplitCase, known: list[Floats], unknown: list[Floats]) -> Iterator[list[Floats]]:
    """Every way to give out the unknown requests: to each arm in turn, and as near to the configured as can be."""
    if not case.hidden:
        yield known
        return
    shares = np.array(case.configured)
    for arm in range(shares.size):
        yield [a + u[..., None] * (np.arange(shares.size) == arm) for a, u in zip(known, unknown, strict=True)]
    filled = []
    for a, u in zip(known, unknown, strict=True):
        wanting = np.maximum((a.sum(-1) + u)[..., None] * shares - a, 0)
        filled.append(a + wanting * (u / np.maximum(wanting.sum(-1), 1e-300))[..., None])
    yield filled


def draw(case: SplitCase, random: np.random.Generator, runs: int) -> tuple[list[Floats], list[Floats]]:
    """Known counts (run, look, arm) and unknown ones (run, look) by period; a period has its share of the looks."""
    each = random.multinomial(EVERY, case.true, (runs, LOOKS)).astype(np.float64)
    hidden = random.binomial(each.astype(int), case.hidden) if case.hidden else np.zeros_like(each)
    period = np.arange(LOOKS) * case.periods // LOOKS
    parts = [((each - hidden) * (period == p)[None, :, None], hidden * (period == p)[None, :, None])
             for p in range(case.periods)]  # fmt: skip
    return [k.cumsum(1) for k, _ in parts], [u.sum(-1).cumsum(1) for _, u in parts]


def split_alarms(case: SplitCase, runs: int) -> tuple[float, float]:
    """Share of runs that ever call the true shares wrong, and that call them right at the tolerance's edge."""
    random = np.random.default_rng(1)
    wrong = right = 0
    for start in range(0, runs, AT_ONCE):
        known, unknown = draw(case, random, min(AT_ONCE, runs - start))
        logs = np.min([log_wrong(case, way) for way in ways(case, known, unknown)], axis=0)
        for run, look in enumerate(logs.argmax(axis=1)):
            told = asked(case, known, unknown, (run, int(look)))
            assert abs(told.log_e - logs[run, look]) < 1e-6 * max(1.0, abs(told.log_e)), (case.name, told.log_e)
            wrong += told.log_e >= -math.log(ALPHA)
        if case.tolerance:
            right += int(called_right(case, known, unknown).sum())
    return wrong / runs, right / runs if case.tolerance else math.nan


def asked(case: SplitCase, known: list[Floats], unknown: list[Floats], at: tuple[int, int]) -> split.Judged:
    """What `analysis` says of one look; periods that have not begun are left out, as they are in a run."""
    begun = [(k[at], u[at]) for k, u in zip(known, unknown, strict=True) if k[at].sum() + u[at] > 0]
    arms = tuple(f"a{index}" for index in range(len(case.configured)))
    counts = Counts(arms, tuple(tuple(map(float, k)) for k, _ in begun), tuple(float(u) for _, u in begun))
    shares = dict(zip(arms, case.configured, strict=True))
    hypothesis = SplitHypothesis("split", "p", ["c"], shares, case.tolerance, required=True)
    return split.judge_counts(counts, hypothesis, registered(case.concentrations))


def called_right(case: SplitCase, known: list[Floats], unknown: list[Floats]) -> npt.NDArray[np.bool_]:
    """The runs in which the confidence sequences ever lie inside the tolerance, although the truth is at its edge.

    Of each run the look at which the edge is most excluded from within is asked.
    """
    found = []
    off = [arm for arm, (a, b) in enumerate(zip(case.configured, case.true, strict=True)) if a != b]
    edge = replace(case, tolerance=0.0)
    total = np.asarray(sum(k.sum(-1) + u for k, u in zip(known, unknown, strict=True)))
    got = np.asarray(sum(known))
    inside = np.all([np.abs(got[..., a] / total - case.configured[a]) < case.tolerance for a in off], axis=0)
    logs = np.min([against(edge, way, off[0]) for way in ways(case, known, unknown)], axis=0)
    logs = np.where(inside, logs, -np.inf)
    for run, look in enumerate(logs.argmax(axis=1)):
        found.append(bool(np.isfinite(logs[run, look])) and asked(case, known, unknown, (run, int(look))).shown)
    return np.array(found)


def against(case: SplitCase, periods: list[Floats], arm: int) -> Floats:
    """The log e-value against one arm's true share, by counts of several periods."""
    shares, counts = np.array(case.configured), np.asarray(sum(periods))
    mixed = log_mixture(periods, shares, case.concentrations)
    n = counts.sum(-1)
    peak = mixed - (xlogy(counts, counts).sum(-1) - xlogy(n, n))
    hit, true = counts[..., arm], case.true[arm]
    return np.asarray(peak + xlogy(hit, hit / n / true) + xlogy(n - hit, (n - hit) / n / (1 - true)))


def log_peak(n: Floats, hits: Floats) -> Floats:
    """The mixture of "never" and Beta(½, ½) at the rate that fits best."""
    spread = betaln(hits + 0.5, n - hits + 0.5) - math.log(math.pi) + math.log(1 - ZERO_WEIGHT)
    spread -= xlogy(hits, hits / n) + xlogy(n - hits, (n - hits) / n)
    return np.where(hits > 0, spread, np.log(ZERO_WEIGHT + np.exp(spread)))


def log_difference(first: tuple[Floats, Floats], second: tuple[Floats, Floats], margin: float) -> Floats:
    """The log e-value against "first's rate − second's rate = margin": the base rate is found by halving."""
    (n, x), (m, y) = first, second
    low, high = np.zeros(x.shape), np.full(x.shape, 1.0 - margin)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(100):
            base = (low + high) / 2
            score = x / (base + margin) - (n - x) / (1 - base - margin) + y / base - (m - y) / (1 - base)
            low, high = np.where(score > 0, base, low), np.where(score > 0, high, base)
    base = (low + high) / 2
    fit = xlogy(x, x / n) + xlogy(n - x, (n - x) / n) + xlogy(y, y / m) + xlogy(m - y, (m - y) / m)
    at = xlogy(x, base + margin) + xlogy(n - x, 1 - base - margin) + xlogy(y, base) + xlogy(m - y, 1 - base)
    return np.asarray(log_peak(n, x) + log_peak(m, y) + fit - at)


def failure_alarms(case: FailureCase, runs: int) -> tuple[float, float]:
    """Share of runs that ever find an increase above the allowed one, and that ever find it to be below.

    A margin of 0 asks for the first only.
    """
    random = np.random.default_rng(3)
    n = random.binomial(EVERY, case.weight, (runs, LOOKS)).cumsum(1).astype(np.float64)
    m = EVERY * np.arange(1, LOOKS + 1) - n
    new = np.diff(n, axis=1, prepend=0).astype(int), np.diff(m, axis=1, prepend=0).astype(int)
    failed = random.binomial(new[0], case.canary), random.binomial(new[1], case.baseline)
    hidden = [random.binomial(one, case.hidden).cumsum(1).astype(np.float64) for one in failed]
    x, y = (one.cumsum(1) - h for one, h in zip(failed, hidden, strict=True))
    given = [(n - hidden[0], x), (m - hidden[1], y)]
    both = hidden[0] + hidden[1]
    each = [given] if not case.hidden else [
        [(given[0][0] + both, x + both), given[1]], [given[0], (given[1][0] + both, y + both)]]  # fmt: skip
    found = []
    for sign in (1, -1):
        logs = np.min([_beyond(way, case.margin, sign) for way in each], axis=0)
        found.append(sum(_asked(case, (given, both), logs, run, sign) for run in range(runs)) / runs)
    return found[0], found[1] if case.margin else math.nan


def _beyond(way: list[tuple[Floats, Floats]], margin: float, sign: int) -> Floats:
    (n, x), (m, y) = way
    with np.errstate(divide="ignore", invalid="ignore"):
        rises = sign * (x / n - y / m - margin) > 0
        logs = log_difference((n, x), (m, y), margin)
    return np.where(rises & (n > 0) & (m > 0), logs, -np.inf)


def _asked(
    case: FailureCase, seen: tuple[list[tuple[Floats, Floats]], Floats], logs: Floats, run: int, sign: int
) -> bool:
    """Whether `analysis` says so at the look of this run that says it most clearly."""
    look = int(logs[run].argmax())
    if not np.isfinite(logs[run, look]):
        return False
    given, unknown = seen
    canary, baseline = (Arm(float(n[run, look]), float(hits[run, look])) for n, hits in given)
    pair = Pair(canary, baseline, Arm(float(unknown[run, look]), float(unknown[run, look])))
    if sign < 0:
        return failures.is_shown(pair, case.margin, ALPHA)
    told = failures.log_e_harm(pair, case.margin)
    assert abs(told - logs[run, look]) < 1e-5 * max(1.0, abs(told)), (case.name, told, logs[run, look])
    return told >= -math.log(ALPHA)


@dataclass(frozen=True)
class WaveCase:
    """Failures that come and go in both arms alike: the rate and the canary's weight in each tenth of the looks."""

    name: str
    rates: tuple[float, ...]
    weights: tuple[float, ...] = (0.3,) * 10


WAVE = (0.001, 0.3, 0.001, 0.3, 0.001, 0.3, 0.001, 0.3, 0.001, 0.3)
WAVES = (
    WaveCase("0.05 in both", (0.05,) * 10),
    WaveCase("0.001 and 0.3 in turn in both", WAVE),
    WaveCase("0.001, then 0.3, in both; canary 10 %, then 50 %", (0.001,) * 5 + (0.3,) * 5, (0.1,) * 5 + (0.5,) * 5),
)


def wave_alarms(case: WaveCase, runs: int) -> tuple[float, float, float]:
    """Shares of runs that ever say that the canary fails more, or otherwise, where both arms fail alike.

    By the difference of rates; by the failures given exposure, each tenth by its weight; and by those given one weight.
    """
    random, tenth = np.random.default_rng(6), np.arange(LOOKS) * 10 // LOOKS
    rate, weight = np.array(case.rates)[tenth], np.array(case.weights)[tenth]
    n = random.binomial(EVERY, weight, (runs, LOOKS))
    x, y = random.binomial(n, rate), random.binomial(EVERY - n, rate)
    all_n = n.cumsum(1).astype(np.float64)
    arms = [
        (all_n, x.cumsum(1).astype(np.float64)),
        (EVERY * np.arange(1, LOOKS + 1) - all_n, y.cumsum(1).astype(np.float64)),
    ]
    failed = np.stack([x, y], axis=-1).astype(np.float64)
    logs = np.zeros((runs, LOOKS))
    for share in dict.fromkeys(case.weights):  # one e-process for each weight, and their product
        own = (failed * (weight == share)[None, :, None]).cumsum(1)
        logs += _given(own, share)
    pooled = _given(failed.cumsum(1), float(weight.mean()))
    found = [_beyond(arms, 0.0, 1), logs, pooled]
    for run, look in enumerate(pooled.argmax(axis=1)):
        told = multinomial.observe(
            [failed.cumsum(1)[run, look].tolist()], [weight.mean(), 1 - weight.mean()], CONCENTRATIONS
        )
        assert abs(told.log_e - pooled[run, look]) < 1e-6 * max(1.0, abs(told.log_e)), case.name
    first, second, third = ((one.max(axis=1) >= -math.log(ALPHA)).mean() for one in found)
    return float(first), float(second), float(third)


def _given(failed: Floats, share: float) -> Floats:
    shares = np.array([share, 1 - share])
    return np.asarray(log_mixture([failed], shares, CONCENTRATIONS) - (failed * np.log(shares)).sum(-1))


def median_stop(expected: float, true: float, last: int, runs: int) -> tuple[float, float, float]:
    """Requests until the configured share is refuted: the median, with ± 2 s.e. of its rank.

    Looked at 4 000 times or at every request, whichever is less.
    """
    random = np.random.default_rng(2)
    step = max(last // 4000, 1)
    n = np.arange(step, last + 1, step)
    stops = []
    for _ in range(runs):
        hits = random.binomial(step, true, n.size).cumsum()
        counts = np.stack([hits, n - hits], axis=-1).astype(np.float64)
        shares = np.array([expected, 1 - expected])
        logs = log_mixture([counts], shares, CONCENTRATIONS) - (counts * np.log(shares)).sum(-1)
        crossed = np.flatnonzero(logs >= -np.log(ALPHA))
        stops.append(n[crossed[0]] if crossed.size else math.inf)
        if crossed.size:
            at = counts[crossed[0]]
            assert multinomial.observe([at.tolist()], shares.tolist(), CONCENTRATIONS).log_e >= -math.log(ALPHA)
    ordered, half = np.sort(stops), math.sqrt(runs)
    return tuple(float(ordered[round(at)]) for at in (runs / 2, runs / 2 - half, runs / 2 + half))  # type: ignore[return-value]


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def main() -> None:
    """Print the tables."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    se = math.sqrt(ALPHA * (1 - ALPHA) / runs)
    print(f"Level .05, {LOOKS} looks, one every {EVERY} requests, {runs} runs a cell (s.e. of .05: {se:.4f}).\n")
    print("| split: configured, true | ever called wrong | ever called right |\n|---|---|---|")
    for case in SPLITS:
        print(f"| {case.name} | {' | '.join(map(_cell, split_alarms(case, runs)))} |", flush=True)
    print("\n| failures: true | ever called more | ever called less than allowed |\n|---|---|---|")
    for one in FAILURES:
        print(f"| {one.name} | {' | '.join(map(_cell, failure_alarms(one, runs)))} |", flush=True)
    print("\n| failures alike in both | difference of rates | given exposure | given one exposure |\n|---|---|---|---|")
    for wave in WAVES:
        print(f"| {wave.name} | {' | '.join(map(_cell, wave_alarms(wave, runs)))} |", flush=True)
    print("\n| configured → true | median requests to refute | ± 2 s.e. |\n|---|---|---|")
    for expected, true, last in ((0.7, 0.71, 60_000), (0.9, 0.8, 2000), (0.7, 0.3, 500)):
        middle, low, high = median_stop(expected, true, last, runs)
        print(f"| {expected:g} → {true:g} | {middle:.0f} | {low:.0f} to {high:.0f} |", flush=True)


if __name__ == "__main__":
    main()
