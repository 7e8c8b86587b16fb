"""How often does a harmful canary pass a gate of a ramp, and how soon does a good one?

python benchmarks/calibration/ramp.py [RUNS]

The steps, weights, durations, arrivals and margin are those of `experiments/ramp.yaml`, looked at once a second. The
evidence of every look is worked out at once by formulas written down anew; what `analysis.gates` says is asked in every
twentieth run, at the look at which a gate is nearest to opening, and must agree. Only failures are drawn: a gate
also waits for its split and its latency, which makes it open later, never sooner.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sequential import log_difference, log_peak

from analysis.gates import gates
from analysis.tally import JUDGED, KEYS, OK, SUMS, Tally
from experiments.core import hypotheses, reading, routing

Floats = npt.NDArray[np.float64]

RAMP = reading.load("ramp").experiment
REGISTERED = hypotheses.hypotheses(RAMP)
CANARY, BASELINE = "large", "small"
STEPS = [phase for phase in RAMP.planned if phase.gate and phase.name in REGISTERED.errors[0].phases]
WEIGHTS = [routing.phase_expectations(RAMP, phase)["everyone"].shares[CANARY] for phase in STEPS]
MARGIN = REGISTERED.errors[0].max_increase
ALPHA = REGISTERED.alpha_errors
AT_ONCE = 500
ASKED_EVERY = 20


@dataclass(frozen=True)
class Case:
    """Failure rates of the baseline by step, and how much more often the canary fails."""

    name: str
    baseline: tuple[float, ...]
    increase: float


CASES = (
    Case("5 pp more, baseline never", (0.0, 0.0, 0.0), 0.05),
    Case("5 pp more, baseline .01", (0.01, 0.01, 0.01), 0.05),
    Case("5 pp more, baseline .2", (0.2, 0.2, 0.2), 0.05),
    Case("5 pp more, baseline .01, .1, .3 by step", (0.01, 0.1, 0.3), 0.05),
    Case("7 pp more, baseline .01", (0.01, 0.01, 0.01), 0.07),
    Case("nothing more, baseline never", (0.0, 0.0, 0.0), 0.0),
    Case("nothing more, baseline .01", (0.01, 0.01, 0.01), 0.0),
    Case("2 pp more, baseline .01", (0.01, 0.01, 0.01), 0.02),
)

Counts = list[tuple[Floats, Floats, Floats, Floats]]


def draw(case: Case, random: np.random.Generator, runs: int) -> Counts:
    """By step: requests and failures of canary and baseline, (run, look), cumulative within the step."""
    found = []
    for phase, weight, rate in zip(STEPS, WEIGHTS, case.baseline, strict=True):
        shape = runs, round(phase.duration)
        n = random.binomial(round(RAMP.load.rate), weight, shape)
        m = round(RAMP.load.rate) - n
        each = n, random.binomial(n, rate + case.increase), m, random.binomial(m, rate)
        found.append(tuple(one.cumsum(1).astype(np.float64) for one in each))
    return found  # type: ignore[return-value]


def against_harm(n: Floats, x: Floats, m: Floats, y: Floats) -> Floats:
    """The log e-value against an increase of the margin or more in one step."""
    peaks = np.where((n > 0) & (m > 0), log_peak(np.maximum(n, 1), x) + log_peak(np.maximum(m, 1), y), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        less = x / n - y / m < MARGIN
        logs = log_difference((n, x), (m, y), MARGIN)
    return np.where((n > 0) & (m > 0) & less, logs, np.minimum(peaks, 0.0))


def evidence(counts: Counts) -> Iterator[Floats]:
    """The log e-value of every look of a step, times those of the steps before at their ends."""
    before: Floats | float = 0.0
    for one in counts:
        logs = against_harm(*one) + np.asarray(before)[..., None]
        yield logs
        before = logs[:, -1]


def asked(counts: Counts, run: int, step: int, look: int) -> float | None:
    """The evidence that `analysis.gates` has at one look of one run."""
    cells = []
    for at in range(step + 1):
        n, x, m, y = (one[run, look if at == step else -1] for one in counts[at])
        for arm, requests, failed in ((CANARY, n, x), (BASELINE, m, y)):
            cells += [_cell(STEPS[at].name, arm, OK, requests - failed), _cell(STEPS[at].name, arm, "http-503", failed)]
    tally = Tally(pd.DataFrame([cell for cell in cells if cell["n"]], columns=[*KEYS, *SUMS]))
    seen: Any = SimpleNamespace(
        experiment=RAMP,
        evidence=SimpleNamespace(registered=REGISTERED, tally=tally, rows=SimpleNamespace(shards=())),
        ages_s={phase.name: phase.duration for phase in STEPS[: step + 1]},
    )
    return gates(([], []), seen, {one.id for one in REGISTERED.latency})[-1].ln_e


def _cell(phase: str, arm: str, outcome: str, n: float) -> dict[str, Any]:
    answered = arm if outcome == OK else ""
    reason = "" if answered else "no output"
    known = {"standing": JUDGED, "phase": phase, "cohort": "everyone", "answered": answered, "routed": arm}
    counted = {"outcome": outcome, "reason": reason, "n": int(n)}
    return {**dict.fromkeys([*KEYS, *SUMS], 0), **known, **counted}


def judged(case: Case, runs: int) -> tuple[list[float], list[float]]:
    """How many runs have had a gate open by the end of each step, and the seconds until the first gate opened."""
    random, passed, waits = np.random.default_rng(8), [], []
    for begin in range(0, runs, AT_ONCE):
        counts = draw(case, random, min(AT_ONCE, runs - begin))
        logs = list(evidence(counts))
        open_by = np.stack([(one >= -math.log(ALPHA)).any(axis=1) for one in logs], axis=1)
        passed.append(np.logical_or.accumulate(open_by, axis=1))
        first = logs[0] >= -math.log(ALPHA)
        waits += np.where(first.any(axis=1), first.argmax(axis=1) + 1.0, np.inf).tolist()
        for run in range(0, len(open_by), ASKED_EVERY):
            step = int(np.argmax([one[run].max() for one in logs]))
            look = int(logs[step][run].argmax())
            told = asked(counts, run, step, look)
            assert told is not None
            assert abs(told - logs[step][run, look]) < 1e-5 * max(1.0, abs(told)), (case.name, told)
    return np.concatenate(passed).mean(axis=0).tolist(), waits


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    se = math.sqrt(ALPHA * (1 - ALPHA) / runs)
    print(f"Level {ALPHA:g} for the whole ramp, {runs} runs a case (s.e. of {ALPHA:g}: {se:.4f}).\n")
    by_step = " | ".join(f"open by the end of {phase.name}" for phase in STEPS)
    print(f"| canary fails | {by_step} | median wait in {STEPS[0].name} |")
    print("|---|" + "---|" * (len(STEPS) + 1))
    for case in CASES:
        passed, waits = judged(case, runs)
        middle = float(np.sort(waits)[len(waits) // 2])
        wait = "longer than the step" if math.isinf(middle) else f"{middle:.0f} s"
        print(f"| {case.name} | {' | '.join(f'{one:.4f}' for one in passed)} | {wait} |", flush=True)


if __name__ == "__main__":
    main()
