"""Does an arm's share vary from window to window as independent draws would, and what are the requests worth if not?"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.stats import distributions

MIN_EXPECTED = 5.0
"""Fewer expected requests of an arm in a batch and Pearson's χ² is no longer χ² (Cochran 1954)."""

MIN_BATCHES = 8
"""Fewer batches say nothing of how much batches vary."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Dispersion:
    """`index` is about 1 for independent draws, near 0 for round-robin, far above 1 for sticky or changing routes.

    `p_under` and `p_over` are the two sides of the χ² test with windows − 1 degrees of freedom.
    """

    index: float
    windows: int
    p_under: float
    p_over: float


def dispersion(hits: npt.ArrayLike, totals: npt.ArrayLike) -> Dispersion | None:
    """The index of dispersion of a share over windows (Cochran 1954); None for fewer than two windows or no variation.

    Null: every request goes to the arm with the same probability, independently. Windows that expect fewer than five
    requests of either side break the χ² limit.

    Args:
        hits: Requests of one arm, by window.
        totals: All requests, by window.

    >>> dispersion([2, 2, 2, 2], [4, 4, 4, 4]).index
    0.0

    Smokers among four groups of patients (Fleiss 1981, page 139): χ² = 12.6004 with 3 degrees of freedom, p = .005585.

    >>> found = dispersion([83, 90, 129, 70], [86, 93, 136, 82])
    >>> round(3 * found.index, 4), round(found.p_over, 6)
    (12.6004, 0.005585)
    """
    total = np.asarray(totals, dtype=np.float64)
    used = total > 0
    hit, total = np.asarray(hits, dtype=np.float64)[used], total[used]
    if hit.size < 2 or not _both(hit, total):  # noqa: PLR2004 - a variance takes two
        return None
    return _of(_pearson(hit, total, hit, total), int(hit.size), 1)


def _both(hit: Floats, total: Floats) -> bool:
    """Whether there are finite requests of the arm, and of the others."""
    return bool(0 < hit.sum() < math.inf and 0 < total.sum() < math.inf and (total - hit).sum() > 0)


def _pearson(hit: Floats, total: Floats, hits: Floats, totals: Floats) -> float:
    """Pearson's statistic of batches around the share of some windows."""
    # The rest is summed for itself: 1 − share would lose a few of 10^18.
    share, rest = hits.sum() / totals.sum(), (totals - hits).sum() / totals.sum()
    return float(((hit - total * share) ** 2 / (total * share * rest)).sum())


def _of(statistic: float, windows: int, fitted: int) -> Dispersion:
    freedom = windows - fitted
    return Dispersion(
        index=statistic / freedom,
        windows=windows,
        p_under=distributions.chi_square_below(statistic, freedom),
        p_over=distributions.chi_square_above(statistic, freedom),
    )


def over_scales(hits: npt.ArrayLike, totals: npt.ArrayLike, change: int | None = None) -> list[Dispersion]:
    """The dispersion over batches of s, 2s, 4s, … windows, where s is the fewest that expect five of either side.

    One scale is not enough: a sticky client's session that outlasts a window shows in longer batches only, and
    round-robin evens out within any of them. Empty where there are fewer than eight batches at the first scale. Null
    and limits are those of `dispersion`, at each scale: at least five expected requests of either side (Cochran 1954).

    Args:
        hits: Requests of one arm, by window.
        totals: All requests, by window.
        change: The window at which the share may have changed: each side is held against its own share.

    >>> [one.windows for one in over_scales([5] * 32, [10] * 32)]
    [32, 16, 8]
    >>> over_scales([1] * 7, [2] * 7)
    []
    """
    hit, total = np.asarray(hits, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    cuts = (slice(None),) if change is None else (slice(change), slice(change, None))
    parts = [(hit[cut][total[cut] > 0], total[cut][total[cut] > 0]) for cut in cuts]
    windows = sum(h.size for h, _ in parts)
    if not all(_both(h, t) for h, t in parts):
        return []
    size = max(math.ceil(max(MIN_EXPECTED * h.size / min(h.sum(), (t - h).sum()) for h, t in parts) - 1e-9), 1)
    found = []
    while windows // size >= MIN_BATCHES:
        found.append(_at_scale(parts, size))
        size *= 2
    return found


def _at_scale(parts: list[tuple[Floats, Floats]], size: int) -> Dispersion:
    """Pearson's statistic of batches of `size` windows, each part around its own share."""
    statistic, batches = 0.0, 0
    for hits, totals in parts:
        hit, total = merged(hits, size), merged(totals, size)
        statistic += _pearson(hit, total, hits, totals)
        batches += hit.size
    return _of(statistic, batches, len(parts))


def merged(values: Floats, size: int) -> Floats:
    """Sums over `size` neighbours; what is left over at the end joins the last group.

    >>> merged(np.arange(7.0), 3).tolist()
    [3.0, 18.0]
    """
    groups = max(values.size // size, 1)
    return np.add.reduceat(values, np.arange(groups) * size)


def design_effect(found: list[Dispersion], level: float) -> float:
    """How many requests count as one: the largest index of a scale that is too uneven at `level` in all, else 1.

    n / design effect is the effective sample size (Kish 1965, section 5.4): the number of independent draws whose
    share would vary as much. It is an estimate: where few batches vary wildly it may be off by half.

    >>> design_effect([Dispersion(4.0, 20, 1.0, 1e-9), Dispersion(6.0, 10, 1.0, 1e-9)], 0.01)
    6.0
    >>> design_effect([Dispersion(1.2, 20, 0.8, 0.2)], 0.01)
    1.0
    """
    uneven = [one.index for one in found if one.p_over * len(found) <= level]
    return max([1.0, *uneven])


def p_too_even(found: list[Dispersion]) -> float:
    """The chance that independent draws are as even as this at the most telling scale; 1 for nothing.

    Null: independent draws. Scales depend on one another; the smallest p-value times their number holds whatever they
    do (Bonferroni; Dunn 1961).

    >>> p_too_even([Dispersion(0.0, 20, 1e-9, 1.0), Dispersion(0.1, 10, 1e-3, 1.0)])
    2e-09
    """
    return min([1.0, *(one.p_under * len(found) for one in found)])
