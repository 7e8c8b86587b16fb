"""Is the canary slower than the margin allows? Histograms by arm and time batch → one claim for each quantile."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from scipy import stats

from analysis import words
from analysis.findings import BROKEN, MODEL, SHOWN, UNDECIDED, VOID, Claim, Interval, Latency, Need
from analysis.stats.bins import middle, quantile_bin
from analysis.stats.exceedances import Histogram, QuantileRatio, largest_lag, needed, quantile_ratio
from analysis.stats.multiplicity import holm
from analysis.tally import OK, Tally
from experiments.core.hypotheses import Hypotheses, LatencyHypothesis

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
    cells = tally.judged_by_bin
    cells = cells[(cells["phase"] == hypothesis.phase) & cells["cohort"].isin(hypothesis.cohorts)]
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
    # Holm counts every registered hypothesis: one that cannot be tested yet may be at a later look.
    rejected = holm([_p_harm(one, registered) for one in found], registered.looks[-1].alpha)
    broken = {one.hypothesis.id for one, harmful in zip(found, rejected, strict=True) if harmful}
    claims = [_claim(one, registered, one.hypothesis.id in broken, rates) for one in found]
    return claims, list(_rows(tally, registered))


def _p_harm(one: Compared, registered: Hypotheses) -> float:
    """The p-value of harm; 1 where it cannot be tested."""
    if one.ratio is None or _obstacle(one, registered):
        return 1.0
    return one.ratio.p_above(1 + one.hypothesis.margin)


def unlooked(hypothesis: LatencyHypothesis, registered: Hypotheses, sentence: str) -> Claim:
    """The claim before its registered look: undecided, whatever the numbers are."""
    nothing = Histogram(np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.int64))
    bare = _bare(Compared(hypothesis, nothing, nothing, None), registered)
    return msgspec.structs.replace(bare, sentence=sentence)


def _obstacle(one: Compared, registered: Hypotheses) -> tuple[str, str] | None:
    """What keeps a hypothesis from being judged: the state, and why."""
    hypothesis = one.hypothesis
    if hypothesis.phase is None:
        return VOID, f"no phase sends requests to {hypothesis.canary} and to {registered.baseline} at once"
    least = needed(hypothesis.quantile)
    if min(one.canary.n, one.baseline.n) < least:
        return UNDECIDED, f"{name_of(hypothesis.quantile)} takes at least {words.requests(least)} of each arm"
    if one.ratio is None or one.ratio.batches < registered.min_batches:
        return UNDECIDED, f"{one.batches} time batches are too few; {registered.min_batches} are needed"
    if one.ratio.lag1 > largest_lag(one.ratio.batches):
        return VOID, (
            f"latency wanders for longer than a time batch (lag-1 correlation {one.ratio.lag1:.2f} > "
            f"{largest_lag(one.ratio.batches):.2f}); run the phase longer, so that its batches are longer"
        )
    return None


def _claim(one: Compared, registered: Hypotheses, broken: bool, rates: Mapping[str, float]) -> Claim:  # noqa: FBT001
    obstacle = _obstacle(one, registered)
    if obstacle or one.ratio is None:
        state, reason = obstacle or (VOID, "it could not be computed")
        return _unjudged(one, registered, (state, reason), rates)
    alpha, limit = registered.looks[-1].alpha, 1 + one.hypothesis.margin
    state = BROKEN if broken else SHOWN if one.ratio.p_below(limit) <= alpha else UNDECIDED
    low, high = one.ratio.interval(2 * alpha)
    between = Interval(one.ratio.estimate, low, high if math.isfinite(high) else None, 1 - 2 * alpha, anytime=False)
    return msgspec.structs.replace(
        _bare(one, registered),
        state=state,
        interval=between,
        p_value=one.ratio.p_above(limit),
        sentence=_sentence(one, registered.baseline, state, between),
        need=_later_need(one, alpha, rates) if state == UNDECIDED else None,
    )


def _unjudged(one: Compared, registered: Hypotheses, why: tuple[str, str], rates: Mapping[str, float]) -> Claim:
    hypothesis = one.hypothesis
    where = f"phase {hypothesis.phase}: " if hypothesis.phase else ""
    return msgspec.structs.replace(
        _bare(one, registered),
        state=why[0],
        reason=why[1],
        sentence=f"{where}{name_of(hypothesis.quantile)} of {hypothesis.canary} cannot be judged: {why[1]}.",
        need=_first_need(one, registered, rates) if why[0] == UNDECIDED else None,
    )


def _bare(one: Compared, registered: Hypotheses) -> Claim:
    """What is the same whatever was found."""
    hypothesis = one.hypothesis
    limit = 1 + hypothesis.margin
    quantile = name_of(hypothesis.quantile)
    return Claim(
        id=hypothesis.id,
        kind="latency",
        required=hypothesis.required,
        state=UNDECIDED,
        cause=MODEL,
        sentence="",
        test=f"{TEST}; {one.batches} batches of {registered.batch_seconds.get(hypothesis.phase or '', 0):g} s",
        null=f"the {quantile} of {hypothesis.canary} is at most {limit:g} times that of {registered.baseline}",
        requests=one.requests,
        unit="ratio of quantiles",
        margin_high=limit,
        phase=hypothesis.phase,
        arm=hypothesis.canary,
    )


def name_of(quantile: float) -> str:
    """A quantile as people write it.

    >>> name_of(0.5), name_of(0.999)
    ('p50', 'p99.9')
    """
    return f"p{100 * quantile:.6g}"


def _sentence(one: Compared, baseline: str, state: str, between: Interval) -> str:
    hypothesis, ratio = one.hypothesis, one.ratio
    if ratio is None or between.estimate is None:
        return ""
    across = " (different cohorts)" if hypothesis.across_cohorts else ""
    figures = (
        f"phase {hypothesis.phase}: {name_of(hypothesis.quantile)} of {hypothesis.canary} is "
        f"{words.milliseconds(ratio.canary)}, {words.increase(between.estimate)} than the "
        f"{words.milliseconds(ratio.baseline)} of {baseline}{across}"
    ).replace("as fast than", "as fast as")
    allowed = f"+{words.percent(hypothesis.margin)} is allowed"
    if state == BROKEN:
        return f"{figures}, at least {words.increase(between.low)}; {allowed}."
    if state == SHOWN and between.high is not None:
        bound = words.increase(between.high)
        return f"{figures}, {'at most' if between.high > 1 else 'at least'} {bound}; {allowed}."
    return f"{figures}: not enough to tell whether the true figure keeps to what {allowed.removeprefix('+')}."


def _rate(one: Compared, rates: Mapping[str, float]) -> float:
    return math.fsum(rates.get(cohort, 0.0) for cohort in one.hypothesis.cohorts)


def _first_need(one: Compared, registered: Hypotheses, rates: Mapping[str, float]) -> Need | None:
    """The data with which the claim can be tested at all."""
    rate, fewest = _rate(one, rates), min(one.canary.n, one.baseline.n)
    if not (one.hypothesis.phase and rate and fewest):
        return None
    more = (max(needed(one.hypothesis.quantile) / fewest, 1) - 1) * one.requests / rate
    batches = (registered.min_batches - one.batches) * registered.batch_seconds[one.hypothesis.phase]
    seconds = max(more, batches, 0.0)
    return Need(math.ceil(seconds * rate), seconds)


def _later_need(one: Compared, alpha: float, rates: Mapping[str, float]) -> Need | None:
    """The data that would decide the claim if the ratio stays as it looks: scores grow with the root of the data."""
    score = one.ratio.score_at(1 + one.hypothesis.margin) if one.ratio else 0.0
    if score == 0:
        return None
    multiple = (float(stats.norm.isf(alpha)) / score) ** 2
    more = max(multiple - 1, 0.05) * one.requests
    rate = _rate(one, rates)
    return Need(math.ceil(more), more / rate if rate else 0.0)


def _rows(tally: Tally, registered: Hypotheses) -> Iterator[Latency]:
    """Each arm's latencies in every phase in which it answered."""
    judged = tally.judged_by_bin
    cells = judged[(judged["outcome"] == OK) & (judged["answered"] != "")]
    order = {phase: index for index, phase in enumerate(registered.batch_seconds)}
    groups = cells.groupby(["phase", "answered"])
    for (phase, arm), own in sorted(groups, key=lambda item: (order.get(item[0][0], len(order)), item[0])):
        by_bin = own.groupby("bin")["n"].sum()
        bins = by_bin.index.to_numpy(dtype="int64")
        values = {name_of(q): float(middle(quantile_bin(bins, by_bin.to_numpy(), q))) for q in SHOWN_QUANTILES}
        n = int(by_bin.sum())
        supported = {name: value for name, value in values.items() if n >= needed(float(name[1:]) / 100)}
        yield Latency(str(phase), str(arm), n, float(own["latency_us"].sum()) / n, supported)
