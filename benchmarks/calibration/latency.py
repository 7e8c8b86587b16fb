"""How often does the latency test err? Identical arms under noise that real servers make, at a nominal 2.5 % a side.

    python benchmarks/calibration/latency.py [RUNS [SECONDS]]

Each line is one cell: how often the interval lies wholly below the truth ("faster") or above it ("slower"), of all
runs; how often it misses the truth among the runs in which it is shown, which may be .05 + 2 s.e. ("allowed"); how many
times wider it is than that of independent batches, at the median and at the scale of single batches ("width"); how many
runs are not judged, because the batches cannot exclude that an arm wanders without end. s.e. is that of the Monte
Carlo. Noise is AR(1) in steps of 0.1 s, on the log scale, with the given part of the variance; the rest is independent
between requests. SECONDS bounds each cell's time.

The second table: batches of ten correlation lengths, 40 of them or more, and a canary slower by twice the planned
effect, which is what has 80 % power by the spread of the estimate in runs like these ("an earlier run"). The third:
registered looks with alpha spending. The fourth: large effects in few batches. The fifth: the interval of one arm's
quantile, and how many times wider than that of independent values it is in the median of the runs in which it is shown;
the sixth: the same in cells that it was not chosen by.
"""

import math
import sys
import time
from dataclasses import dataclass

import numpy as np
from scipy import optimize, signal, special, stats

from analysis.stats.batches import MANY
from analysis.stats.bins import bin_of, lower_edge, middle
from analysis.stats.exceedances import Histogram
from analysis.stats.quantiles import order_statistic_interval
from analysis.stats.woodruff import quantile_interval
from analysis.trials import Trial, limit_trial, mean_trial, quantile_trial
from experiments.core.hypotheses import ALPHA as LEVEL
from experiments.core.hypotheses import LATENCY_PART, MIN_BATCHES, looks

STEP = 0.1
ALPHA = 0.025
MEDIAN_US = 100_000
ROUNDING = 1.008
"""Latencies of quantiles are rounded to that."""


@dataclass(frozen=True)
class Cell:
    """One kind of load and noise."""

    rate: float
    batches: int
    seconds: float
    quantile: float
    noise: str
    phi: float = 0.0
    part: float = 1.0
    sigma: float = 0.5
    measure: str = "quantile"


CELLS = (
    Cell(3.5, 21, 3, 0.5, "iid"),
    Cell(8, 15, 3, 0.5, "iid"),
    Cell(8, 15, 3, 0.5, "shared", 0.99),
    Cell(8, 15, 3, 0.5, "per-arm", 0.9),
    Cell(8, 15, 3, 0.5, "per-arm", 0.9, 0.5),
    Cell(8, 15, 3, 0.5, "per-arm", 0.99),
    Cell(8, 15, 3, 0.5, "per-arm", 0.99, 0.3),
    Cell(20, 60, 3, 0.95, "iid"),
    Cell(20, 60, 3, 0.95, "shared", 0.99),
    Cell(20, 60, 3, 0.95, "per-arm", 0.9),
    Cell(20, 60, 3, 0.95, "per-arm", 0.99),
    Cell(20, 60, 3, 0.95, "per-arm", 0.99, 0.3),
    Cell(20, 60, 1, 0.95, "per-arm", 0.99),
    Cell(20, 60, 1, 0.5, "per-arm", 0.9),
    Cell(20, 60, 1, 0.5, "per-arm", 0.99, 0.3),
    Cell(20, 30, 10, 0.95, "per-arm", 0.9),
    Cell(20, 30, 10, 0.95, "per-arm", 0.99),
    Cell(100, 12, 2.5, 0.5, "iid"),
    Cell(100, 12, 2.5, 0.95, "iid"),
    Cell(100, 12, 2.5, 0.5, "per-arm", 0.9),
    Cell(100, 12, 2.5, 0.5, "per-arm", 0.99),
    Cell(100, 60, 1, 0.99, "iid"),
    Cell(20, 60, 3, 0.5, "bursts"),
    Cell(20, 60, 3, 0.95, "bursts"),
    Cell(20, 60, 3, 0.5, "drift"),
    Cell(8, 15, 3, 0.5, "iid", measure="mean"),
    Cell(8, 15, 3, 0.5, "per-arm", 0.9, measure="mean"),
    Cell(20, 60, 3, 0.5, "per-arm", 0.99, 0.3, measure="mean"),
    Cell(20, 60, 3, 0.95, "iid", measure="limit"),
    Cell(20, 60, 3, 0.95, "per-arm", 0.9, measure="limit"),
    Cell(20, 60, 3, 0.95, "per-arm", 0.99, 0.3, measure="limit"),
    Cell(3.5, 21, 3, 0.5, "per-arm", 0.9),
    Cell(3.5, 21, 3, 0.5, "per-arm", 0.99),
    Cell(3.5, 21, 3, 0.5, "per-arm", 0.99, 0.3),
    Cell(20, 60, 3, 0.5, "shared", 0.99, measure="mean"),
    Cell(20, 60, 3, 0.5, "bursts", measure="mean"),
    Cell(20, 60, 3, 0.5, "drift", measure="mean"),
    Cell(20, 60, 3, 0.95, "per-arm", 0.99, measure="limit"),
)

