"""An earlier run → how its failures and latencies varied: what the next one is planned with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from analysis import failures
from analysis.judge import examine
from analysis.latency import compare
from analysis.stats import distributions
from analysis.stats.bins import lower_edge, quantile_bin
from analysis.stats.exceedances import Histogram
from analysis.trials import least
from analysis.validity import Evidence
from experiments.core.errors import SplitproofError
from experiments.core.records import RunDir
from experiments.core.spec import Experiment

SPREAD = 0.5
"""Standard deviation of log latency that is assumed where no earlier run says better."""

READ_AT_MOST = 40_000_000
"""Bytes of records beyond which an earlier run is not read just before a load: that would take seconds."""


@dataclass(frozen=True)
class Shape:
    """A distribution of latency by its quantiles: increasing probabilities, and log latency (of µs) at each."""

    probabilities: npt.NDArray[np.float64]
    logs: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Past:
    """The latencies of a canary and of the baseline, and how both wander.

    `wander` is the variance of an arm's log latency from one time batch to another, times the seconds of a batch.
    """

    canary: Shape
    baseline: Shape
    wander: float
    told: str


@dataclass(frozen=True)
class History:
    """What an earlier run says; empty where there is none. `failing`: failure rate by arm. `latency`: by claim."""

    told: str = "no earlier run"
    failing: Mapping[str, float] = field(default_factory=dict)
    latency: Mapping[str, Past] = field(default_factory=dict)


def lognormal(spread: float = SPREAD) -> Shape:
    """A lognormal latency around 50 ms."""
    probabilities = distributions.normal_below(np.linspace(-5, 5, 501))
    return Shape(probabilities, math.log(50_000) + np.linspace(-5, 5, 501) * spread)


def history(run: RunDir) -> History:
    """What a run says about the next one.

    Raises:
        RecordsError: it cannot be read.
        ExperimentError: likewise, its experiment.
    """
    found = examine(run)
    return History(run.path.name, dict(_failing(found.evidence, found.experiment)), dict(_latency(found.evidence)))


def newest(runs: Path, experiment: str, *, quick: bool) -> History:
    """The newest run of an experiment that can be read; what stands in the way of a plan is passed over."""
    for info in sorted(runs.glob(f"{experiment}/*/run.json"), key=lambda path: path.parent.name, reverse=True):
        run = RunDir(info.parent)
        if quick and sum(shard.stat().st_size for shard in run.shards()) > READ_AT_MOST:
            return History(f"no earlier run ({run.path.name} is too large to read just before a load)")
        try:
            return history(run)
        except SplitproofError:
            continue
    return History()


def _failing(seen: Evidence, experiment: Experiment) -> Mapping[str, float]:
    """The failure rate of each arm over all phases."""
    total = {arm: failures.Arm() for arm in experiment.arms}
    for phase in experiment.phases:
        for arm, found in failures.count(seen.tally, phase.name).items():
            if arm in total:
                total[arm] = total[arm].plus(found)
    return {arm: found.failed / found.requests for arm, found in total.items() if found.requests}


def _latency(seen: Evidence) -> Mapping[str, Past]:
    found = {}
    for claim in seen.registered.latency:
        one = compare(seen.tally, claim, seen.registered.baseline)
        if claim.phase and one.fewest >= least(claim):
            seconds = seen.registered.batch_seconds[claim.phase]
            other = one.baseline if claim.limit_us is None else one.canary  # a limit is about the canary alone
            found[claim.id] = past(one.canary, other, (claim.quantile, claim.margin), seconds)
    return found


def past(canary: Histogram, baseline: Histogram, claim: tuple[float, float], seconds: float) -> Past:
    """The latencies of two arms as they were; a canary beyond the margin is not planned for: it would not be healthy.

    Args:
        canary: By batch.
        baseline: In the same batches.
        claim: Quantile and margin.
        seconds: The length of a batch.
    """
    quantile, margin = claim
    wander = seconds * float(np.mean([batch_variance(arm, quantile) for arm in (canary, baseline)]))
    ours, theirs = shape(canary), shape(baseline)
    at = [lower_edge(quantile_bin(arm.bins, arm.counts.sum(axis=0), quantile)) for arm in (canary, baseline)]
    ratio = float(at[0] / at[1]) if at[1] > 0 else np.inf
    if baseline is canary:
        return Past(ours, ours, wander, "latencies as there")
    if ratio < 1 + margin:
        return Past(ours, theirs, wander, f"latencies as there, {ratio:.2f} times the baseline's")
    return Past(theirs, theirs, wander, "latencies as the baseline's there")


def shape(arm: Histogram) -> Shape:
    """The quantiles of a histogram, straight within its bins."""
    counts = arm.counts.sum(axis=0)
    used = counts > 0
    edges = np.maximum(np.append(lower_edge(arm.bins[used][:1]), lower_edge(arm.bins[used] + 1)), 0.5)
    reached = np.append(0.0, np.cumsum(counts[used]) / counts.sum())
    return Shape(reached, np.log(edges))


def batch_variance(arm: Histogram, quantile: float) -> float:
    """By how much log latency varies from batch to batch, beyond what single requests explain (method of moments)."""
    counts = arm.counts.sum(axis=0)
    n = arm.by_batch.astype(np.float64)
    beyond = arm.counts[:, arm.bins > quantile_bin(arm.bins, counts, quantile)].sum(axis=1)
    share = beyond.sum() / n.sum()
    pairs = float((n * (n - 1)).sum())
    if not pairs or n.size < 2:  # noqa: PLR2004 - a variance takes two
        return 0.0
    excess = float(((beyond - share * n) ** 2).sum()) * n.size / (n.size - 1) - float(n.sum() * share * (1 - share))
    return max(excess / pairs, 0.0) * _log_spread(arm, quantile) ** 2


def _log_spread(arm: Histogram, quantile: float) -> float:
    """The derivative of log latency by probability at a quantile."""
    half = min(0.1, quantile / 2, (1 - quantile) / 2)
    counts = arm.counts.sum(axis=0)
    low, high = (lower_edge(quantile_bin(arm.bins, counts, quantile + d) + 1) for d in (-half, half))
    return float(np.log(high / low) / (2 * half)) if low > 0 else 0.0
