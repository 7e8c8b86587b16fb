"""Rates of rare events: e-processes and confidence sequences that are valid at every look.

Null: each request is an event with the same probability, whatever went before. Failures that come in bursts break it:
they then look like more evidence than they are.
"""

import math
from dataclasses import dataclass

from analysis.stats.likelihood import deviance, divergence_interval, log_evidence
from analysis.stats.roots import root

ZERO_WEIGHT = 0.75
"""The part of the mixture that bets on no event ever: it makes 48 clean requests enough for 10 pp at alpha .0125."""


@dataclass(frozen=True)
class Rate:
    """`hits` events in `n` requests; `log_peak` is the ln E of the mixture at the rate that fits best."""

    n: float
    hits: float
    log_peak: float

    @property
    def estimate(self) -> float | None:
        """The share of hits, or None for nothing."""
        return self.hits / self.n if self.n else None


def observe(n: float, hits: float, zero_weight: float = ZERO_WEIGHT) -> Rate:
    """A mixture of two bets: that there is never an event, and Beta(½, ½) over rates (Krichevsky & Trofimov 1981).

    Null of each rate: every request is an event with this probability, whatever went before; bursts break it.
    What are no counts (negative, infinite, more hits than requests) is as if nothing had been seen.

    >>> round(observe(100, 0).log_peak, 3)
    -0.269
    """
    if not (0 <= hits <= n and 0 < n < math.inf):  # nothing, or no counts: nothing is known
        return Rate(0.0, 0.0, 0.0)
    rate = hits / n
    # Both sides are divisions: 1 − rate would lose a few of 10^18.
    own = [max(rate, 1e-300), max((n - hits) / n, 1e-300)]
    beta = log_evidence([hits, n - hits], [0.5, 0.5], own)
    spread = beta + math.log(1 - zero_weight) if zero_weight < 1 else -math.inf
    if hits > 0 or zero_weight <= 0:
        return Rate(n, hits, spread)
    return Rate(n, hits, math.log(zero_weight + math.exp(spread)))


def rate_interval(rate: Rate, alpha: float) -> tuple[float, float]:
    """The confidence sequence of a rate at level 1 − alpha: every rate that the mixture has not refuted, as fractions.

    Covers the true rate at all looks together; requests that depend on one another break it, as bursts of failures do.

    Source: Howard, Ramdas, McAuliffe & Sekhon 2021 (arXiv 1810.08240), section 4.1, inverted as a likelihood ratio.

    >>> low, high = rate_interval(observe(1000, 10), 0.05)
    >>> 0 < low < 0.01 < high < 0.03
    True
    """
    return divergence_interval(rate.n, rate.hits, -math.log(alpha) - rate.log_peak)


def zero_bound(n: float, alpha: float) -> float:
    """The largest rate that n requests without an event leave possible: 1 − alpha^(1/n), at no cost for peeking.

    (1 − p)^−n until the first event, then 0, is a supermartingale for every rate of at least p. It assumes that no
    event was overlooked, and that requests are independent. It is the one-sided bound of Clopper & Pearson 1934.

    >>> round(zero_bound(20, 0.05), 4)
    0.1391
    """
    return -math.expm1(math.log(alpha) / n) if n > 0 else 1.0


def log_e_difference(first: Rate, second: Rate, difference: float) -> float:
    """The log e-value against `first's rate − second's rate = difference`, whatever the second's rate is.

    The product of the arms' e-processes is one, since each request advances only its own arm's; the least favourable
    common rate is the maximum of the restricted likelihood. Null: just this difference, each arm's requests failing
    independently; failures in bursts, or an arm chosen by what will fail, break it.

    Source: the restricted maximum is that of Miettinen & Nurminen 1985, Statistics in Medicine 4.

    >>> log_e_difference(observe(100, 50), observe(100, 1), 0.0) > math.log(1e6)
    True
    """
    low, high = max(0.0, -difference), min(1.0, 1.0 - difference)
    if low >= high:
        return math.inf if low > high else first.log_peak + second.log_peak + _gap(first, second, difference, low)
    place = _least_gap(first, second, difference, low, high)
    return first.log_peak + second.log_peak + _gap(first, second, difference, place)


def _gap(first: Rate, second: Rate, difference: float, base: float) -> float:
    """How much less likely the counts are at rates (base + difference, base) than at their own rates."""
    pairs = ((first, min(max(base + difference, 0.0), 1.0)), (second, base))
    return math.fsum(
        deviance(rate.hits, rate.n * p) + deviance(rate.n - rate.hits, rate.n * (1 - p)) for rate, p in pairs if rate.n
    )


def _least_gap(first: Rate, second: Rate, difference: float, low: float, high: float) -> float:
    """The base rate of the restricted maximum: where the score, which only falls, crosses zero."""

    def score(base: float) -> float:
        return _score(first, base + difference) + _score(second, base)

    tiny = 1e-15 * (high - low)
    if score(low + tiny) <= 0:
        return low
    if score(high - tiny) >= 0:
        return high
    return root(score, low + tiny, high - tiny, xtol=1e-16)


def _score(rate: Rate, p: float) -> float:
    """The derivative of the log likelihood."""
    inside = min(max(p, 1e-300), 1 - 1e-16)
    return rate.hits / inside - (rate.n - rate.hits) / (1 - inside)


def difference_interval(first: Rate, second: Rate, alpha: float) -> tuple[float, float]:
    """The confidence sequence of `first's rate − second's rate` at level 1 − alpha; [−1, 1] for an empty arm.

    The differences that `log_e_difference` does not refute, between two roots; assumes what it assumes. Fractions.
    Valid at all looks by Ville 1939.

    >>> low, high = difference_interval(observe(250, 0), observe(48, 0), 0.0125)
    >>> low == -difference_interval(observe(48, 0), observe(250, 0), 0.0125)[1], high < 0.1
    (True, True)
    """
    if not (first.n and second.n):
        return -1.0, 1.0
    middle = first.hits / first.n - second.hits / second.n

    def excess(difference: float) -> float:
        return min(log_e_difference(first, second, difference), 1e300) + math.log(alpha)

    if excess(middle) >= 0:  # narrower than floating point can say
        return middle, middle
    low = -1.0 if excess(-1.0) <= 0 else root(excess, -1.0, middle, xtol=1e-12)
    high = 1.0 if excess(1.0) <= 0 else root(excess, middle, 1.0, xtol=1e-12)
    return low, high


def log_e_above(first: Rate, second: Rate, difference: float) -> float:
    """The log e-value against every `first's rate − second's rate ≤ difference`; the harm is real where it is large.

    The least favourable one is the difference itself wherever more is observed; assumes what `log_e_difference` does.
    In nats; never positive where no more is observed. Source: as there, Miettinen & Nurminen 1985.

    >>> log_e_above(observe(100, 0), observe(100, 0), 0.01) <= 0 < log_e_above(observe(100, 50), observe(100, 1), 0.01)
    True
    """
    if not (first.n and second.n) or first.hits / first.n - second.hits / second.n <= difference:
        return min(0.0, first.log_peak + second.log_peak)
    return log_e_difference(first, second, difference)
