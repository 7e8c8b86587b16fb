"""What arms got where no share is configured, and how evenly: shown, not judged."""

import math
from collections.abc import Iterator, Sequence

from analysis import draws, split, words
from analysis.findings import Dispersion, Drift, Interval, Share
from analysis.stats.bernoulli import observe, rate_interval
from analysis.stats.dispersion import dispersion
from analysis.tally import Tally
from experiments.core.hypotheses import Hypotheses, SplitHypothesis

CLEAR = 0.001
"""A p-value below this, on either side, is told in words; no claim rests on it."""


def shares(tally: Tally, registered: Hypotheses, arms: Sequence[str]) -> Iterator[Share]:
    """Observed shares of the phases and cohorts for which none is configured."""
    for one in registered.unconfigured:
        counts = split.count(tally, one.phase, [one.cohort], arms)
        n = math.fsum(counts.totals)
        for arm, hits in zip(counts.arms, counts.totals, strict=True):
            low, high = rate_interval(observe(n, hits, zero_weight=0.0), registered.alpha_split)
            between = Interval(hits / n if n else None, low, high, 1 - registered.alpha_split, anytime=True)
            unknown = round(math.fsum(counts.unknown))
            yield Share(one.phase, [one.cohort], arm, None, round(counts.requests), round(hits), unknown, between)


def dispersions(tally: Tally, registered: Hypotheses, arms: Sequence[str]) -> Iterator[Dispersion]:
    """How each arm but the baseline varied over the windows of each phase, for each cohort and all that are pooled."""
    others = [arm for arm in arms if arm != registered.baseline]
    pooled = [(one.phase, list(one.cohorts)) for one in registered.split if len(one.cohorts) > 1]
    for phase in registered.batch_seconds:
        single = [[cohort] for cohort in sorted(set(tally.in_phase(phase)["cohort"]))]
        for cohorts in [*single, *(cohorts for of, cohorts in pooled if of == phase)]:
            for arm, one, effect in draws.described(draws.by_window(tally, phase, cohorts), others):
                told, name = _reading(one.p_under, one.p_over), "+".join(cohorts)
                yield Dispersion(phase, name, arm, one.windows, one.index, one.p_under, one.p_over, told, effect=effect)


def _reading(p_under: float, p_over: float) -> str:
    if p_under < CLEAR:
        return "more even than independent draws, as round-robin is"
    if p_over < CLEAR:
        return "less even than independent draws, as sticky clients or a changing route are"
    return "as independent draws"


def drifts(tally: Tally, registered: Hypotheses) -> Iterator[Drift]:
    """Whether the shares of each hypothesis stayed what they were, for the arm of which it is least likely."""
    for one in registered.split:
        found = _drift(tally, registered, one)
        if found is not None:
            yield found


def _drift(tally: Tally, registered: Hypotheses, one: SplitHypothesis) -> Drift | None:
    table = draws.by_window(tally, one.phase, one.cohorts)
    seen = draws.examine(table, [arm for arm, share in one.shares.items() if 0 < share < 1])
    if seen.change is None or seen.arm is None:
        return None
    period, window = table.index[seen.change.at]
    seconds = registered.batch_seconds[one.phase] * float(window)
    steady = "the share stayed what it was"
    told = "the share changed" if seen.changed else "the share drifts" if _drifts(seen) else steady
    return Drift(
        phase=one.phase,
        cohorts=list(one.cohorts),
        arm=seen.arm,
        windows=len(table),
        at_s=seconds,
        before=seen.change.before,
        after=seen.change.after,
        statistic=seen.change.statistic,
        p_value=seen.change.p_value,
        trend_p_value=seen.trend,
        reading=told if period == table.index[0][0] else f"{told} (in a later period of the phase)",
    )


def _drifts(seen: draws.Draws) -> bool:
    return seen.trend is not None and seen.trend <= draws.CHANGED


def told(tally: Tally, registered: Hypotheses, arms: Sequence[str]) -> Iterator[str]:
    """A sentence for each phase in which cohorts have no configured share: why, what they got, and how evenly."""
    reasons = {(one.phase, one.reason): None for one in registered.unconfigured}
    for phase, reason in reasons:
        cohorts = [one.cohort for one in registered.unconfigured if (one.phase, one.reason) == (phase, reason)]
        counts = split.count(tally, phase, cohorts, arms)
        n = math.fsum(counts.totals)
        got = [
            f"{arm} got {words.percent(hits / n)}" for arm, hits in zip(counts.arms, counts.totals, strict=True) if hits
        ]
        what = f"{words.listed(got)} of {words.requests(n)}" if n else "no request could be counted"
        yield f"Phase {phase} is shown, not judged: {reason}. {what}{_evenness(tally, phase, cohorts, registered)}."


def _evenness(tally: Tally, phase: str, cohorts: Sequence[str], registered: Hypotheses) -> str:
    """How the share of each arm but the baseline varied from window to window."""
    table = draws.by_window(tally, phase, cohorts)
    said = ""
    for arm in (arm for arm in table.columns if arm != registered.baseline):
        found = dispersion(table[arm].to_numpy(), table.sum(axis=1).to_numpy())
        if found:
            said += (
                f"; over {found.windows} windows the share of {arm} varies with index {found.index:.2f} "
                "(1: as independent draws; 0: taking turns)"
            )
    return said
