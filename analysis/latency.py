"""Is the canary slower than its margin or limit allows? Histograms by arm and time batch → one claim a hypothesis."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from analysis import words
from analysis.findings import BROKEN, MODEL, SHOWN, UNDECIDED, VOID, Claim, Interval, Latency, Need
from analysis.stats import distributions
from analysis.stats.batches import MANY, Weather
from analysis.stats.bins import middle, quantile_bin
from analysis.stats.exceedances import Histogram, needed
from analysis.stats.multiplicity import holm
from analysis.stats.woodruff import quantile_interval
from analysis.tally import OK, Tally
from analysis.trials import Trial, fewest, least, limit_trial, mean_trial, quantile_trial
from experiments.core.hypotheses import Hypotheses, LatencyHypothesis, Look

SHOWN_QUANTILES = (0.5, 0.9, 0.95, 0.99)
SHOWN_ALPHA = 0.05
"""Of the interval of each quantile that is shown, for itself: no claim rests on it."""

_WINDOWS = 2**32
"""More than a period has windows."""

INDEPENDENT_STRETCH = 10.0
"""A batch is to be this many correlation lengths long."""


@dataclass(frozen=True)
class Compared:
    """The two arms of a hypothesis by time batch.

    `over` and `sums` are the canary's answers beyond the limit, and each arm's sum of latencies, by batch.
    """

    hypothesis: LatencyHypothesis
    canary: Histogram
    baseline: Histogram
    over: Any
    sums: tuple[Any, Any]

    @property
    def requests(self) -> int:
        """Successful answers that the claim rests on."""
        return self.canary.n + (0 if self.hypothesis.limit_us else self.baseline.n)

    @property
    def fewest(self) -> int:
        """Answers of the arm that has fewer."""
        return int(fewest(self.hypothesis, self.canary.n, self.baseline.n))

    @property
    def batches(self) -> int:
        """Time batches with at least one answer."""
        return int(self.canary.counts.shape[0])

    @property
    def baseline_is_zero(self) -> bool:
        """Whether what is to be compared with is 0, of which there are no multiples."""
        if self.hypothesis.limit_us is not None or not self.baseline.n:
            return False
        if self.hypothesis.measure == "mean":
            return not float(self.sums[1].sum()) > 0
        at = quantile_bin(self.baseline.bins, self.baseline.counts.sum(axis=0), self.hypothesis.quantile)
        return not float(middle(at)) > 0

    def until(self, batches: int) -> "Compared":
        """What the first batches held."""
        canary, baseline = (Histogram(one.bins, one.counts[:batches]) for one in (self.canary, self.baseline))
        sums = self.sums[0][:batches], self.sums[1][:batches]
        return Compared(self.hypothesis, canary, baseline, self.over[:batches], sums)


@dataclass(frozen=True)
class Seen:
    """A hypothesis at one look: what it was tested with, or what keeps it from being tested."""

    compared: Compared
    look: Look
    gate: Trial | None
    obstacle: tuple[str, str] | None


def limits(registered: Hypotheses) -> tuple[int, ...]:
    """The absolute limits of all hypotheses, in µs, increasing."""
    return tuple(sorted({one.limit_us for one in registered.latency if one.limit_us is not None}))


def moments_of(cells: Any) -> Any:
    """The time batches of cells, each as one number, in order of time."""
    return np.unique(_moments(cells))


def _moments(cells: Any) -> Any:
    """Period and window as one number that goes up with time; a window counts from −1."""
    return cells["period"].to_numpy(dtype=np.int64) * _WINDOWS + cells["window"].to_numpy(dtype=np.int64) + 1


def histograms(cells: Any, arms: Sequence[str]) -> list[Histogram]:
    """A histogram by time batch for each arm; batches are those in which any of them answered."""
    cells = cells[(cells["outcome"] == OK) & cells["answered"].isin(list(arms))]
    moments = moments_of(cells)
    return [_histogram(cells[cells["answered"] == arm], moments) for arm in arms]


def _rows_of(cells: Any, moments: Any) -> Any:
    return np.searchsorted(moments, _moments(cells))


def _histogram(cells: Any, moments: Any) -> Histogram:
    bins, columns = np.unique(cells["bin"].to_numpy(dtype=np.int64), return_inverse=True)
    counts = np.zeros((len(moments), bins.size), dtype=np.int64)
    np.add.at(counts, (_rows_of(cells, moments), columns), cells["n"].to_numpy(dtype=np.int64))
    return Histogram(bins, counts)


def _by_batch(cells: Any, values: Any, moments: Any) -> Any:
    return np.bincount(_rows_of(cells, moments), weights=values, minlength=len(moments))


def compare(tally: Tally, hypothesis: LatencyHypothesis, baseline: str, limits_us: Sequence[int] = ()) -> Compared:
    """The two arms over the registered cohorts and phase; `limits_us` are those with which the tally was made."""
    arms = [hypothesis.canary, baseline]
    cells = tally.answers_by_bin
    of_claim = (cells["phase"] == hypothesis.phase) & cells["cohort"].isin(hypothesis.cohorts)
    cells = cells[of_claim & cells["answered"].isin(arms)]
    moments = moments_of(cells)
    own = [cells[cells["answered"] == arm] for arm in arms]
    first, second = (_by_batch(one, one["latency_us"].to_numpy(dtype=np.float64), moments) for one in own)
    at = 0 if hypothesis.limit_us is None else sum(limit < hypothesis.limit_us for limit in limits_us)
    beyond = np.where(own[0]["over"] > at, own[0]["n"], 0).astype(np.float64)
    over = _by_batch(own[0], beyond, moments).astype(np.int64)
    return Compared(hypothesis, _histogram(own[0], moments), _histogram(own[1], moments), over, (first, second))


def judge(tally: Tally, registered: Hypotheses, rates: Mapping[str, float]) -> tuple[list[Claim], list[Latency]]:
    """Every latency claim, and the latencies of each arm in each phase.

    Null of a claim: the canary's quantile or mean is at most the margin times the baseline's, or no more of its answers
    than allowed take longer than the limit. Arms that wander for as long as the phase break it; where batches cannot
    exclude that, nothing is said. Decided at registered looks only (Lan & DeMets 1983), claims by Holm 1979; the
    variance is that of ratios of sums over batches (Cochran 1977, section 6.3). Microseconds.

    Args:
        tally: Counts.
        registered: What was fixed before the load.
        rates: Planned arrivals a second by cohort.
    """
    found = [compare(tally, one, registered.baseline, limits(registered)) for one in registered.latency]
    by_look = [[_look(one, look, registered) for one in found] for look in registered.looks]
    broken = {name for seen in by_look for name in _broken(seen)}
    claims = []
    for index in range(len(found)):
        looks = [seen for row in by_look if (seen := row[index]) is not None]
        shown = any(_is_shown(seen) for seen in looks)
        claims.append(_claim(found[index], registered, looks, (broken, shown), rates))
    return claims, list(_rows(tally, registered))


def _look(one: Compared, look: Look, registered: Hypotheses) -> Seen | None:
    """A hypothesis at a registered look; None where that look has not come."""
    planned = registered.planned_batches.get(one.hypothesis.phase or "", one.batches)
    last = look is registered.looks[-1]
    at = one.batches if last else int(look.fraction * planned)
    if one.batches < at:
        return None
    seen = one.until(at)
    gate = _gate(seen) if seen.fewest >= least(one.hypothesis) else None
    return Seen(seen, look, gate, _obstacle(seen, gate, registered))


def _gate(one: Compared) -> Trial | None:
    hypothesis = one.hypothesis
    if hypothesis.limit_us is not None:
        return limit_trial(one.canary, one.over, 1 - hypothesis.quantile)
    if hypothesis.measure == "mean":
        return mean_trial((one.canary, one.sums[0]), (one.baseline, one.sums[1]), 1 + hypothesis.margin)
    return quantile_trial(one.canary, one.baseline, hypothesis.quantile, 1 + hypothesis.margin)


def _broken(seen: Sequence[Seen | None]) -> set[str]:
    """The hypotheses that are refuted at one look."""
    looks = [one for one in seen if one is not None]
    if not looks:
        return set()
    # Holm counts every registered hypothesis: one that cannot be tested yet may be at a later look.
    harms = [1.0 if one is None or one.gate is None or one.obstacle else one.gate.p_above for one in seen]
    rejected = holm(harms, looks[0].look.alpha)
    return {one.compared.hypothesis.id for one, harm in zip(seen, rejected, strict=True) if harm and one is not None}


def _is_shown(seen: Seen) -> bool:
    return seen.gate is not None and not seen.obstacle and seen.gate.p_below <= seen.look.alpha


def unlooked(hypothesis: LatencyHypothesis, registered: Hypotheses, sentence: str) -> Claim:
    """The claim before its registered look: undecided, whatever the numbers are."""
    nothing = Histogram(np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.int64))
    empty = Compared(hypothesis, nothing, nothing, np.zeros(0, dtype=np.int64), (np.zeros(0), np.zeros(0)))
    return msgspec.structs.replace(_bare(empty, registered), sentence=sentence)


def _obstacle(one: Compared, gate: Trial | None, registered: Hypotheses) -> tuple[str, str] | None:
    """What keeps a hypothesis from being judged: the state, and why. Too little data is undecided, never void."""
    hypothesis = one.hypothesis
    if hypothesis.phase is None:
        return VOID, f"no phase sends requests to {hypothesis.canary} and to {registered.baseline} at once"
    few = least(hypothesis)
    if one.fewest < few:
        return UNDECIDED, f"{measure_of(hypothesis)} takes at least {words.requests(few)} of each arm"
    if gate is None and one.baseline_is_zero:
        return VOID, f"the {measure_of(hypothesis)} of {registered.baseline} is 0: nothing is a multiple of that"
    if gate is None or gate.weather.batches < registered.min_batches:
        return UNDECIDED, f"{one.batches} time batches are too few; {registered.min_batches} are needed"
    if gate.weather.endless:
        # Few batches cannot know how long an arm wanders: that is too little data. Many can.
        state = VOID if gate.weather.batches >= MANY else UNDECIDED
        return state, f"{_wandering(gate.weather)}; run the phase longer, so that its batches are longer"
    return None


def _wandering(seen: Weather) -> str:
    """Why an interval is wide, or there is none."""
    return (
        f"latency wanders for longer than a time batch (correlation of neighbours {seen.lag1:.2f} "
        f"over {seen.batches} batches)"
    )


def _perhaps_wandering(seen: Weather) -> str:
    """Why an interval is wide though nothing seems to wander."""
    return f"{seen.batches} time batches are too few to exclude that latency wanders for much longer than one"


def _claim(
    one: Compared,
    registered: Hypotheses,
    looks: Sequence[Seen],
    decided: tuple[set[str], bool],
    rates: Mapping[str, float],
) -> Claim:
    if not looks:
        why = (
            UNDECIDED,
            f"it is decided at registered looks only, the first after {_first_look(one, registered)} batches",
        )
        return _unjudged(one, registered, (why, None), rates)
    state = BROKEN if one.hypothesis.id in decided[0] else SHOWN if decided[1] else UNDECIDED
    last = _telling(looks, state)
    if last.gate is None or (last.obstacle and state == UNDECIDED):
        return _unjudged(one, registered, (last.obstacle or (VOID, "it could not be computed"), last.gate), rates)
    alpha = last.look.alpha
    low, high = last.gate.interval(2 * alpha)
    between = Interval(last.gate.estimate, low, high if math.isfinite(high) else None, 1 - 2 * alpha, anytime=False)
    found = msgspec.structs.replace(
        _bare(one, registered),
        state=state,
        interval=between,
        p_value=last.gate.p_above,
        sentence=_sentence(one, registered.baseline, (state, last.gate, between)),
    )
    return _not_yet(found, one, (registered, last.gate, alpha), rates) if state == UNDECIDED else found


def _not_yet(found: Claim, one: Compared, tested: tuple[Hypotheses, Trial, float], rates: Mapping[str, float]) -> Claim:
    """An undecided claim with what it still needs; where the arms wander, that is why its interval is wide."""
    registered, gate, alpha = tested
    needs = [_later_need(one, gate, alpha, rates)]
    if gate.weather.wanders or gate.weather.may_wander:
        why = _wandering(gate.weather) if gate.weather.wanders else _perhaps_wandering(gate.weather)
        found = msgspec.structs.replace(found, reason=why, sentence=f"{found.sentence.removesuffix('.')}: {why}.")
        needs.append(_first_need(one, registered, gate, rates))
    known = [need for need in needs if need is not None]
    return msgspec.structs.replace(found, need=max(known, key=lambda need: need.requests, default=None))


def _telling(looks: Sequence[Seen], state: str) -> Seen:
    """The look whose figures are told: the one that decided, else the last."""
    judged = [(one, one.gate) for one in looks if one.gate is not None and not one.obstacle]
    if state == UNDECIDED or not judged:
        return looks[-1]
    weights = [(gate.p_above if state == BROKEN else gate.p_below) / one.look.alpha for one, gate in judged]
    return judged[int(np.argmin(weights))][0]


def _first_look(one: Compared, registered: Hypotheses) -> int:
    planned = registered.planned_batches.get(one.hypothesis.phase or "", 0)
    return int(registered.looks[0].fraction * planned)


def _unjudged(
    one: Compared, registered: Hypotheses, why: tuple[tuple[str, str], Trial | None], rates: Mapping[str, float]
) -> Claim:
    hypothesis, ((state, reason), gate) = one.hypothesis, why
    where = f"phase {hypothesis.phase}: " if hypothesis.phase else ""
    return msgspec.structs.replace(
        _bare(one, registered),
        state=state,
        reason=reason,
        sentence=f"{where}{measure_of(hypothesis)} of {hypothesis.canary} cannot be judged: {reason}.",
        need=_first_need(one, registered, gate, rates) if state == UNDECIDED else None,
    )


TESTS = {
    "quantile": "exceedances of the baseline's quantile over time batches, t quantile",
    "mean": "ratio of means over time batches (Fieller), t quantile",
    "limit": "exceedances of the limit over time batches, t quantile, never below exact binomial",
}
UNITS = {"quantile": "ratio of quantiles", "mean": "ratio of means", "limit": "share beyond the limit"}


def _kind(hypothesis: LatencyHypothesis) -> str:
    return "limit" if hypothesis.limit_us is not None else hypothesis.measure


def _bare(one: Compared, registered: Hypotheses) -> Claim:
    """What is the same whatever was found."""
    hypothesis, kind = one.hypothesis, _kind(one.hypothesis)
    null = f"the {measure_of(hypothesis)} of {hypothesis.canary} is at most {1 + hypothesis.margin:g} times that of "
    absolute = f"at most {words.percent(1 - hypothesis.quantile, 3)} of {hypothesis.canary} take "
    return Claim(
        id=hypothesis.id,
        kind="latency",
        required=hypothesis.required,
        state=UNDECIDED,
        cause=MODEL,
        sentence="",
        test=f"{TESTS[kind]}; {one.batches} batches of {registered.batch_seconds.get(hypothesis.phase or '', 0):g} s",
        null=f"{absolute}{words.milliseconds(hypothesis.limit_us)}" if kind == "limit" else null + registered.baseline,
        requests=one.requests,
        unit=UNITS[kind],
        margin_high=1 - hypothesis.quantile if kind == "limit" else 1 + hypothesis.margin,
        phase=hypothesis.phase,
        arm=hypothesis.canary,
    )


def measure_of(hypothesis: LatencyHypothesis) -> str:
    """What is compared: `mean`, or a quantile as people write it."""
    return "mean" if hypothesis.measure == "mean" else name_of(hypothesis.quantile)


def name_of(quantile: float) -> str:
    """A quantile as people write it.

    >>> name_of(0.5), name_of(0.999)
    ('p50', 'p99.9')
    """
    return f"p{100 * quantile:.6g}"


def _sentence(one: Compared, baseline: str, found: tuple[str, Trial, Interval]) -> str:
    if one.hypothesis.limit_us is not None:
        return _limit_sentence(one, found)
    hypothesis, (state, gate, between) = one.hypothesis, found
    across = " (different cohorts)" if hypothesis.across_cohorts else ""
    figures = (
        f"phase {hypothesis.phase}: {measure_of(hypothesis)} of {hypothesis.canary} is "
        f"{words.milliseconds(gate.canary)}, {words.increase(gate.estimate)} than the "
        f"{words.milliseconds(gate.baseline)} of {baseline}{across}"
    ).replace("as fast than", "as fast as")
    allowed = f"+{words.percent(hypothesis.margin)} is allowed"
    if state == BROKEN:
        return f"{figures}, at least {words.increase(between.low)}; {allowed}."
    if state == SHOWN and between.high is not None:
        bound = words.increase(between.high)
        return f"{figures}, {'at most' if between.high > 1 else 'at least'} {bound}; {allowed}."
    return f"{figures}: not enough to tell whether it keeps to the {allowed.replace(' is', ' that is')}."


def _limit_sentence(one: Compared, found: tuple[str, Trial, Interval]) -> str:
    hypothesis, (state, gate, between) = one.hypothesis, found
    allowed = f"{words.percent(1 - hypothesis.quantile, 3)} may ({measure_of(hypothesis)})"
    figures = (
        f"phase {hypothesis.phase}: {words.percent(gate.estimate, 3)} of {words.count(one.requests)} answers of "
        f"{hypothesis.canary} took {words.milliseconds(hypothesis.limit_us)} or longer from when they were due"
    )
    if state == BROKEN:
        return f"{figures}, truly at least {words.percent(between.low, 3)}; {allowed}."
    if state == SHOWN:
        return f"{figures}, truly at most {words.percent(between.high, 3)}; {allowed}."
    return f"{figures}; {allowed}: not enough to tell."


def _rate(one: Compared, rates: Mapping[str, float]) -> float:
    return math.fsum(rates.get(cohort, 0.0) for cohort in one.hypothesis.cohorts)


def _first_need(one: Compared, registered: Hypotheses, gate: Trial | None, rates: Mapping[str, float]) -> Need | None:
    """The data with which the claim can be tested at all."""
    rate = _rate(one, rates)
    if not (one.hypothesis.phase and rate and one.fewest):
        return None
    length = registered.batch_seconds[one.hypothesis.phase]
    more = (max(least(one.hypothesis) / one.fewest, 1) - 1) * (one.canary.n + one.baseline.n) / rate
    batches = (registered.min_batches - one.batches) * length
    seconds = max(more, batches, _calm(one, gate, length), 0.0)
    return Need(math.ceil(seconds * rate), seconds)


def _calm(one: Compared, gate: Trial | None, length: float) -> float:
    """Seconds more until many batches are ten correlation lengths long, if the correlation falls exponentially."""
    if gate is None or not (gate.weather.wanders or gate.weather.endless):
        return 0.0
    correlation = length / -math.log(min(max(gate.weather.lag1, 0.05), 0.95))
    return MANY * INDEPENDENT_STRETCH * correlation - one.batches * length


def _later_need(one: Compared, gate: Trial, alpha: float, rates: Mapping[str, float]) -> Need | None:
    """The data that would decide the claim if the figure stays as it looks: scores grow with the root of the data."""
    score = distributions.normal_upper(min(gate.p_above, gate.p_below))
    if score <= 0:
        return None
    multiple = (distributions.normal_upper(alpha) / score) ** 2
    more = max(multiple - 1, 0.05) * (one.canary.n + one.baseline.n)
    rate = _rate(one, rates)
    return Need(math.ceil(more), more / rate if rate else 0.0)


def _rows(tally: Tally, registered: Hypotheses) -> Iterator[Latency]:
    """Each arm's latencies in every phase in which it answered."""
    judged = tally.judged_by_bin
    yield from _by_arm(judged[(judged["outcome"] == OK) & (judged["answered"] != "")], registered)


