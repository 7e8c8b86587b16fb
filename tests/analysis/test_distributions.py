"""Tails and quantiles against `scipy.stats`, which computes them along other ways."""

import itertools

import numpy as np
import pytest
from scipy import stats

from analysis.stats import distributions as d

CLOSE = 1e-12
TAILS = (1e-12, 1e-6, 0.001, 0.025, 0.3, 0.5, 0.9, 0.999)
SIZES = ((1, 0.3), (15, 0.75), (1000, 0.01), (4321, 0.5), (10**6, 0.1), (10**9, 0.999))


def near(value: float) -> object:
    return pytest.approx(value, rel=CLOSE, abs=1e-300)


@pytest.mark.parametrize("x", [-9.5, -1.2, 0.0, 0.7, 5.0, 30.0])
def test_normal_tails(x: float) -> None:
    assert d.normal_below(x) == near(stats.norm.cdf(x))
    assert d.normal_above(x) == near(stats.norm.sf(x))
    assert d.normal_density(x) == near(stats.norm.pdf(x))


@pytest.mark.parametrize("p", TAILS)
def test_quantiles(p: float) -> None:
    assert d.normal_upper(p) == near(stats.norm.isf(p))
    assert d.normal_quantile(p) == near(stats.norm.ppf(p))
    for freedom in (1.0, 2.7, 19.0, 1e5):
        assert d.student_upper(p, freedom) == near(stats.t.isf(p, freedom))
    for a, b in ((1, 20), (0.5, 40.5), (300, 7), (10**6, 3 * 10**6)):
        assert d.beta_quantile(p, a, b) == near(stats.beta.ppf(p, a, b))
        assert d.beta_upper(p, a, b) == near(stats.beta.isf(p, a, b))


@pytest.mark.parametrize(("x", "freedom"), list(itertools.product([0.0, 0.4, 3.0, 80.0], [1, 4.5, 60])))
def test_chi_square_and_student(x: float, freedom: float) -> None:
    assert d.chi_square_below(x, freedom) == near(stats.chi2.cdf(x, freedom))
    assert d.chi_square_above(x, freedom) == near(stats.chi2.sf(x, freedom))
    assert d.student_above(x, freedom) == near(stats.t.sf(x, freedom))


@pytest.mark.parametrize(("n", "p"), SIZES)
def test_binomial_tails_and_quantiles(n: int, p: float) -> None:
    spread = np.sqrt(n * p * (1 - p))
    for hits in {-1, 0, n, *(round(n * p + away * spread) for away in (-4, -1, 0, 2, 5))}:
        assert d.binomial_at_most(hits, n, p) == near(stats.binom.cdf(hits, n, p))
        assert d.binomial_above(hits, n, p) == near(stats.binom.sf(hits, n, p))
    for q in set(TAILS) - {0.5}:  # there an odd n has a tie, of which rounding takes scipy past the first
        assert d.binomial_quantile(q, n, p) == stats.binom.ppf(q, n, p)
        assert d.binomial_upper(q, n, p) == stats.binom.isf(q, n, p)


@pytest.mark.parametrize(("n", "p"), [(1, 0.3), (7, 0.5), (40, 0.9), (999, 0.25), (1000, 0.5)])
def test_two_sided_binomial(n: int, p: float) -> None:
    for hits in {0, 1, n, n // 2, n // 4, round(0.93 * n)}:
        assert d.binomial_two_sided(hits, n, p) == near(stats.binomtest(hits, n, p).pvalue)


def test_two_sided_binomial_of_certainty() -> None:
    assert d.binomial_two_sided(3, 3, 1.0) == stats.binomtest(3, 3, 1.0).pvalue
    assert d.binomial_two_sided(2, 3, 1.0) == stats.binomtest(2, 3, 1.0).pvalue
    n, hits = 2 * 10**6 + 7, 10**6 - 500
    assert d.binomial_two_sided(hits, n, 0.5) == near(stats.binomtest(hits, n, 0.5).pvalue)