LONG = (
    Cell(20, 40, 10, 0.5, "per-arm", 0.9),
    Cell(20, 40, 10, 0.95, "per-arm", 0.9),
    Cell(20, 60, 10, 0.5, "per-arm", 0.9),
    Cell(20, 40, 100, 0.5, "per-arm", 0.99),
    Cell(20, 40, 5, 0.5, "bursts"),
    Cell(20, 60, 3, 0.95, "iid"),
)

HELD_OUT = (
    Cell(40, 20, 3, 0.5, "per-arm", 0.995, 0.5),
    Cell(20, 60, 3, 0.95, "per-arm", 0.995, 0.5),
    Cell(50, 60, 3, 0.99, "per-arm", 0.95),
    Cell(20, 60, 3, 0.9, "per-arm", 0.99, 0.3),
    Cell(10, 30, 3, 0.9, "per-arm", 0.95, 0.5),
    Cell(8, 21, 3, 0.5, "per-arm", 0.98),
    Cell(100, 24, 2.5, 0.95, "per-arm", 0.99, 0.5),
    Cell(60, 40, 1, 0.5, "per-arm", 0.97, 0.5),
    Cell(30, 40, 3, 0.99, "iid"),
    Cell(20, 60, 3, 0.5, "bursts"),
    Cell(20, 60, 3, 0.95, "bursts"),
    Cell(50, 60, 3, 0.99, "bursts"),
    Cell(20, 60, 3, 0.5, "drift"),
    Cell(20, 60, 3, 0.95, "drift"),
    Cell(40, 12, 2.5, 0.5, "per-arm", 0.98, 0.5),
    Cell(40, 100, 3, 0.95, "shared", 0.99, 0.5),
)
"""For the interval of one arm's quantile: simulated after it had been chosen, never before."""

HUGE = (
    Cell(100, 12, 1.25, 0.5, "iid"),
    Cell(8, 15, 3, 0.5, "iid"),
    Cell(8, 15, 3, 0.5, "per-arm", 0.9),
    Cell(3.5, 21, 3, 0.5, "per-arm", 0.9),
    Cell(8, 15, 3, 0.5, "shared", 0.99),
    Cell(100, 12, 1.25, 0.5, "per-arm", 0.9),
    Cell(100, 12, 1.25, 0.5, "per-arm", 0.99),
)
"""A handful of batches: what of a canary that is three times, or 44 times, as slow?"""

