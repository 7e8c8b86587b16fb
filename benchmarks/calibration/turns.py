"""Arms that take turns, and users who stick to one: are they recognised, and what would have been shown otherwise?

python benchmarks/calibration/turns.py [RUNS]

4 500 requests in 45 windows of 100. "As if drawn" judges the same counts as if each request had been drawn for itself.
"""

import math
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from sequential import registered

from analysis.draws import examine
from analysis.split import Counts, judge_counts, judge_draws
from experiments.core.hypotheses import CONCENTRATIONS, SplitHypothesis

Arms = npt.NDArray[np.bool_]
REQUESTS, WINDOWS, TOLERANCE = 4500, 45, 0.05


def drawn(random: np.random.Generator, share: float) -> Arms:
    """Each request for itself."""
    return random.random(REQUESTS) < share


def in_turn(random: np.random.Generator, _share: float) -> Arms:
    """Two pods in turn, by two proxies that each keep their own turn."""
    proxy = random.random(REQUESTS) < 0.5
    return np.where(proxy, np.cumsum(proxy) % 2, np.cumsum(~proxy) % 2).astype(bool)


def sticking(each: int) -> Callable[[np.random.Generator, float], Arms]:
    """Users with an arm of their own, who send so many requests one after another."""

    def arms(random: np.random.Generator, share: float) -> Arms:
        return np.repeat(random.random(math.ceil(REQUESTS / each)) < share, each)[:REQUESTS]

    return arms


def among(users: int) -> Callable[[np.random.Generator, float], Arms]:
    """So many users with an arm of their own, each request from any of them."""

    def arms(random: np.random.Generator, share: float) -> Arms:
        return np.asarray((random.random(users) < share)[random.integers(0, users, REQUESTS)])

    return arms


CASES = (
    ("50/50, drawn", 0.5, drawn),
    ("50/50, two pods in turn", 0.5, in_turn),
    ("70/30, drawn", 0.3, drawn),
    ("70/30, users of 10 requests in a row", 0.3, sticking(10)),
    ("70/30, users of 100 requests in a row", 0.3, sticking(100)),
    ("70/30, users of 300 requests in a row", 0.3, sticking(300)),
    ("70/30, 100 users who all send at once", 0.3, among(100)),
)


def judged(
    share: float, arms: Callable[[np.random.Generator, float], Arms], runs: int
) -> tuple[float, float, float, float, float]:
    """Too even, worth fewer requests; the median effective n; shown, and shown as if drawn."""
    random, seen = np.random.default_rng(12), []
    claim = SplitHypothesis("s", "s", ["e"], {"old": 1 - share, "new": share}, TOLERANCE, required=True)
    known = registered(tuple(CONCENTRATIONS))
    for _ in range(runs):
        hits = arms(random, share).reshape(WINDOWS, -1).sum(axis=1)
        draws = examine(pd.DataFrame({"new": hits, "old": REQUESTS // WINDOWS - hits}), ["old", "new"])
        n = float(hits.sum())
        counts = Counts(("old", "new"), ((REQUESTS - n, n),), (0.0,))
        shown = judge_draws(counts, draws, claim, known).shown and not (draws.too_even or draws.changed)
        as_if = judge_counts(counts, claim, known).shown
        seen.append((draws.too_even, draws.factor > 1, REQUESTS / draws.factor, shown, as_if))
    table = np.array(seen, dtype=np.float64)
    return (*table[:, :2].mean(axis=0), float(np.median(table[:, 2])), *table[:, 3:].mean(axis=0))  # type: ignore[return-value]


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"± {100 * TOLERANCE:g} pp, {runs} runs a case (s.e. of a rate at most {0.5 / math.sqrt(runs):.3f}).\n")
    print("| configured, how | too even | worth fewer | median effective n | shown | shown, as if drawn |")
    print("|---|---|---|---|---|---|")
    for name, share, arms in CASES:
        even, fewer, worth, shown, as_if = judged(share, arms, runs)
        print(f"| {name} | {even:.3f} | {fewer:.3f} | {worth:.0f} | {shown:.3f} | {as_if:.3f} |", flush=True)


if __name__ == "__main__":
    main()
