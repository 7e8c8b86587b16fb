"""Are the counts of several arms those of fixed shares? An e-process and its confidence sequence, valid at every look.

Null: each request goes to arm i with probability θᵢ, whatever went before. Sticky clients, consistent hashing and
retries that are counted twice break it: then the counts vary more than the null allows, and the test blames the shares.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.stats.likelihood import deviance, divergence, divergence_interval, log_evidence


@dataclass(frozen=True)
class Split:
    """The counts of the arms whose expected share is positive, over one or more periods of one phase.

    `log_peak` is ln E at the shares that fit best: the e-process at any other shares exceeds it by the divergence.
    """

    counts: tuple[float, ...]
    shares: tuple[float, ...]
    log_peak: float

    @property
    def requests(self) -> float:
        """All requests."""
        return math.fsum(self.counts)

    @property
    def log_e(self) -> float:
        """The log e-value against exactly the configured shares."""
        total = self.requests
        gaps = (observed_gap(count, total, share) for count, share in zip(self.counts, self.shares, strict=True))
        return self.log_peak + math.fsum(gaps)


def observed_gap(count: float, total: float, share: float) -> float:
    """One arm's part of n · KL(observed ‖ shares), as a deviance: over all arms Σ count · ln(count / expected).

    What are no counts have no part. Source: Kullback & Leibler 1951.

    >>> parts = observed_gap(2, 10, 0.1) + observed_gap(8, 10, 0.9)
    >>> math.isclose(parts, 2 * math.log(2 / 1) + 8 * math.log(8 / 9))
    True
    """
    return deviance(count, total * share)


def observe(periods: Sequence[Sequence[float]], shares: Sequence[float], concentrations: Sequence[float]) -> Split:
    """The mixture, over prior concentrations k, of Dirichlet–multinomial e-processes that start at k × shares.

    Args:
        periods: Counts by arm for each period; the e-processes of periods multiply.
        shares: The configured shares, positive, summing to 1.
        concentrations: k, in requests; each has the same weight.

    Null: each request goes to an arm with its share, whatever went before; sticky clients break it.

    Source: Lindon & Malek, NeurIPS 2022 (arXiv 2011.03567); an average of e-processes is one (Ramdas et al. 2023).

    >>> round(math.exp(observe([[2, 1, 7]], [0.1, 0.5, 0.4], [1e4]).log_e), 8)
    1.00174961
    """
    sums = tuple(math.fsum(column) for column in zip(*periods, strict=True)) or (0.0,) * len(shares)
    n = math.fsum(sums)
    # At the shares that fit best, not at the configured ones: of 10^18 requests the difference would be lost.
    own = [max(count / n, 1e-300) for count in sums] if n else shares
    logs = [
        math.fsum(log_evidence(counts, [k * share for share in shares], own) for counts in periods)
        for k in concentrations
    ]
    return Split(sums, tuple(shares), log_mean_exp(logs))


def log_mean_exp(logs: Sequence[float]) -> float:
    """The logarithm of the mean of exponentials: that of nothing for no bets, or where one of them is no number.

    >>> log_mean_exp([1000.0, 1000.0])
    1000.0
    """
    top = max(logs, default=-math.inf)
    if any(math.isnan(one) for one in logs):
        return -math.inf
    if math.isinf(top):
        return top
    return top + math.log(math.fsum(math.exp(one - top) for one in logs) / len(logs))


def share_interval(split: Split, arm: int, alpha: float) -> tuple[float, float]:
    """The confidence sequence of one arm's share, the other arms' shares profiled out.

    It covers the true share at all looks together with probability at least 1 − alpha, for requests that are drawn
    independently; sticky clients break it. Fractions; two roots of the profiled e-process.

    Source: Lindon & Malek 2022 (arXiv 2011.03567); savvi's documented example is reproduced in the tests.

    >>> low, high = share_interval(observe([[700, 300]], [0.7, 0.3], [100.0]), 1, 0.05)
    >>> low < 0.3 < high
    True
    """
    return divergence_interval(split.requests, split.counts[arm], -math.log(alpha) - split.log_peak)


def log_e_outside(split: Split, arm: int, low: float, high: float) -> float:
    """The log e-value against every share of one arm in [low, high] at once; at most 0 where the observed one is.

    Null: the arm's share lies in the margin, and requests are drawn independently. The least favourable share is the
    nearest to the observed one, so that no other can be refuted less. In nats. Source: the least over a
    composite null of e-values is an e-value (Ramdas, Grünwald, Vovk & Shafer 2023).

    >>> split = observe([[700, 300]], [0.7, 0.3], [100.0])
    >>> log_e_outside(split, 1, 0.25, 0.35) <= 0 < log_e_outside(split, 1, 0.0, 0.2)
    True
    """
    total, count = split.requests, split.counts[arm]
    if total == 0:
        return 0.0
    nearest = min(max(count / total, low), high)
    return split.log_peak + divergence(total, count, nearest)