LOOKED = (
    (Cell(8, 21, 3, 0.5, "iid"), 10),
    (Cell(8, 21, 3, 0.5, "iid"), 16),
    (Cell(8, 21, 3, 0.5, "per-arm", 0.9), 10),
    (Cell(8, 21, 3, 0.5, "per-arm", 0.9), 16),
    (Cell(20, 21, 3, 0.95, "per-arm", 0.9), 16),
)
"""Cells with the batches after which a first look comes: about half, where a run's is, and three quarters."""


def level(cell: Cell, random: np.random.Generator, steps: int) -> np.ndarray:
    """The common state of an arm, by step; stationary from the first."""
    if cell.noise in ("per-arm", "shared"):
        shocks = random.standard_normal(steps) * np.sqrt(1 - cell.phi**2)
        return signal.lfilter([1.0], [1.0, -cell.phi], shocks, zi=np.array([cell.phi * random.standard_normal()]))[0]
    if cell.noise == "bursts":  # garbage collection: now and then a pod is slow for half a second
        state = np.zeros(steps)
        for begin in np.flatnonzero(random.random(steps) < STEP / 10):
            state[begin : begin + 5] = 3.0
        return state
    return np.zeros(steps)


def simulate(cell: Cell, random: np.random.Generator, ratio: float = 1.0) -> tuple[Histogram, Histogram]:
    """One run: canary, baseline."""
    total = cell.batches * cell.seconds
    steps = int(np.ceil(total / STEP)) + 1
    shared = level(cell, random, steps)
    drift = np.sin(np.linspace(0, 2 * np.pi, steps)) if cell.noise == "drift" else np.zeros(steps)
    at = np.arange(int(cell.rate * total)) / cell.rate
    is_canary = random.random(at.size) < 0.3
    arms = []
    for mine, factor in ((is_canary, ratio), (~is_canary, 1.0)):
        state = shared if cell.noise == "shared" else level(cell, random, steps)
        times = at[mine]
        place = (times / STEP).astype(int)
        part = cell.part if cell.noise in ("per-arm", "shared") else 0.0
        own = random.standard_normal(times.size)
        common = state[place] * (np.sqrt(part) if part else 1.0)
        values = MEDIAN_US * factor * np.exp(cell.sigma * (common + own * np.sqrt(1 - part) + drift[place]))
        arms.append((np.minimum((times / cell.seconds).astype(int), cell.batches - 1), rounded(bin_of(values), cell)))
    return histogram(*arms[0], cell.batches), histogram(*arms[1], cell.batches)


def rounded(bins: np.ndarray, cell: Cell) -> np.ndarray:
    """To steps of 0.8 %, which the interval of a quantile does not notice: there are fewer candidates to test."""
    return bins - bins % 8 if cell.measure == "quantile" else bins


def histogram(batch: np.ndarray, bins: np.ndarray, batches: int) -> Histogram:
    """Counts by batch and bin."""
    distinct, columns = np.unique(bins, return_inverse=True)
    counts = np.bincount(batch * distinct.size + columns, minlength=batches * distinct.size)
    return Histogram(distinct, counts.reshape(batches, distinct.size))


@dataclass(frozen=True)
class Found:
    """What came of the runs of a cell: shares of all runs; `estimates` are logarithms of those that are judged."""

    runs: int
    faster: float
    slower: float
    unjudged: float
    estimates: np.ndarray
    width: float

    @property
    def missed(self) -> float:
        """Of the intervals that are shown."""
        return (self.faster + self.slower) / max(1 - self.unjudged, 1 / self.runs)

    @property
    def allowed(self) -> float:
        """What the intervals that are shown may miss."""
        return 2 * ALPHA + 2 * math.sqrt(2 * ALPHA * (1 - 2 * ALPHA) / max(self.runs * (1 - self.unjudged), 1))


