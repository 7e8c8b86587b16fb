"""Statistics beside the claims, each with what it assumes. No verdict rests on any of them."""

import math
from collections.abc import Iterator

import numpy as np

from analysis import failures
from analysis.findings import Secondary
from analysis.latency import Compared, compare, name_of
from analysis.stats import multinomial
from analysis.stats.bands import band_sum, largest_gap
from analysis.stats.bins import bin_of, lower_edge, middle
from analysis.stats.exceedances import Floats, Histogram, needed
from analysis.stats.quantiles import order_statistic_interval, quantile_sequence, two_sample_p
from analysis.stats.ranks import aligned, brunner_munzel, shift_ratio, superiority_interval
from analysis.tally import Tally
from experiments.core.hypotheses import ErrorsHypothesis, Hypotheses

ALPHA = 0.05

INDEPENDENT = "requests do not depend on one another in time; queues and garbage collection on one pod break it"

EXPOSED = (
    "every look; how often requests fail may change in time, but the shares of requests are as configured, each "
    "failure is drawn for itself, and those of unknown arm are left out"
)

FIRST_LOOK = 100
"""Requests of an arm before which sequences say nothing, and for which they are tuned."""


def describe(tally: Tally, registered: Hypotheses) -> Iterator[Secondary]:
    """The statistics of every canary against the baseline, in its phase of comparison."""
    done = set()
    for one in registered.latency:
        if one.phase is None or (one.canary, one.phase) in done:
            continue
        done.add((one.canary, one.phase))
        found = compare(tally, one, registered.baseline)
        if found.canary.n and found.baseline.n:
            yield from _of_pair(found, one.phase)
            for quantile in sorted({o.quantile for o in registered.latency if o.measure == "quantile"}):
                yield from _of_quantile(found, one.phase, quantile, registered.baseline)
    for errors in registered.errors:
        yield from _given_exposure(tally, registered, errors)


def _given_exposure(tally: Tally, registered: Hypotheses, one: ErrorsHypothesis) -> Iterator[Secondary]:
    """Whose the failures are, given each arm's configured share of the requests: how often all fail does not matter.

    Where cohorts have different shares, exposure depends on who asks, and nothing is said. Null: both arms fail alike
    at any moment, however often that is. Source: Lindon & Malek 2022 (arXiv 2011.03567), time-varying Bernoulli.
    """
    here = [claim.shares for claim in registered.split if claim.phase == one.phase]
    if one.phase is None or len(here) != 1 or any(other.phase == one.phase for other in registered.unconfigured):
        return
    shares, counts = here[0], failures.count(tally, one.phase)
    arms = one.canary, registered.baseline
    failed = [counts.get(arm, failures.Arm()).failed for arm in arms]
    n, exposed = math.fsum(failed), math.fsum(shares[arm] for arm in arms)
    if not n or not all(shares[arm] > 0 for arm in arms):
        return
    split = multinomial.observe([failed], [shares[arm] / exposed for arm in arms], registered.concentrations)
    low, high = multinomial.share_interval(split, 0, ALPHA)
    yield Secondary(
        phase=one.phase, arm=one.canary, name="failures given exposure: part that is the canary's",
        estimate=failed[0] / n, low=low, high=high, level=1 - ALPHA, unit="share",
        null_value=shares[one.canary] / exposed, p_value=math.exp(-max(split.log_e, 0.0)), assumption=EXPOSED,
    )  # fmt: skip


def _counted(arm: Histogram) -> tuple[Floats, Floats]:
    """Values that stand for the bins, and counts."""
    return middle(arm.bins), arm.counts.sum(axis=0).astype(np.float64)


def _of_pair(found: Compared, phase: str) -> Iterator[Secondary]:
    arm = found.hypothesis.canary
    canary, baseline = _counted(found.canary), _counted(found.baseline)
    base, ours = aligned((found.baseline.bins, baseline[1]), (found.canary.bins, canary[1]))
    ranks = brunner_munzel(base, ours, ALPHA)
    if ranks is not None:
        low, high = superiority_interval(ranks, found.baseline.n, found.canary.n, ALPHA)
        yield Secondary(
            phase=phase, arm=arm, name="Brunner-Munzel: chance that the canary is slower", estimate=ranks.estimate,
            low=low, high=high, level=1 - ALPHA, unit="probability", assumption=f"one look; {INDEPENDENT}",
            null_value=0.5, p_value=ranks.p_value,
        )  # fmt: skip
    shift = shift_ratio(baseline, canary, ALPHA)
    if shift is not None:
        yield Secondary(
            phase=phase, arm=arm, name="Hodges-Lehmann: times slower throughout", estimate=shift[0], low=shift[1],
            high=shift[2], level=1 - ALPHA, unit="ratio", null_value=1.0,
            assumption=f"one look; the arms differ by one factor; {INDEPENDENT}",
        )  # fmt: skip
    yield _band(found, (base, ours), phase)


def _band(found: Compared, counts: tuple[Floats, Floats], phase: str) -> Secondary:
    """Whether the whole distributions differ, by how much at most: the estimate is the largest gap either way."""
    slower, faster = largest_gap(*counts)
    radius = band_sum(found.baseline.n, found.canary.n, ALPHA, FIRST_LOOK)
    gap = max(slower, faster)
    return Secondary(
        phase=phase, arm=found.hypothesis.canary, name="distribution bands: largest gap in share", estimate=gap,
        low=max(gap - radius, 0.0), high=min(gap + radius, 1.0), level=1 - ALPHA, unit="share", null_value=0.0,
        assumption=f"every look from {FIRST_LOOK} requests on; {INDEPENDENT}",
    )  # fmt: skip


def _of_quantile(found: Compared, phase: str, quantile: float, baseline: str) -> Iterator[Secondary]:
    name, arms = name_of(quantile), ((found.hypothesis.canary, found.canary), (baseline, found.baseline))
    if min(found.canary.n, found.baseline.n) < needed(quantile):
        return
    for arm, histogram in arms:
        yield from _intervals(arm, histogram, phase, quantile)
    first, second = (_counted(one) for _, one in arms)
    yield Secondary(
        phase=phase, arm=found.hypothesis.canary, name=f"{name}: both arms the same, two-sample e-process",
        estimate=None, low=None, high=None, level=1 - ALPHA, unit="p-value at every look",
        assumption=f"every look; {INDEPENDENT}", p_value=two_sample_p(first, second, quantile, FIRST_LOOK),
    )  # fmt: skip


def _intervals(arm: str, histogram: Histogram, phase: str, quantile: float) -> Iterator[Secondary]:
    name, (values, counts) = name_of(quantile), _counted(histogram)
    at = float(values[np.searchsorted(np.cumsum(counts), np.ceil(quantile * counts.sum() - 1e-9))])
    for told, (low, high) in (
        ("one look", order_statistic_interval(values, counts, quantile, ALPHA)),
        ("every look", quantile_sequence(values, counts, quantile, ALPHA, FIRST_LOOK)),
    ):
        yield Secondary(
            phase=phase, arm=arm, name=f"{name}, from order statistics, {told}", estimate=at, low=_edge(low, -1),
            high=_edge(high, 1), level=1 - ALPHA, unit="us", assumption=f"{told}; {INDEPENDENT}",
        )  # fmt: skip


def _edge(value: float | None, side: int) -> float | None:
    """The far edge of the bin that a value stands for: an interval on bins is never narrower than on raw values."""
    if value is None:
        return None
    place = bin_of([value])
    return float(lower_edge(place)[0]) if side < 0 else max(float(lower_edge(place + 1)[0]) - 1, value)
