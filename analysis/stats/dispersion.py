"""Does an arm's share vary from window to window as independent draws would?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats


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

    Args:
        hits: Requests of one arm, by window.
        totals: All requests, by window.

    >>> dispersion([2, 2, 2, 2], [4, 4, 4, 4]).index
    0.0
    """
    total = np.asarray(totals, dtype=np.float64)
    used = total > 0
    hit, total = np.asarray(hits, dtype=np.float64)[used], total[used]
    if hit.size < 2 or not 0 < hit.sum() < total.sum():  # noqa: PLR2004 - a variance takes two
        return None
    share = hit.sum() / total.sum()
    statistic = float(((hit - total * share) ** 2 / (total * share * (1 - share))).sum())
    freedom = hit.size - 1
    return Dispersion(
        index=statistic / freedom,
        windows=int(hit.size),
        p_under=float(stats.chi2.cdf(statistic, freedom)),
        p_over=float(stats.chi2.sf(statistic, freedom)),
    )
