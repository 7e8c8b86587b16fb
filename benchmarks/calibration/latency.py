"""How often does the latency test err? Identical arms under noise that real servers make, at a nominal 2.5 % a side.

    python benchmarks/calibration/latency.py [RUNS]

Each line is one cell: how often the interval lies wholly below 1 ("faster") or above 1 ("slower") among the runs that
are judged, and how many are not (void: neighbouring batches correlated; few: too few batches). s.e. is that of the
Monte Carlo. Noise is AR(1) in steps of 0.1 s, on the log scale, with the given part of the variance; the rest is
independent between requests.
"""

import sys
from dataclasses import dataclass

import numpy as np
from scipy import signal

from analysis.stats.bins import bin_of
from analysis.stats.exceedances import Histogram, largest_lag, quantile_ratio

STEP = 0.1
ALPHA = 0.025


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


CELLS = (
    Cell(8, 15, 3, 0.5, "iid"),
    Cell(8, 15, 3, 0.5, "per-arm", 0.9),
    Cell(8, 15, 3, 0.5, "per-arm", 0.9, 0.5),
    Cell(8, 15, 3, 0.5, "per-arm", 0.99),
    Cell(20, 60, 3, 0.95, "iid"),
    Cell(20, 60, 3, 0.95, "shared", 0.99),
    Cell(20, 60, 3, 0.95, "per-arm", 0.9),
    Cell(20, 60, 3, 0.95, "per-arm", 0.99),
    Cell(20, 60, 3, 0.95, "per-arm", 0.99, 0.3),
    Cell(20, 60, 1, 0.95, "per-arm", 0.99),
    Cell(20, 30, 10, 0.95, "per-arm", 0.9),
    Cell(20, 30, 10, 0.95, "per-arm", 0.99),
    Cell(100, 12, 2.5, 0.5, "iid"),
    Cell(100, 12, 2.5, 0.95, "iid"),
    Cell(100, 12, 2.5, 0.5, "per-arm", 0.9),
    Cell(100, 60, 1, 0.99, "iid"),
    Cell(20, 60, 10, 0.5, "per-arm", 0.9),
    Cell(20, 40, 100, 0.5, "per-arm", 0.99),
    Cell(20, 60, 3, 0.5, "bursts"),
    Cell(20, 60, 3, 0.95, "bursts"),
    Cell(20, 60, 3, 0.5, "drift"),
)


def level(cell: Cell, random: np.random.Generator, steps: int) -> np.ndarray:
    """The common state of an arm, by step."""
    if cell.noise in ("per-arm", "shared"):
        start = signal.lfiltic([1.0], [1.0, -cell.phi], [random.standard_normal()])
        shocks = random.standard_normal(steps) * np.sqrt(1 - cell.phi**2)
        return signal.lfilter([1.0], [1.0, -cell.phi], shocks, zi=start)[0]
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
        part = cell.part if cell.noise in ("per-arm", "shared") else 1.0
        own = random.standard_normal(times.size)
        known = state[place] * np.sqrt(part) if cell.noise in ("per-arm", "shared") else state[place]
        rest = own * np.sqrt(1 - part) if cell.noise in ("per-arm", "shared") else own
        values = 100_000 * factor * np.exp(cell.sigma * (known + rest + drift[place]))
        bins, columns = np.unique(bin_of(values), return_inverse=True)
        counts = np.zeros((cell.batches, bins.size), dtype=np.int64)
        np.add.at(counts, (np.minimum((times / cell.seconds).astype(int), cell.batches - 1), columns), 1)
        arms.append(Histogram(bins, counts))
    return arms[0], arms[1]


def errors(cell: Cell, runs: int, seed: int) -> tuple[float, float, float, int]:
    """Shares of judged runs called faster and slower, share of void runs, judged runs."""
    random = np.random.default_rng(seed)
    faster = slower = void = 0
    for _ in range(runs):
        found = quantile_ratio(*simulate(cell, random), cell.quantile)
        if found is None or found.lag1 > largest_lag(found.batches):
            void += 1
            continue
        low, high = found.interval(2 * ALPHA)
        faster += high < 1
        slower += low > 1
    judged = max(runs - void, 1)
    return faster / judged, slower / judged, void / runs, judged


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    print("| load | batches | quantile | noise | faster | slower | s.e. | all runs | void |")
    print("|---|---|---|---|---|---|---|---|---|")
    for index, cell in enumerate(CELLS):
        faster, slower, void, judged = errors(cell, runs, index)
        noise = f"{cell.noise} {cell.phi:g} x {cell.part:g}" if cell.phi else cell.noise
        print(
            f"| {cell.rate:g}/s | {cell.batches} x {cell.seconds:g} s | {cell.quantile:g} | {noise} "
            f"| {faster:.3f} | {slower:.3f} | {(0.05 / judged) ** 0.5 / 1.45:.3f} "
            f"| {(faster + slower) * judged / runs:.3f} | {void:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
