"""What arms got where no share is configured, and how evenly: shown, not judged."""

import math
from collections.abc import Iterator, Sequence

from analysis import split
from analysis.findings import Dispersion, Interval, Share
from analysis.stats.bernoulli import observe, rate_interval
from analysis.stats.dispersion import dispersion
from analysis.tally import Tally
from experiments.core.hypotheses import Hypotheses

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
    """How each arm but the baseline varied over the windows of each phase and cohort in which two arms answered."""
    for phase in registered.batch_seconds:
        cells = tally.in_phase(phase)
        for cohort in sorted(set(cells["cohort"])):
            own = split.with_arm(cells[cells["cohort"] == cohort])
            table = own[own["arm"] != ""].pivot_table("n", ["period", "window"], "arm", "sum", fill_value=0)
            for arm in arms:
                if arm in table and arm != registered.baseline:
                    found = dispersion(table[arm].to_numpy(), table.sum(axis=1).to_numpy())
                    if found:
                        yield Dispersion(
                            phase,
                            cohort,
                            arm,
                            found.windows,
                            found.index,
                            found.p_under,
                            found.p_over,
                            _reading(found.p_under, found.p_over),
                        )


def _reading(p_under: float, p_over: float) -> str:
    if p_under < CLEAR:
        return "more even than independent draws, as round-robin is"
    if p_over < CLEAR:
        return "less even than independent draws, as sticky clients or a changing route are"
    return "as independent draws"
