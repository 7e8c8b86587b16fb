"""Every number here is somebody else's: the source stands beside it."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.stats import bernoulli, boundaries, fixed, multinomial, paired, quantiles, ranks
from analysis.stats.multiplicity import holm


def test_multinomial_e_value_of_ssrm():
    # ssrm-test 0.1.5, regression test: counts (2, 1, 7), shares (.1, .5, .4), k = 10^4.
    split = multinomial.observe([[2, 1, 7]], [0.1, 0.5, 0.4], [1e4])
    assert math.exp(split.log_e) == pytest.approx(1.00174961, abs=5e-9)


def test_multinomial_stopping_of_savvi():
    # savvi's documentation: seed 1, 1000 draws of (.1, .3, .6) against (.1, .4, .5), k = 100.
    np.random.seed(1)  # noqa: NPY002 - the documented example uses it
    draws = np.random.multinomial(1, [0.1, 0.3, 0.6], size=1000).cumsum(axis=0)  # noqa: NPY002
    logs = [multinomial.observe([row.tolist()], [0.1, 0.4, 0.5], [100.0]).log_e for row in draws]
    stop = next(index for index, value in enumerate(logs) if value > -math.log(0.05))
    assert stop + 1 == 402
    assert math.exp(-logs[stop]) == pytest.approx(0.04845591, abs=5e-9)
    # Its sequences are the running intersection up to the stop.
    splits = [multinomial.observe([row.tolist()], [0.1, 0.4, 0.5], [100.0]) for row in draws[: stop + 1]]
    ends = np.array([[multinomial.share_interval(split, arm, 0.05) for arm in range(3)] for split in splits])
    intervals = list(zip(ends[:, :, 0].max(axis=0), ends[:, :, 1].min(axis=0), strict=True))
    expected = [(0.05668, 0.14940), (0.26090, 0.40283), (0.49712, 0.65176)]
    assert intervals == [pytest.approx(pair, abs=6e-6) for pair in expected]


def test_newcombe_of_fagerland():
    # Fagerland, Lydersen & Laake 2015, table: 7/34 against 1/34.
    assert fixed.newcombe((7, 34), (1, 34), 0.05) == pytest.approx((0.019, 0.340), abs=5e-4)


@pytest.mark.parametrize(
    ("hits", "n", "wilson", "exact"),
    [(81, 263, (0.2553, 0.3662), (0.2527, 0.3676)), (0, 20, (0.0, 0.1611), (0.0, 0.1684))],
)
def test_intervals_of_newcombe_1998(hits, n, wilson, exact):
    assert fixed.wilson(hits, n, 0.05) == pytest.approx(wilson, abs=5e-5)
    assert fixed.clopper_pearson(hits, n, 0.05) == pytest.approx(exact, abs=5e-5)


def test_sample_ratio_mismatch_of_kohavi():
    # Kohavi, Tang & Xu 2020, section 3: 821 588 against 815 482 users, p = 1.8e-6.
    name, p = fixed.shares_p_value([821588, 815482], [0.5, 0.5])
    assert name == "Pearson chi-square"
    assert p == pytest.approx(1.8e-6, rel=0.03)
    assert stats.chi2.isf(p, 1) == pytest.approx(22.774, abs=5e-4)


def test_holm_on_benjamini_and_hochberg_1995():
    # Their 15 p-values (section 3.2), of which Bonferroni-type step-down procedures reject 3.
    values = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
        0.7590, 1.0,
    ]  # fmt: skip
    assert sum(holm(values, 0.05)) == 3


def test_bound_of_nothing_is_clopper_and_pearsons():
    # One-sided Clopper-Pearson for 0 of n, as scipy has it.
    for n in (1, 20, 500):
        test = stats.binomtest(0, n, alternative="less").proportion_ci(0.95, method="exact")
        assert bernoulli.zero_bound(n, 0.05) == pytest.approx(test.high, abs=1e-12)


# confseq's uniform_boundaries_unittest.cpp, whose numbers come from a reference implementation in R.


def test_beta_binomial_mixture_of_confseq():
    mixture, bound = boundaries.beta_binomial_log_mixture, boundaries.beta_binomial_bound
    assert mixture(10, 100, 100, 0.2, 0.8, one_sided=False) == pytest.approx(-0.6941012, abs=5e-8)
    assert mixture(10, 100, 100, 0.2, 0.8) == pytest.approx(-0.07134019, abs=5e-9)
    assert bound(100, 0.05, 100, 0.2, 0.8, one_sided=False) == pytest.approx(31.4308, abs=5e-5)
    assert bound(100, 0.05, 100, 0.2, 0.8) == pytest.approx(28.41238, abs=5e-6)


@pytest.mark.parametrize(
    ("hits", "n", "t_opt", "expected"),
    [(700, 1000, 100, (0.651629, 0.745949)), (15, 50, 50, (0.129556, 0.511896)), (1, 50, 50, (0.0, 0.13489))],
)
def test_bernoulli_sequence_of_confseq(hits, n, t_opt, expected):
    assert boundaries.bernoulli_sequence(hits, n, 0.05, t_opt) == pytest.approx(expected, abs=6e-6)


def test_iterated_logarithm_and_double_stitching_of_confseq():
    # The constant in it is the end of a numerical minimisation: the sixth digit is the last that agrees.
    assert boundaries.lil_radius(1000, 0.05, 100, 0.85) == pytest.approx(0.08204769, rel=2e-6)
    found = [boundaries.double_stitching_bound(p, 1000, 0.05, 100) for p in (0.5, 0.9, 0.1)]
    assert found == pytest.approx([68.62803, 43.72119, 59.96521], abs=6e-6)


def test_two_sample_quantile_p_values_of_confseq():
    values, ones = np.arange(1.0, 1001), np.ones(1000)
    found = [quantiles.two_sample_p((values, ones), (values + shift, ones), 0.5, 100) for shift in (70, 100)]
    assert found == pytest.approx([0.814704, 0.0054947], abs=6e-7)


def test_brunner_munzel_of_lawstat():
    # statsmodels' test, from R's lawstat: counts in five ordered classes.
    found = ranks.brunner_munzel([24, 37, 21, 19, 6], [11, 51, 22, 21, 7])
    assert (found.statistic, found.p_value) == pytest.approx((1.1757561, 0.24106066), abs=5e-8)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.54422563, 0.470063, 0.618388), abs=6e-7)


def test_quantile_test_of_conover():
    # Conover 1999, p. 139: 15 values, is the upper quartile 193? As scipy's own tests have it.
    assert quantiles.quantile_p_value(7, 7, 15, 0.75) == pytest.approx(0.0346, abs=5e-5)


def test_order_statistics_of_confintr():
    # R's confintr: exp(seq(0, 1, 0.01)), quantile 0.3.
    values = np.exp(np.arange(0, 1.01, 0.01))
    found = quantiles.order_statistic_interval(values, np.ones(101), 0.3, 0.05)
    assert found == pytest.approx((1.2214028, 1.4769808), abs=5e-8)


@pytest.mark.parametrize(("one", "other"), [(1, 9), (0, 5), (7, 7), (12, 3)])
def test_mcnemar_is_the_exact_binomial_test(one, other):
    assert paired.mcnemar(one, other) == pytest.approx(stats.binomtest(one, one + other).pvalue, rel=1e-12)


def test_brunner_munzel_on_counts_is_scipys_on_values():
    # A second implementation on raw values: scipy's Brunner-Munzel.
    rng = np.random.default_rng(3)
    first, second = rng.lognormal(size=60).round(1) + 1, (1.2 * rng.lognormal(size=50)).round(1) + 1
    grid = np.unique(np.concatenate([first, second]))
    counts = [np.array([(sample == value).sum() for value in grid]) for sample in (first, second)]
    found = ranks.brunner_munzel(*counts)
    assert found.p_value == pytest.approx(stats.brunnermunzel(first, second).pvalue, rel=1e-9)
