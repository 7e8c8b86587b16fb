"""Boundaries that a sum of bounded steps crosses at any time with at most a given chance: mixtures and stitching.

s is a sum of centred steps, v its intrinsic time (the sum of their variances). Bernoulli steps with mean p lie in
[−p, 1 − p]. Names follow the papers: Howard, Ramdas, McAuliffe & Sekhon, Annals of Statistics 2021
(arXiv 1810.08240), here "HRMS", and Howard & Ramdas, Bernoulli 2022 (arXiv 1906.09712), here "HR". What breaks all of
them: steps whose mean, given the past, is not what the null says, as sticky clients and queues make them.
"""

import math
from functools import lru_cache

import numpy as np
from scipy import special

from analysis.stats.likelihood import log_evidence
from analysis.stats.roots import root

_LEAST_R = 1e-3
_MANY = 1e12


def best_rho(v_opt: float, alpha: float) -> float:
    """The tuning that makes a two-sided normal mixture narrowest at intrinsic time `v_opt` (HRMS, section 3.5).

    >>> round(best_rho(100, 0.05), 3)
    12.601
    """
    log = 2 * math.log(1 / alpha)
    return v_opt / (log + math.log1p(log))


def _tuned(v_opt: float, gh: float, alpha: float, *, one_sided: bool) -> float:
    return max(best_rho(v_opt, 2 * alpha if one_sided else alpha) - gh, _LEAST_R * gh)


def _log_below(a: float, b: float, x: float) -> float:
    """The logarithm of the chance that a Beta(a, b) is below x; by the normal limit where floats know no better."""
    chance = float(special.betainc(a, b, x)) if a + b < _MANY else math.nan
    if math.isnan(chance):
        mean = a / (a + b)
        return float(special.log_ndtr((x - mean) / math.sqrt(mean * b / (a + b) / (a + b + 1))))
    return math.log(max(chance, 1e-300))


def beta_binomial_log_mixture(
    s: float, v: float, v_opt: float, g: float, h: float, alpha_opt: float = 0.05, *, one_sided: bool = True
) -> float:
    """The log of the beta-binomial mixture supermartingale at sum s and intrinsic time v (HRMS, proposition 7).

    Null: steps in [−g, h] with mean at most 0 (one-sided) or 0 (two-sided), given the past.

    Args:
        s: The sum.
        v: Its intrinsic time.
        v_opt: Where the boundary is to be narrowest.
        g: The steps are at least −g.
        h: The steps are at most h.
        alpha_opt: The level for which it is tuned.
        one_sided: Only large sums speak against the null.

    Nothing (0) is said of what is no number, or endless.

    >>> round(beta_binomial_log_mixture(10, 100, 100, 0.2, 0.8, one_sided=False), 7)
    -0.6941012
    >>> round(beta_binomial_log_mixture(10, 100, 100, 0.2, 0.8), 8)
    -0.07134019
    """
    r, whole = _tuned(v_opt, g * h, alpha_opt, one_sided=one_sided), g + h
    if not (0 <= v < math.inf and math.isfinite(s)):
        return 0.0
    # As if so many steps had been −g and h; a sum that no such steps have counts as the nearest that some have.
    s = min(max(s, -v / h), v / g)
    steps = [max((v - g * s) / (g * whole), 0.0), max((v + h * s) / (h * whole), 0.0)]
    prior, shares = [r / (g * whole), r / (h * whole)], [h / whole, g / whole]
    both = log_evidence(steps, prior, shares)
    if not one_sided:
        return both
    x = shares[0]
    return both + _log_below(prior[0] + steps[0], prior[1] + steps[1], x) - _log_below(prior[0], prior[1], x)


def beta_binomial_bound(
    v: float, alpha: float, v_opt: float, g: float, h: float, alpha_opt: float = 0.05, *, one_sided: bool = True
) -> float:
    """The sum that is reached at intrinsic time v, ever, with chance at most alpha (HRMS, proposition 7).

    For steps in [−g, h] whose mean, whatever went before, is 0; steps that depend on the last ones break it.

    >>> round(beta_binomial_bound(100, 0.05, 100, 0.2, 0.8, one_sided=False), 4)
    31.4308
    >>> round(beta_binomial_bound(100, 0.05, 100, 0.2, 0.8), 5)
    28.41238
    """

    def excess(s: float) -> float:
        return beta_binomial_log_mixture(s, v, v_opt, g, h, alpha_opt, one_sided=one_sided) + math.log(alpha)

    if not 0 <= v < math.inf:
        return math.inf
    # A sum of steps in [−g, h] with intrinsic time v = n·g·h is at most n·h = v/g.
    most = v / g * (1 - 1e-12)
    if most <= 0 or excess(most) <= 0:
        return max(v / g, 0.0)
    return root(excess, 0.0, most, xtol=1e-10)


