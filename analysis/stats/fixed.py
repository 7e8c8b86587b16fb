"""Tests and intervals for one look at the end; looking repeatedly and stopping breaks all of them."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import special

from analysis.stats import distributions

EXACT_UP_TO = 1000
"""Two arms with no more requests than this get the exact binomial test; otherwise Pearson's χ²."""


MOST_OUTCOMES = 20_000
"""Three and more arms get the exact multinomial test where there are no more outcomes than this: some milliseconds."""


def _counted(hits: float, n: float) -> bool:
    """Whether these are hits of trials: some, finite, and numbers."""
    return 0 <= hits <= n and 0 < n < math.inf


def wilson(hits: float, n: float, alpha: float) -> tuple[float, float]:
    """Wilson's interval of a rate (Wilson 1927): independent trials.

    >>> [round(end, 4) for end in wilson(81, 263, 0.05)]
    [0.2553, 0.3662]
    """
    if not _counted(hits, n):
        return 0.0, 1.0
    z = distributions.normal_upper(alpha / 2)
    rate = hits / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def clopper_pearson(hits: float, n: float, alpha: float) -> tuple[float, float]:
    """The exact interval of a rate (Clopper & Pearson 1934), at one look: independent trials.

    >>> [round(end, 4) for end in clopper_pearson(81, 263, 0.05)]
    [0.2527, 0.3676]
    """
    if not _counted(hits, n):
        return 0.0, 1.0
    low = distributions.beta_quantile(alpha / 2, hits, n - hits + 1) if hits > 0 else 0.0
    high = distributions.beta_upper(alpha / 2, hits + 1, n - hits) if hits < n else 1.0
    return low, high


def newcombe(first: tuple[float, float], second: tuple[float, float], alpha: float) -> tuple[float, float]:
    """The interval of a difference of rates from two Wilson intervals (Newcombe 1998, method 10): independent trials.

    Args:
        first: Hits and trials.
        second: Likewise; the difference is first − second.
        alpha: 1 − level.

    >>> [round(end, 3) for end in newcombe((7, 34), (1, 34), 0.05)]
    [0.019, 0.34]
    >>> [round(end, 4) for end in newcombe((56, 70), (48, 80), 0.05)]
    [0.0524, 0.3339]
    """
    if not (_counted(*first) and _counted(*second)):
        return -1.0, 1.0
    p, q = first[0] / first[1], second[0] / second[1]
    (low_p, high_p), (low_q, high_q) = wilson(*first, alpha), wilson(*second, alpha)
    low, high = p - q - math.hypot(p - low_p, high_q - q), p - q + math.hypot(high_p - p, q - low_q)
    return max(low, -1.0), min(high, 1.0)  # floats may round past the ends


def shares_p_value(counts: Sequence[float], shares: Sequence[float]) -> tuple[str, float] | None:
    """The test's name and p-value of exactly these shares; None where nothing could speak against them.

    Null: each request goes to arm i with probability shareᵢ, independently; one look. Sticky clients and looking
    repeatedly break it. Source: Pearson 1900; the example is of Kohavi, Tang & Xu 2020, chapter 3.

    >>> name, p = shares_p_value([821588, 815482], [0.5, 0.5])
    >>> name, round(p * 1e6, 1)
    ('Pearson chi-square', 1.8)
    """
    total = math.fsum(counts) if all(0 <= count < math.inf for count in counts) else 0.0
    positive = [(count, share) for count, share in zip(counts, shares, strict=True) if share > 0]
    if total == 0:
        return None
    if math.fsum(count for count, _ in positive) < total:
        return "a request where none may go", 0.0
    if len(positive) == 1:
        return None
    if len(positive) == 2 and total <= EXACT_UP_TO:  # noqa: PLR2004 - two arms
        hits, share = round(positive[0][0]), min(positive[0][1], 1.0)
        return "exact binomial", distributions.binomial_two_sided(hits, round(total), share)
    expected = np.array([share for _, share in positive])
    observed = np.array([count for count, _ in positive])
    if total <= EXACT_UP_TO and math.comb(round(total) + len(positive) - 1, len(positive) - 1) <= MOST_OUTCOMES:
        return "exact multinomial", _exact_multinomial([round(count) for count in observed.tolist()], expected.tolist())
    return "Pearson chi-square", _pearson(observed, expected / expected.sum() * total)[1]


def _exact_multinomial(counts: Sequence[int], shares: Sequence[float]) -> float:
    """The chance of counts at most as likely as these, by adding up all outcomes: the exact test of positive shares.

    Null: each request goes to arm i with probability shareᵢ, independently; one look. Sticky clients and looking
    repeatedly break it. There are C(n + k − 1, k − 1) outcomes, and each is worked out: for small n only. With
    two arms it is the exact binomial test. Shares are scaled to sum to 1.

    >>> round(_exact_multinomial([0, 2, 0], [0.5, 0.25, 0.25]), 4)  # 1/16 twice: all else is likelier
    0.125
    """
    n, parts = sum(counts), len(counts)
    bars = np.array(list(combinations(range(n + parts - 1), parts - 1)), dtype=np.int64).reshape(-1, parts - 1)
    ends = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), n + parts - 1)])
    outcomes = np.diff(ends, axis=1) - 1
    weights = np.asarray(shares, dtype=np.float64) / math.fsum(shares)

    def log_chance(each: Any) -> Any:
        return math.lgamma(n + 1) + (special.xlogy(each, weights) - special.gammaln(each + 1)).sum(axis=-1)

    logs = log_chance(outcomes)
    likely = logs <= log_chance(np.asarray(counts)) + 1e-9
    return min(float(np.exp(logs[likely]).sum()), 1.0)


def jeffreys(hits: float, n: float, alpha: float) -> tuple[float, float]:
    """Jeffreys' interval of a rate: the equal-tailed posterior of Beta(½, ½) (Brown, Cai & DasGupta 2001, section 4.3).

    Independent trials at one look.

    >>> [round(end, 4) for end in jeffreys(0, 20, 0.05)]
    [0.0, 0.1166]
    """
    if not _counted(hits, n):
        return 0.0, 1.0
    low = 0.0 if hits <= 0 else distributions.beta_quantile(alpha / 2, hits + 0.5, n - hits + 0.5)
    high = 1.0 if hits >= n else distributions.beta_upper(alpha / 2, hits + 0.5, n - hits + 0.5)
    return low, high


def sample_ratio(counts: Sequence[float], shares: Sequence[float]) -> tuple[float, float]:
    """Pearson's χ² and its p-value against fixed positive shares: the test of a sample ratio mismatch.

    Independent requests at one look: looked at all the time it rejects a true share half of the time. Source: Pearson
    1900; the example is of Kohavi, Tang & Xu 2020, chapter 3.

    >>> statistic, p = sample_ratio([821588, 815482], [0.5, 0.5])
    >>> round(statistic, 3), round(p * 1e6, 1)
    (22.774, 1.8)
    """
    observed, expected = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    if not 0 < observed.sum() < math.inf or observed.size < 2:  # noqa: PLR2004 - one arm has no ratio
        return 0.0, 1.0
    return _pearson(observed, expected / expected.sum() * observed.sum())


def _pearson(observed: Any, expected: Any) -> tuple[float, float]:
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return statistic, distributions.chi_square_above(statistic, observed.size - 1)
