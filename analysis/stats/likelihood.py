"""Exact building blocks of multinomial likelihoods that keep their precision from 1 to 10¹⁸ counts."""

import math
from collections.abc import Sequence

from analysis.stats.roots import root

_SERIES_FROM = 100.0
_SMALL = 0.01
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_WIDEST_ODDS = 700.0


def stirling_remainder(x: float) -> float:
    """The rest of ln Γ(x) beyond (x − ½) ln x − x + ½ ln 2π, for x > 0 (Abramowitz & Stegun 1964, 6.1.40).

    >>> round(stirling_remainder(1.0), 9)
    0.081061467
    """
    if not x > 0:
        return math.inf
    if x < _SERIES_FROM:
        return math.lgamma(x) - ((x - 0.5) * math.log(x) - x + _HALF_LOG_2PI)
    return (1 / 12 - (1 / 360 - 1 / (1260 * x * x)) / (x * x)) / x


def deviance(x: float, m: float) -> float:
    """The value of x ln(x/m) + m − x, without cancellation where x ≈ m (Loader 2000, the function bd0 of R's dbinom).

    Counts x, expected m. What are no counts are no evidence: 0.

    >>> deviance(0.0, 3.0), deviance(5.0, 5.0), deviance(1.0, 0.0)
    (3.0, 0.0, inf)
    """
    if not (x >= 0 and m >= 0) or x == m:
        return 0.0
    if x == 0:
        return m
    if m == 0 or math.inf in (x, m):
        return math.inf
    v = (x - m) / m
    if abs(v) < _SMALL:
        # (1 + v) ln(1 + v) − v by its series, alternating with denominators k(k − 1).
        return m * v**2 * (1 / 2 - v * (1 / 6 - v * (1 / 12 - v * (1 / 20 - v * (1 / 30 - v / 42)))))
    return x * (math.log(x) - math.log(m)) + m - x


def log_evidence(counts: Sequence[float], prior: Sequence[float], shares: Sequence[float]) -> float:
    """The Dirichlet–multinomial against fixed shares: ln [B(prior + counts) / B(prior)] − Σ counts ln shares.

    Args:
        counts: S, d numbers, non-negative.
        prior: α, d numbers, positive.
        shares: θ, d numbers, positive, summing to 1.

    Source: Lindon & Malek, NeurIPS 2022 (arXiv 2011.03567), the Bayes factor; written in deviances.

    >>> round(math.exp(log_evidence([2, 1, 7], [1000, 5000, 4000], [0.1, 0.5, 0.4])), 8)
    1.00174961
    """
    posterior = [a + s for a, s in zip(prior, counts, strict=True)]
    return _log_beta_against(posterior, shares) - _log_beta_against(prior, shares)


def _log_beta_against(x: Sequence[float], shares: Sequence[float]) -> float:
    """The value of ln B(x) − Σ x ln shares, less a constant."""
    total = math.fsum(x)
    fit = math.fsum(deviance(one, total * share) for one, share in zip(x, shares, strict=True))
    smooth = 0.5 * math.log(total) - 0.5 * math.fsum(math.log(one) for one in x)
    return fit + smooth + math.fsum(map(stirling_remainder, x)) - stirling_remainder(total)


def divergence(n: float, hits: float, share: float) -> float:
    """How much less likely the counts are under `share` than under their own rate: n · KL(hits/n ‖ share), in nats.

    0 for what are no counts. Source: Kullback & Leibler 1951.

    >>> round(divergence(10, 5, 0.25), 4) == round(5 * math.log(2) + 5 * math.log(2 / 3), 4)
    True
    """
    if not 0 <= hits <= n < math.inf:
        return 0.0
    return deviance(hits, n * share) + deviance(n - hits, n * (1 - share))


def divergence_interval(n: float, hits: float, budget: float) -> tuple[float, float]:
    """The shares whose `divergence` from the counts is at most `budget` nats: two roots; [0, 1] where nothing is told.

    With a budget of half of a χ² quantile it is the likelihood-ratio interval of Wilks 1938, for one look.

    >>> low, high = divergence_interval(100, 0, 3.0)
    >>> low, round(high, 6) == round(1 - math.exp(-3 / 100), 6)
    (0.0, True)
    """
    if not (0 <= hits <= n and 0 < n < math.inf and math.isfinite(budget)):
        return 0.0, 1.0
    if budget <= 0:
        return hits / n, hits / n
    centre = math.log(max(hits, 1e-300)) - math.log(max(n - hits, 1e-300))
    low = 0.0 if hits <= 0 else _root(n, hits, budget, min(centre, _WIDEST_ODDS), -_WIDEST_ODDS)
    high = 1.0 if hits >= n else _root(n, hits, budget, max(centre, -_WIDEST_ODDS), _WIDEST_ODDS)
    return low, high


def _root(n: float, hits: float, budget: float, centre: float, far: float) -> float:
    """Towards one end, on the scale of log odds, so that a share of 1e-9 is as precise as one of 0.3."""

    def excess(odds: float) -> float:
        high = 1 / (1 + math.exp(odds))
        low = 1 / (1 + math.exp(-odds))
        return deviance(hits, n * low) + deviance(n - hits, n * high) - budget

    if excess(centre) * excess(far) > 0:  # the root lies beyond what floats can say
        return 0.0 if far < centre else 1.0
    # Wald's interval, and half as much again: where counts are many, the root is nearer than that.
    step = 1.5 * math.sqrt(2 * budget / max(hits * (1 - hits / n), 1e-300))
    near = max(min(centre + math.copysign(step, far), _WIDEST_ODDS), -_WIDEST_ODDS)
    odds = root(excess, *((centre, near) if excess(near) > 0 else (near, far)), xtol=1e-12)
    return 1 / (1 + math.exp(-odds))