def bernoulli_sequence(
    hits: float, n: float, alpha: float, t_opt: float, alpha_opt: float = 0.05
) -> tuple[float, float]:
    """The confidence sequence of a rate, tuned to be narrowest after `t_opt` trials (HRMS, section 4.1).

    Covers the true rate at all looks together with probability 1 − alpha, for independent trials.

    >>> [round(end, 5) for end in bernoulli_sequence(700, 1000, 0.05, 100)]
    [0.65163, 0.74595]
    """
    if not (0 <= hits <= n and 0 < n < math.inf):
        return 0.0, 1.0

    def excess(p: float) -> float:
        r = max(best_rho(p * (1 - p) * t_opt, alpha_opt) - p * (1 - p), _LEAST_R * p * (1 - p))
        a, b = r / (1 - p), r / p
        mixture = special.betaln(a + hits, b + n - hits) - special.betaln(a, b)
        return float(mixture - special.xlogy(hits, p) - special.xlog1py(n - hits, -p)) + math.log(alpha)

    rate, tiny = hits / n, 1e-12
    inside = min(max(rate, tiny), 1 - tiny)
    if excess(inside) >= 0:  # narrower than floating point can say
        return min(rate, inside), max(rate, inside)
    low = 0.0 if rate <= 0 or excess(tiny) <= 0 else root(excess, tiny, inside, xtol=1e-13)
    high = 1.0 if rate >= 1 or excess(1 - tiny) <= 0 else root(excess, inside, 1 - tiny, xtol=1e-13)
    return low, high


def lil_radius(n: float, alpha: float, m: float, a: float = 0.85) -> float:
    """The uniform distance between the observed and the true distribution function, for all n ≥ m at once.

    a · √((ln(1 + ln(n/m)) + C) / n), with C such that the chance of ever leaving it is alpha (HR, theorem 2).
    Independent values.

    Args:
        n: Values so far; fewer than m give infinity.
        alpha: The chance.
        m: The first n for which it is to hold.
        a: The shape; above 1/√2.

    >>> round(lil_radius(1000, 0.05, 100), 6)
    0.082048
    """
    if not (max(m, 1) <= n < math.inf):
        return math.inf
    return a * math.sqrt((math.log1p(math.log(n / m)) + _lil_constant(alpha, a)) / n)


@lru_cache(maxsize=64)
def _lil_constant(alpha: float, a: float) -> float:
    """C of the theorem: the smallest for which inf over η of the error bound is alpha."""

    def bound(eta: float, c: float) -> float:
        gamma2 = 2 / eta * max(a - math.sqrt(2 * (eta - 1) / c), 0) ** 2
        return 1e3 if gamma2 <= 1 else 4 * math.exp(-gamma2 * c) * (1 + 1 / ((gamma2 - 1) * math.log(eta)))

    def error(c: float) -> float:
        low, high, least = 1.0, 2 * a * a, math.inf
        for _ in range(4):  # a hundredth each time: to 1e-8, where so flat a place tells no more
            grid = np.linspace(low, high, 202)
            values = [bound(float(eta), c) for eta in grid[1:-1]]
            best = int(np.argmin(values)) + 1
            low, high, least = float(grid[best - 1]), float(grid[best + 1]), min(values)
        return least

    def excess(c: float) -> float:
        return min(error(c), 1e3) - alpha

    return root(excess, 4.0, 1e3, xtol=1e-10)


def double_stitching_bound(
    p: float, t: float, alpha: float, t_opt: float, delta: float = 0.5, s: float = 1.4, eta: float = 2.0
) -> float:
    """How far, in ranks, the p-quantile of t values may lie from its place, for all t and all p at once.

    Source: HR, theorem 3, with their defaults for δ, s and η. Independent values.

    >>> [round(double_stitching_bound(p, 1000, 0.05, 100), 5) for p in (0.5, 0.9, 0.1)]
    [68.62803, 43.72119, 59.96521]
    """
    if not 0 <= t < math.inf:
        return math.inf
    most = max(t, t_opt)
    place = special.logit(p)
    shifted = special.expit(place + 2 * delta * math.sqrt(t_opt * eta / most))
    r = p if p >= 0.5 else min(0.5, float(shifted))  # noqa: PLR2004 - the median
    variance, zeta = r * (1 - r), float(special.zeta(s))
    j = math.sqrt(most / t_opt) * abs(float(place)) / (2 * delta) + 1
    ell = s * math.log(math.log(eta * most / t_opt)) + s * math.log(j)
    ell += math.log(2 * zeta * (2 * zeta + 1) / (alpha * math.log(eta) ** s))
    k1, k2 = (eta**0.25 + eta**-0.25) / math.sqrt(2), (math.sqrt(eta) + 1) / 2
    skew = k2 * (1 - 2 * p) / 3 * ell
    return delta * math.sqrt(eta * most * variance / t_opt) + math.sqrt(k1**2 * variance * most * ell + skew**2) + skew