def trial(cell: Cell, canary: Histogram, baseline: Histogram) -> tuple[Trial | None, float]:
    """The gate's own test, and what is true of identical arms."""
    if cell.measure == "limit":
        limit = MEDIAN_US * math.exp(cell.sigma * stats.norm.ppf(cell.quantile))
        over = canary.counts[:, lower_edge(canary.bins) >= limit].sum(axis=1)
        return limit_trial(canary, over, 1 - cell.quantile), 1 - cell.quantile
    if cell.measure == "mean":
        arms = ((one, one.counts @ middle(one.bins)) for one in (canary, baseline))
        return mean_trial(*arms, 1.0), 1.0
    return quantile_trial(canary, baseline, cell.quantile, 1.0), 1.0


def repeat(cell: Cell, runs: int, seed: int, bounds: tuple[float, float]) -> Found:
    """Many runs; `bounds` are the true ratio and the seconds that they may take."""
    random, ratio, seen = np.random.default_rng(seed), bounds[0], []
    began = time.monotonic()
    while len(seen) < runs and time.monotonic() - began < bounds[1]:
        found, truth = trial(cell, *simulate(cell, random, ratio))
        if found is None or found.weather.endless:
            seen.append((np.nan, False, False, np.nan))
            continue
        low, high = found.interval(2 * ALPHA)
        plain = -special.stdtrit(found.weather.batches - 1, ALPHA)
        wide = math.sqrt(found.weather.inflation) * -special.stdtrit(found.weather.freedom, ALPHA) / plain
        seen.append((math.log(max(found.estimate, 1e-9)), high < truth, low > truth, wide))
    table = np.array(seen, dtype=float)
    judged = table[~np.isnan(table[:, 0])]
    faster, slower = table[:, 1].mean(), table[:, 2].mean()
    return Found(len(seen), faster, slower, 1 - len(judged) / len(seen), judged[:, 0], float(np.median(judged[:, 3])))


def name(cell: Cell) -> str:
    """A cell, as columns."""
    noise = f"{cell.noise} {cell.phi:g} x {cell.part:g}" if cell.phi else cell.noise
    measure = "mean" if cell.measure == "mean" else f"p{100 * cell.quantile:g}"
    of = f"limit at {measure}" if cell.measure == "limit" else measure
    return f"| {cell.rate:g}/s | {cell.batches} x {cell.seconds:g} s | {of} | {noise}"


