"""Does the latency gate err where nobody tuned it? Arms that are alike in what the claim is about, loaded in odd ways.

    python benchmarks/calibration/nulls.py [RUNS]

Asked are the gate's own tests at a margin of none, at the level of a run's last look, on either side; both answers are
wrong. A share that rises within a phase while both arms slow down is no fair null: the canary gets its requests when
all is slow. It is here to show what that does. Nor is a canary that is slow for its first ten seconds: it is slower.
"""

import math
import sys
from collections.abc import Callable

import numpy as np
from latency import MEDIAN_US, histogram

from analysis.stats.bins import bin_of
from analysis.stats.exceedances import Histogram
from analysis.trials import quantile_trial
from experiments.core.hypotheses import ALPHA, LATENCY_PART, looks

LEVEL = looks(ALPHA * LATENCY_PART)[-1].alpha
Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""When each request came, whether the canary got it, and how long it took in multiples of a plain answer."""


def stuck_pods(random: np.random.Generator, rate: float, seconds: float, stay: float) -> Drawn:
    """Each arm has two pods, one of them 1.5 times as slow; an arm's requests stick to one pod for `stay` seconds."""
    at = np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))
    canary = random.random(at.size) < 0.3
    begins = random.uniform(0, stay, 2)
    turns = random.random((2, int(seconds / stay) + 2)) < 0.5
    arm = canary.astype(int)
    slow = turns[arm, ((at + begins[arm]) / stay).astype(int)]
    return at, canary, np.where(slow, 1.5, 1.0)


def share_in_steps(random: np.random.Generator, rate: float, seconds: float, swing: float) -> Drawn:
    """The canary's share goes 5, 25, 50 % within the phase, while both arms slow down alike by `swing` in all."""
    at = np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))
    share = np.array([0.05, 0.25, 0.5])[np.minimum((3 * at / seconds).astype(int), 2)]
    return at, random.random(at.size) < share, swing ** (at / seconds)


def doubled(random: np.random.Generator, rate: float, seconds: float, busy: float) -> Drawn:
    """Arrivals double half way, and each arm is a queue of its own, as busy: waiting grows in both alike."""
    early = random.uniform(0, seconds / 2, random.poisson(rate * seconds / 3))
    late = random.uniform(seconds / 2, seconds, random.poisson(rate * seconds * 2 / 3))
    at = np.sort(np.concatenate([early, late]))
    canary, took = random.random(at.size) < 0.5, np.ones(at.size)
    service = 2 * busy / (4 / 3 * rate)  # of one arm, so that its busier half is as busy as named
    for arm in (True, False):
        mine, free = np.flatnonzero(canary == arm), 0.0
        for place in mine:
            begin = max(at[place], free)
            free = begin + service * random.exponential()
            took[place] = (free - at[place]) / service
    return at, canary, took


def warming(random: np.random.Generator, rate: float, seconds: float, factor: float) -> Drawn:
    """No null: the canary is slower for its first ten seconds, and as fast as the baseline from then on."""
    at = np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))
    canary = random.random(at.size) < 0.3
    return at, canary, np.where(canary & (at < 10), factor, 1.0)


Scenario = tuple[str, Callable[..., Drawn], float, int, float, float]
SCENARIOS: tuple[Scenario, ...] = (
    ("two pods an arm, requests stick for 2 s", stuck_pods, 20, 60, 3, 2),
    ("two pods an arm, requests stick for 20 s", stuck_pods, 20, 60, 3, 20),
    ("two pods an arm, requests stick for 20 s", stuck_pods, 100, 15, 3, 20),
    ("two pods an arm, requests stick for 20 s", stuck_pods, 100, 12, 10, 20),
    ("share 5, 25, 50 % in one phase, all alike", share_in_steps, 20, 60, 3, 1.0),
    ("share 5, 25, 50 %, both slow down by 1.3", share_in_steps, 20, 60, 3, 1.3),
    ("share 5, 25, 50 %, both slow down by 3", share_in_steps, 20, 60, 3, 3.0),
    ("arrivals double, queues .3 to .6 busy", doubled, 30, 60, 3, 0.6),
    ("arrivals double, queues .45 to .9 busy", doubled, 30, 60, 3, 0.9),
    ("arrivals double, queues .45 to .9 busy", doubled, 30, 15, 3, 0.9),
    ("no null: canary 2 times as slow for 10 s", warming, 20, 60, 3, 2.0),
    ("no null: canary 2 times as slow for 10 s", warming, 20, 15, 3, 2.0),
)


def arms(scenario: Scenario, random: np.random.Generator) -> tuple[Histogram, Histogram]:
    """One run of a scenario: canary, baseline."""
    _, draw, rate, batches, length, extra = scenario
    at, canary, took = draw(random, rate, batches * length, extra)
    values = MEDIAN_US * took * np.exp(0.3 * random.standard_normal(at.size))
    bins, batch = bin_of(values), np.minimum((at / length).astype(int), batches - 1)
    first, second = (histogram(batch[mine], bins[mine] - bins[mine] % 8, batches) for mine in (canary, ~canary))
    return first, second


def row(scenario: Scenario, quantile: float, runs: int, seed: int) -> str:
    """How often the gate calls the canary slower, and faster, than a baseline that it is like."""
    random, slower, faster, unjudged = np.random.default_rng(seed), 0, 0, 0
    for _ in range(runs):
        found = quantile_trial(*arms(scenario, random), quantile, 1.0)
        if found is None or found.weather.endless:
            unjudged += 1
            continue
        slower, faster = slower + (found.p_above <= LEVEL), faster + (found.p_below <= LEVEL)
    name, _, rate, batches, length, _ = scenario
    told = " | ".join(f"{one / runs:.4f}" for one in (slower, faster, slower + faster))
    return f"| {name} | {rate:g}/s | {batches} x {length:g} s | p{100 * quantile:g} | {told} | {unjudged / runs:.3f} |"


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    error = math.sqrt(LEVEL * (1 - LEVEL) / runs)
    print(f"{LEVEL:.4f} a side, {runs} runs a cell: at most {LEVEL + 2 * error:.4f} a side by chance.\n")
    print("| scenario | load | batches | of | slower | faster | both | not judged |\n|---|---|---|---|---|---|---|---|")
    for index, scenario in enumerate(SCENARIOS):
        for quantile in (0.5, 0.95):
            print(row(scenario, quantile, runs, 900 + index), flush=True)


if __name__ == "__main__":
    main()
