"""Do the sequential tests keep their level when they are looked at all the time, and how soon do they stop?

python benchmarks/calibration/sequential.py [RUNS]
"""

import math
import sys

import numpy as np
from scipy.special import betaln, logsumexp

from analysis.stats import bernoulli, multinomial
from experiments.core.hypotheses import CONCENTRATIONS

ALPHA = 0.05


def split_logs(canary: np.ndarray, looks: np.ndarray, share: float) -> list[float]:
    """The log e-value at each look, from the canary's hits by then."""
    return [
        multinomial.observe([[float(n - c), float(c)]], [1 - share, share], CONCENTRATIONS).log_e
        for n, c in zip(looks.tolist(), canary.tolist(), strict=True)
    ]


def false_alarms(share: float, last: int, runs: int) -> float:
    """Share of runs that ever refute a true share, looked at every 100 requests."""
    random = np.random.default_rng(1)
    looks = np.arange(100, last + 1, 100)
    crossed = 0
    for _ in range(runs):
        hits = random.binomial(100, share, looks.size).cumsum()
        crossed += max(split_logs(hits, looks, share)) >= -math.log(ALPHA)
    return crossed / runs


def median_stop(expected: float, true: float, last: int, runs: int) -> float:
    """Median number of requests until the configured share is refuted, looked at 4 000 times or at every request.

    The e-process is written down anew with scipy here, for all looks at once.
    """
    random = np.random.default_rng(2)
    step = max(last // 4000, 1)
    n = np.arange(step, last + 1, step)
    stops = []
    for _ in range(runs):
        c = random.binomial(step, true, n.size).cumsum()
        fit = c * np.log(expected) + (n - c) * np.log(1 - expected)
        logs = [
            betaln(k * expected + c, k * (1 - expected) + n - c) - betaln(k * expected, k * (1 - expected)) - fit
            for k in CONCENTRATIONS
        ]
        crossed = np.flatnonzero(logsumexp(logs, axis=0) - np.log(len(logs)) >= -np.log(ALPHA))
        stops.append(n[crossed[0]] if crossed.size else math.inf)
    return float(np.median(stops))


def error_alarms(rate: float, runs: int) -> float:
    """Share of runs in which the interval of the increase ever misses 0, looked at every 100 requests."""
    random = np.random.default_rng(3)
    missed = 0
    for _ in range(runs):
        canary, baseline = random.binomial(30, rate, 40).cumsum(), random.binomial(70, rate, 40).cumsum()
        for look in range(40):
            arms = (
                bernoulli.observe(30.0 * (look + 1), float(canary[look])),
                bernoulli.observe(70.0 * (look + 1), float(baseline[look])),
            )
            if bernoulli.log_e_difference(*arms, 0.0) >= -math.log(ALPHA):
                missed += 1
                break
    return missed / runs


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    se = math.sqrt(ALPHA * (1 - ALPHA) / runs)
    print(f"Level .05, looked at every 100 requests, {runs} runs (s.e. of .05: {se:.3f}).\n")
    print("| test | truth | ever refuted |\n|---|---|---|")
    for share, last in ((0.3, 20_000), (0.01, 20_000), (0.5, 20_000)):
        print(f"| split | {share:g} of {last} | {false_alarms(share, last, runs):.3f} |", flush=True)
    for rate in (0.0, 0.001, 0.01, 0.1):
        print(f"| failures | {rate:g} in both, 4 000 requests | {error_alarms(rate, runs):.3f} |", flush=True)
    print("\n| configured → true | median requests to refute |\n|---|---|")
    for expected, true, last in ((0.7, 0.71, 60_000), (0.9, 0.8, 2000), (0.7, 0.3, 500)):
        print(f"| {expected:g} → {true:g} | {median_stop(expected, true, last, 4 * runs):.0f} |", flush=True)


if __name__ == "__main__":
    main()