def levels(runs: int, seconds: float) -> None:
    """The table of false alarms and of coverage."""
    print(
        "| load | batches | of | noise | runs | faster | slower | both | s.e. | missed of shown | allowed | width | ",
        end="",
    )
    print("not judged |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for index, cell in enumerate(CELLS):
        found = repeat(cell, runs, index, (1.0, seconds))
        both = found.faster + found.slower
        kind = "void" if cell.batches >= MANY else "undecided"
        print(
            f"{name(cell)} | {found.runs} | {found.faster:.4f} | {found.slower:.4f} | {both:.4f} "
            f"| {math.sqrt(0.05 * 0.95 / found.runs):.4f} | {found.missed:.4f} | {found.allowed:.4f} "
            f"| {found.width:.1f} | {found.unjudged:.3f} {kind} |",
            flush=True,
        )


def power(runs: int, seconds: float) -> None:
    """The table of power where batches are long."""
    print("\n| load | batches | of | noise | runs | false alarms | void | planned effect | power at twice that |")
    print("|---|---|---|---|---|---|---|---|---|")
    for index, cell in enumerate(LONG):
        null = repeat(cell, runs, 100 + index, (1.0, seconds))
        effect = (stats.norm.isf(ALPHA) + stats.norm.isf(0.2)) * float(np.std(null.estimates))
        slow = repeat(cell, runs // 2, 200 + index, (math.exp(2 * effect), seconds / 2))
        print(
            f"{name(cell)} | {null.runs} | {null.faster + null.slower:.4f} | {null.unjudged:.4f} "
            f"| +{100 * math.expm1(effect):.1f}% | {slow.slower:.3f} |",
            flush=True,
        )


def looked_at(cell: Cell, first: int, runs: int, seed: int) -> tuple[float, float]:
    """Shares of runs that are broken, and shown, at any of two registered looks: after `first` batches, and at the end.

    Alphas, tests and floors are those of a run with one latency claim; both answers are wrong: the arms are identical,
    and the margin is none.
    """
    random, found = np.random.default_rng(seed), []
    for _ in range(runs):
        whole = simulate(cell, random)
        broken = shown = False
        for look in looks(LEVEL * LATENCY_PART, (first / cell.batches, 1.0)):
            batches = round(look.fraction * cell.batches)
            seen, _ = trial(cell, *(Histogram(one.bins, one.counts[:batches]) for one in whole))
            if seen is None or seen.weather.endless or seen.weather.batches < MIN_BATCHES:
                continue
            broken |= seen.p_above <= look.alpha
            shown |= seen.p_below <= look.alpha
        found.append((broken, shown))
    broken_part, shown_part = np.mean(found, axis=0)
    return float(broken_part), float(shown_part)


def spending(runs: int) -> None:
    """The table of registered looks."""
    level = LEVEL * LATENCY_PART
    error = math.sqrt(level * (1 - level) / runs)
    print(f"\nTwo registered looks, {level:g} a side for both together (s.e. {error:.4f}).\n")
    print("| load | batches | of | noise | looks after | alpha at each | runs | ever broken | ever shown |")
    print("|---|---|---|---|---|---|---|---|---|")
    for index, (cell, first) in enumerate(LOOKED):
        alphas = ", ".join(f"{look.alpha:.5f}" for look in looks(level, (first / cell.batches, 1.0)))
        broken, shown = looked_at(cell, first, runs, 300 + index)
        at = f"{first}, {cell.batches}"
        print(f"{name(cell)} | {at} | {alphas} | {runs} | {broken:.4f} | {shown:.4f} |", flush=True)


def large(runs: int) -> None:
    """The table of large effects over few batches, at the level of a run's last look."""
    alpha = looks(LEVEL * LATENCY_PART)[-1].alpha
    print(f"\nLarge effects in few batches, +20 % allowed, {alpha:.4f} a side, {runs} runs a cell.\n")
    print("| load | batches | of | noise | false alarms | 3 times found | 44 times found | not judged |")
    print("|---|---|---|---|---|---|---|---|")
    for index, cell in enumerate(HUGE):
        found, unjudged = [], 0
        for ratio in (1.2, 3.0, 44.0):
            random = np.random.default_rng(400 + index)
            tried = [quantile_trial(*simulate(cell, random, ratio), cell.quantile, 1.2) for _ in range(runs)]
            judged = [one for one in tried if one is not None and not one.weather.endless]
            unjudged = runs - len(judged)
            found.append(sum(one.p_above <= alpha for one in judged) / runs)
        told = " | ".join(f"{one:.3f}" for one in (*found, unjudged / runs))
        print(f"{name(cell)} | {told} |", flush=True)


def true_quantile(cell: Cell) -> float:
    """The quantile of all that an arm might have done; of bursts and of a drift, that of all moments together."""
    if cell.noise == "bursts":
        often, away = np.array([(1 - STEP / 10) ** 5, 1 - (1 - STEP / 10) ** 5]), np.array([0.0, 3.0])
    elif cell.noise == "drift":
        often, away = np.full(4000, 1 / 4000), np.sin(np.linspace(0, 2 * np.pi, 4000))
    else:
        often, away = np.ones(1), np.zeros(1)
    found = optimize.brentq(lambda x: often @ special.ndtr(x - away) - cell.quantile, -8, 9)
    return MEDIAN_US * math.exp(cell.sigma * found)


def spans(arm: Histogram, quantile: float, ends: tuple[float, float | None]) -> float:
    """How many times wider an interval is, on the log scale, than that of independent values."""
    low, high = order_statistic_interval(middle(arm.bins), arm.counts.sum(axis=0), quantile, 2 * ALPHA)
    if not (low and high and high > low):
        return math.nan
    return math.log(ends[1] / ends[0]) / math.log(high / low) if ends[1] and ends[0] else math.inf


def covered(cell: Cell, runs: int, seed: int) -> str:
    """The row of a cell: how often the interval of one arm's quantile misses, and what it costs."""
    random, missed, wide = np.random.default_rng(seed), 0, []
    truth, endless = true_quantile(cell), 0
    for _ in range(runs):
        arm = simulate(cell, random)[0]
        found = quantile_interval(arm, cell.quantile, 2 * ALPHA)
        if found is not None:
            low, high = found[0] / ROUNDING, math.inf if found[1] is None else found[1] * ROUNDING
            missed, endless = missed + (not low <= truth <= high), endless + (found[1] is None)
            wide.append(spans(arm, cell.quantile, found))
    shown = max(len(wide), 1)
    allowed = 2 * ALPHA + 2 * math.sqrt(2 * ALPHA * (1 - 2 * ALPHA) / shown)
    typical = float(np.nanmedian(wide)) if wide else math.nan
    width = f"{typical:.1f}" if math.isfinite(typical) else "none"
    return f"{missed / shown:.4f} | {allowed:.4f} | {1 - len(wide) / runs:.3f} | {endless / shown:.3f} | {width}"


def one_arm(runs: int) -> None:
    """The tables of the interval of one arm's quantile, against the quantile of all that the arm might have done."""
    quantiles = [(500 + at, cell) for at, cell in enumerate(CELLS) if cell.measure == "quantile"]
    known = [(seed, cell) for seed, cell in quantiles if cell.noise not in ("bursts", "drift")]
    for title, cells in (("", known), (", cells that it was not chosen by", list(enumerate(HELD_OUT, 700)))):
        print(f"\nThe quantile of one arm, nominal 95 %, {runs} runs a cell{title}.\n")
        print("| load | batches | of | noise | missed of shown | allowed | not shown | no upper end | width |")
        print("|---|---|---|---|---|---|---|---|---|")
        for seed, cell in cells:
            print(f"{name(cell)} | {covered(cell, runs, seed)} |", flush=True)


def bootstrap(runs: int) -> None:
    """p95 +20 % with 600 lognormal requests an arm, against a per-request bootstrap of the ratio of quantiles."""
    random, ours, theirs = np.random.default_rng(9), 0, 0
    cell = Cell(20, 60, 1, 0.95, "iid")
    for _ in range(runs):
        arms = [np.exp(cell.sigma * random.standard_normal(600)) * 1e5 * factor for factor in (1.2, 1.0)]
        batches = [np.arange(600) * cell.batches // 600] * 2
        canary, baseline = (histogram(b, bin_of(a), cell.batches) for a, b in zip(arms, batches, strict=True))
        found = quantile_trial(canary, baseline, 0.95, 1.0)
        ours += found is not None and not found.weather.endless and found.interval(2 * ALPHA)[0] > 1
        draws = [np.quantile(arm[random.integers(0, 600, (400, 600))], 0.95, axis=1) for arm in arms]
        theirs += np.quantile(draws[0] / draws[1], ALPHA) > 1
    print(f"\np95 +20 %, 600 requests an arm, {runs} runs: found by the gate {ours / runs:.3f}, ", end="")
    print(f"by a per-request percentile bootstrap {theirs / runs:.3f} (which errs in up to 77 % where pods queue).")


def main() -> None:
    """Print the tables."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else math.inf
    levels(runs, seconds)
    power(runs, seconds)
    spending(runs)
    large(runs)
    one_arm(runs)
    bootstrap(min(runs, 400))


if __name__ == "__main__":
    main()