def waits(tally: Tally, registered: Hypotheses) -> Iterator[Latency]:
    """The same from the intended start, of requests that had one: what a client that was promised a time has waited.

    They are not counted by time batch, so their quantiles have no intervals.
    """
    if tally.waited is not None:
        yield from _by_arm(tally.waited, registered)


def _by_arm(cells: Any, registered: Hypotheses) -> Iterator[Latency]:
    order = {phase: index for index, phase in enumerate(registered.batch_seconds)}
    claimed = {one.quantile for one in registered.latency if one.measure == "quantile"}
    quantiles = sorted(claimed | set(SHOWN_QUANTILES))
    groups = cells.groupby(["phase", "answered"])
    for (phase, arm), own in sorted(groups, key=lambda item: (order.get(item[0][0], len(order)), item[0])):
        answers = _answers(own)
        counts, n = answers.counts.sum(axis=0), answers.n
        supported = [q for q in quantiles if n >= needed(q)]
        found = {name_of(q): float(middle(quantile_bin(answers.bins, counts, q))) for q in supported}
        mean = float(own["latency_us"].sum()) / n
        yield Latency(str(phase), str(arm), n, mean, found, dict(_intervals(answers, supported)))


def _answers(own: Any) -> Histogram:
    """One arm's answers in one phase, by time batch where they were counted by batch."""
    if "window" in own:
        return _histogram(own, moments_of(own))
    bins, columns = np.unique(own["bin"].to_numpy(dtype=np.int64), return_inverse=True)
    return Histogram(bins, np.bincount(columns, weights=own["n"], minlength=bins.size).astype(np.int64)[np.newaxis, :])


def _intervals(answers: Histogram, quantiles: Sequence[float]) -> Iterator[tuple[str, Interval]]:
    """The interval of each quantile that has one."""
    counts = answers.counts.sum(axis=0)
    for quantile in quantiles:
        ends = quantile_interval(answers, quantile, SHOWN_ALPHA)
        if ends is not None:
            estimate = float(middle(quantile_bin(answers.bins, counts, quantile)))
            yield name_of(quantile), Interval(estimate, *ends, 1 - SHOWN_ALPHA, anytime=False)
