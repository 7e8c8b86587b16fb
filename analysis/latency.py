"""Is the canary slower than the margin allows? Histograms by arm and time batch → one claim for each quantile."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis import words
from analysis.findings import BROKEN, MODEL, SHOWN, UNDECIDED, VOID, Claim, Interval, Latency, Need
from analysis.stats.bins import middle, quantile_bin
from analysis.stats.exceedances import Histogram, QuantileRatio, needed, quantile_ratio
from analysis.stats.multiplicity import holm
from analysis.tally import OK, Tally
from experiments.core.hypotheses import Hypotheses, LatencyHypothesis

MAX_LAG_CORRELATION = 0.5
"""Above this, neighbouring batches say much the same and their number misleads (benchmarks/calibration)."""

SHOWN_QUANTILES = (0.5, 0.9, 0.95, 0.99)

TEST = "exceedances of the baseline's quantile over time batches, t quantile"


@dataclass(frozen=True)
class Compared:
    """The two arms of a hypothesis: histograms with the same batches, and their test where one could be made."""

    hypothesis: LatencyHypothesis
    canary: Histogram
    baseline: Histogram
    ratio: QuantileRatio | None

    @property
    def requests(self) -> int:
        """Successful answers of both arms."""
        return self.canary.n + self.baseline.n

    @property
    def batches(self) -> int:
        """Time batches with at least one answer."""
        return int(self.canary.counts.shape[0])


def histograms(cells: Any, arms: Sequence[str]) -> list[Histogram]:
    """A histogram by time batch for each arm; batches are those in which any of them answered."""
    cells = cells[(cells["outcome"] == OK) & cells["answered"].isin(list(arms))]
    moments = sorted(set(zip(cells["period"], cells["window"], strict=True)))
    place = {moment: index for index, moment in enumerate(moments)}
    return [_histogram(cells[cells["answered"] == arm], place) for arm in arms]


def _histogram(cells: Any, place: Mapping[tuple[int, int], int]) -> Histogram:
    bins, columns = np.unique(cells["bin"].to_numpy(dtype=np.int64), return_inverse=True)
    lines = np.array([place[moment] for moment in zip(cells["period"], cells["window"], strict=True)], dtype=np.int64)
    counts = np.zeros((len(place), bins.size), dtype=np.int64)
    np.add.at(counts, (lines, columns), cells["n"].to_numpy(dtype=np.int64))
    return Histogram(bins, counts)


def compare(tally: Tally, hypothesis: LatencyHypothesis, baseline: str) -> Compared:
    """The two arms over the registered cohorts and phase."""
    cells = tally.in_phase(hypothesis.phase or "")
    cells = cells[cells["cohort"].isin(hypothesis.cohorts)]
    canary, base = histograms(cells, [hypothesis.canary, baseline])
    ratio = quantile_ratio(canary, base, hypothesis.quantile) if _supported(canary, base, hypothesis.quantile) else None
    return Compared(hypothesis, canary, base, ratio)


def _supported(canary: Histogram, baseline: Histogram, quantile: float) -> bool:
    return min(canary.n, baseline.n) >= needed(quantile)


def judge(tally: Tally, registered: Hypotheses, rates: Mapping[str, float]) -> tuple[list[Claim], list[Latency]]:
    """Every latency claim, and the latencies of each arm in each phase.

    Args:
        tally: Counts.
        registered: What was fixed before the load.
        rates: Planned arrivals a second by cohort.
    """
    found = [compare(tally, hypothesis, registered.baseline) for hypothesis in registered.latency]
    testable = [one for one in found if one.ratio is not None and not _obstacle(one, registered)]
    harms = [one.ratio.p_above(1 + one.hypothesis.margin) for one in testable if one.ratio is not None]
    rejected = holm(harms, registered.looks[-1].alpha)
    broken = {one.hypothesis.id for one, harmful in zip(testable, rejected, strict=True) if harmful}
    claims = [_claim(one, registered, one.hypothesis.id in broken, rates) for one in found]
    return claims, list(_rows(tally, registered))


def _obstacle(one: Compared, registered: Hypotheses) -> tuple[str, str] | None:
    """What keeps a hypothesis from being judged: the state, and why."""
    hypothesis = one.hypothesis
    if hypothesis.phase is None:
        return VOID, f"no phase sends requests to {hypothesis.canary} and to {registered.baseline} at once"
    least = needed(hypothesis.quantile)
    if min(one.canary.n, one.baseline.n) < least:
        return UNDECIDED, f"{_name(hypothesis.quantile)} takes at least {words.requests(least)} of each arm"
    if one.ratio is None or one.ratio.batches < registered.min_batches:
        return UNDECIDED, f"{one.batches} time batches are too few; {registered.min_batches} are needed"
    if one.ratio.lag1 > MAX_LAG_CORRELATION:
        return VOID, (
            f"latency wanders for longer than a time batch (lag-1 correlation {one.ratio.lag1:.2f} > "
            f"{MAX_LAG_CORRELATION}); run the phase longer, so that its batches are longer"
        )
    return None


def _claim(one: Compared, registered: Hypotheses, broken: bool, rates: Mapping[str, float]) -> Claim:  # noqa: FBT001
    hypothesis, alpha = one.hypothesis, registered.looks[-1].alpha
    limit = 1 + hypothesis.margin
    obstacle = _obstacle(one, registered)
    bare = Claim(
        id=hypothesis.id,
        kind="latency",
        required=hypothesis.required,
        state=obstacle[0] if obstacle else UNDECIDED,
        cause=MODEL,
        sentence="",
        test=TEST,
        null=f"the {_name(hypothesis.quantile)} of {hypothesis.canary} is at most {limit:g} × that of {registered.baseline}",
        requests=one.requests,
        unit="ratio of quantiles",
        margin_high=limit,
        phase=hypothesis.phase,
        arm=hypothesis.canary,
        reason=obstacle[1] if obstacle else "",
    )
    if obstacle or one.ratio is None:
        where = f"phase {hypothesis.phase}: " if hypothesis.phase else ""
        sentence = f"{where}{_name(hypothesis.quantile)} of {hypothesis.canary} cannot be judged: {bare.reason}."
        need = _first_need(one, registered, rates) if bare.state == UNDECIDED else None
        return _with(bare, sentence=sentence, need=need)
    state = BROKEN if broken else SHOWN if one.ratio.p_below(limit) <= alpha else UNDECIDED
    low, high = one.ratio.interval(2 * alpha)
    return _with(
        bare,
        state=state,
        interval=Interval(one.ratio.estimate, low, _finite(high), 1 - 2 * alpha, anytime=False),
        p_value=one.ratio.p_above(limit),
        sentence=_sentence(one, registered.baseline, state, (low, high)),
        need=_later_need(one, high, rates) if state == UNDECIDED else None,
    )


def _with(claim: Claim, **changes: Any) -> Claim:
    import msgspec

    return msgspec.structs.replace(claim, **changes)
