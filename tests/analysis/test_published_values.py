"""Sequences, ranks, quantiles and bands: every number here is somebody else's, its source beside it."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.nonparametric import rank_compare_2ordinal
from statsmodels.stats.proportion import proportion_confint

from analysis.stats import bands, boundaries, fixed, quantiles, ranks
from analysis.stats.blocks import optimal_block_length
from analysis.stats.means import mean_sequence
from analysis.stats.multiplicity import benjamini_hochberg, e_benjamini_hochberg, holm
from analysis.stats.paired import mcnemar

# confseq 0.0.11, test/uniform_boundaries_unittest.cpp, whose constants come from R; it asks for 1e-5.
CONFSEQ = 1e-5


def test_beta_binomial_mixture_of_confseq():
    two = {"one_sided": False}
    mixture, bound = boundaries.beta_binomial_log_mixture, boundaries.beta_binomial_bound
    assert mixture(10, 100, 100, 0.2, 0.8, **two) == pytest.approx(-0.6941012, abs=5e-8)
    assert bound(100, 0.05, 100, 0.2, 0.8, **two) == pytest.approx(31.4308, abs=CONFSEQ)
    assert mixture(10, 100, 100, 0.2, 0.8) == pytest.approx(-0.07134019, abs=5e-9)
    assert bound(100, 0.05, 100, 0.2, 0.8) == pytest.approx(28.41238, abs=CONFSEQ)
    # A boundary that no sum can reach is the largest sum that there can be.
    assert bound(2 * 0.2 * 0.8, 0.05, 100, 0.2, 0.8) == pytest.approx(2 * 0.8, abs=CONFSEQ)


@pytest.mark.parametrize(
    ("hits", "n", "t_opt", "expected"),
    [(700, 1000, 100, (0.651629, 0.745949)), (15, 50, 50, (0.129556, 0.511896)), (1, 50, 50, (0, 0.13489))],
)
def test_bernoulli_sequence_of_confseq(hits, n, t_opt, expected):
    assert boundaries.bernoulli_sequence(hits, n, 0.05, t_opt) == pytest.approx(expected, abs=CONFSEQ)


def test_uniform_radius_and_double_stitching_of_confseq():
    assert boundaries.lil_radius(1000, 0.05, 100) == pytest.approx(0.08204769, abs=CONFSEQ)
    found = [boundaries.double_stitching_bound(p, 1000, 0.05, 100) for p in (0.5, 0.9, 0.1)]
    assert found == pytest.approx([68.62803, 43.72119, 59.96521], abs=CONFSEQ)


@pytest.mark.parametrize(
    ("p", "shift", "expected"), [(0.5, 70, 0.814704), (0.5, 85, 0.0838055), (0.5, 100, 0.0054947), (0.9, 55, 0.0340463)]
)
def test_two_sample_quantile_of_confseq(p, shift, expected):
    ones, values = np.ones(1000), np.arange(1.0, 1001)
    assert quantiles.two_sample_p((values, ones), (values + shift, ones), p, 100) == pytest.approx(
        expected, abs=CONFSEQ
    )


def test_brunner_munzel_of_lawstat():
    # statsmodels' test, from R's lawstat 3.2: five ordered categories.
    found = ranks.brunner_munzel([24, 37, 21, 19, 6], [11, 51, 22, 21, 7])
    assert found.statistic == pytest.approx(1.1757561456582, abs=5e-8)
    assert found.freedom == pytest.approx(204.29842, abs=5e-6)
    assert found.p_value == pytest.approx(0.24106066, abs=5e-9)
    assert (found.low, found.high) == pytest.approx((0.470063, 0.618388), abs=1e-6)


def test_brunner_munzel_equals_statsmodels_and_scipy_on_raw_values():
    random = np.random.default_rng(3)
    first, second = random.integers(0, 30, 200), random.integers(3, 30, 150)
    counts = [np.bincount(values, minlength=30) for values in (first, second)]
    found = ranks.brunner_munzel(*counts)
    assert found.p_value == pytest.approx(stats.brunnermunzel(first, second).pvalue)
    theirs = rank_compare_2ordinal(counts[1], counts[0])
    assert found.estimate == pytest.approx(theirs.prob1)


def test_one_factor_is_the_median_of_all_pairs():
    random = np.random.default_rng(4)
    first, second = np.sort(random.lognormal(0, 0.5, 61)), np.sort(random.lognormal(0.3, 0.5, 41))
    found = ranks.shift_ratio((first, np.ones(61)), (second, np.ones(41)), 0.05)
    pairs = np.log(second)[:, None] - np.log(first)
    assert math.log(found[0]) == pytest.approx(np.median(pairs), abs=0.01)
    assert found[1] < found[0] < found[2]


def test_quantile_interval_of_confintr():
    # R's confintr, ci_quantile(exp(seq(0, 1, .01)), q = .3): binomial method.
    values = np.exp(np.arange(101) / 100)
    found = quantiles.order_statistic_interval(values, np.ones(101), 0.3, 0.05)
    assert found == pytest.approx((1.2214028, 1.4769808), abs=5e-8)


def test_quantile_test_of_conover():
    # Conover 1999, page 139: 15 test scores against an upper quartile of 193; scipy has .0346 for them.
    scores = [189, 233, 195, 160, 212, 176, 231, 185, 199, 213, 202, 193, 174, 166, 248]
    at_most = sum(score <= 193 for score in scores)
    below = sum(score < 193 for score in scores)
    expected = stats.quantile_test(scores, q=193, p=0.75).pvalue
    assert expected == pytest.approx(0.0346, abs=5e-5)
    assert quantiles.quantile_p_value(at_most, below, 15, 0.75) == pytest.approx(expected)


def test_band_of_dvoretzky_kiefer_and_wolfowitz():
    assert bands.dkw_radius(1000, 0.05) == pytest.approx(0.042947, abs=5e-7)


def test_constants_of_howard_and_ramdas():
    # Their section 3: C = 8.123, 9.284 and 10.943 at alpha .05, .01 and .001 with A = .85.
    for alpha, constant in ((0.05, 8.123), (0.01, 9.284), (0.001, 10.943)):
        radius = 0.85 * math.sqrt(constant / 100)
        assert boundaries.lil_radius(100, alpha, 100) == pytest.approx(radius, rel=1e-4)


def test_adjustments_of_benjamini_and_hochberg_1995():
    values = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
        0.7590, 1.0,
    ]  # fmt: skip
    assert sum(benjamini_hochberg(values, 0.05)) == 4
    assert sum(holm(values, 0.05)) == 3
    assert e_benjamini_hochberg([-math.log(value) for value in values], 0.05) == benjamini_hochberg(values, 0.05)


def test_sequence_of_means_of_gbstats():
    # gbstats 0.8.0, sequential test: 1396 of 3000 against 2422 of 3461, n* = 5000: relative lift [.40098, .60675].
    n, m, p, q = 3000, 3461, 1396 / 3000, 2422 / 3461
    total, lift = n + m, (q - p) / p
    variance = total * (q * (1 - q) / (m * p**2) + q**2 * p * (1 - p) / (n * p**4))
    assert mean_sequence(total, lift, variance, 0.05, 5000) == pytest.approx((0.40098, 0.60675), abs=5e-5)


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (81, 263), (20, 20), (3, 1000)])
def test_jeffreys_equals_statsmodels_inside(hits, n):
    theirs = proportion_confint(hits, n, method="jeffreys")
    found = fixed.jeffreys(hits, n, 0.05)
    assert found == pytest.approx((theirs[0] if hits else 0.0, theirs[1] if hits < n else 1.0), abs=1e-12)


def test_sample_ratio_of_kohavi():
    statistic, p = fixed.sample_ratio([821588, 815482], [0.5, 0.5])
    assert (statistic, p) == (pytest.approx(22.774, abs=5e-4), pytest.approx(1.8e-6, rel=0.03))


def test_mcnemar_is_a_coin():
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)


def test_every_extreme_is_defined():
    empty, one = np.zeros(0), np.ones(1)
    assert quantiles.quantile_sequence(empty, empty, 0.5, 0.05, 100) == (None, None)
    assert quantiles.order_statistic_interval(one, one, 0.99, 0.05)[1] is None
    assert quantiles.two_sample_p((empty, empty), (one, one), 0.5, 100) == 1
    assert ranks.brunner_munzel([], []) is None
    assert ranks.brunner_munzel([5, 0], [0, 5]) is None
    assert ranks.shift_ratio((empty, empty), (one, one), 0.05) is None
    assert bands.largest_gap([0, 0], [1, 1]) == (0, 0)
    assert boundaries.bernoulli_sequence(0, 0, 0.05, 100) == (0, 1)
    for n in (1, 10**18):
        low, high = boundaries.bernoulli_sequence(n, n, 0.05, 100)
        assert 0 <= low <= high == 1
    assert boundaries.lil_radius(0, 0.05, 100) == math.inf
    assert fixed.sample_ratio([0, 0], [0.5, 0.5]) == (0, 1)


# scipy 1.17, stats/tests/test_mstats_extras.py, TestQuantiles.
SCIPY_VALUES = """
    0.706560797 0.727229578 0.990399276 0.927065621 0.158953014 0.887764025 0.239407086 0.349638551 0.972791145
    0.149789972 0.936947700 0.132359948 0.046041972 0.641675031 0.945530547 0.224218684 0.771450991 0.820257774
    0.336458052 0.589113496 0.509736129 0.696838829 0.491323573 0.622767425 0.775189248 0.641461450 0.118455200
    0.773029450 0.319280007 0.752229111 0.047841438 0.466295911 0.583850781 0.840581845 0.550086491 0.466470062
    0.504765074 0.226855960 0.362641207 0.891620942 0.127898691 0.490094097 0.044882048 0.041441695 0.317976349
    0.504135618 0.567353033 0.434617473 0.636243375 0.231803616 0.230154113 0.160011327 0.819464108 0.854706985
    0.438809221 0.487427267 0.786907310 0.408367937 0.405534192 0.250444460 0.995309248 0.144389588 0.739947527
    0.953543606 0.680051621 0.388382017 0.863530727 0.006514031 0.118007779 0.924024803 0.384236354 0.893687694
    0.626534881 0.473051932 0.750134705 0.241843555 0.432947602 0.689538104 0.136934797 0.150206859 0.474335206
    0.907775349 0.525869295 0.189184225 0.854284286 0.831089744 0.251637345 0.587038213 0.254475554 0.237781276
    0.827928620 0.480283781 0.594514455 0.213641488 0.024194386 0.536668589 0.699497811 0.892804071 0.093835427
    0.731107772
"""


@pytest.mark.parametrize(
    ("quantile", "expected"),
    [(0.0, 0.006514031), (0.25, 0.253210762), (0.5, 0.512847491), (0.75, 0.762232442), (1.0, 0.995309248)],
)
def test_harrell_and_davis_of_scipy(quantile, expected):
    values = np.sort([float(word) for word in SCIPY_VALUES.split()])
    found = quantiles.harrell_davis(values, np.ones(100), quantile)
    assert found == pytest.approx(expected, abs=5e-10)


def test_harrell_and_davis_on_counts_equals_scipy_on_raw_values():
    counts = np.array([3, 1, 0, 7, 2])
    values = np.array([1.0, 2.0, 3.0, 5.0, 8.0])
    for quantile in (0.1, 0.5, 0.95):
        theirs = float(stats.mstats.hdquantiles(np.repeat(values, counts), [quantile])[0])
        assert quantiles.harrell_davis(values, counts, quantile) == pytest.approx(theirs, rel=1e-12)
    assert quantiles.harrell_davis(values, np.zeros(5), 0.5) is None


def test_block_length_of_arch():
    # arch, tests/bootstrap/test_block_length.py: AR(1) of .3, RandomState(0), the first 100 of 10,100 left out.
    noise = np.random.RandomState(0).standard_normal(10_100)
    for at in range(1, noise.size):
        noise[at] += 0.3 * noise[at - 1]
    assert optimal_block_length(noise[100:]) == pytest.approx((13.635665, 15.60894), rel=1e-6)


def test_block_length_of_nothing():
    assert optimal_block_length([1.0, 2.0] * 3) is None
    assert optimal_block_length([1.0, math.nan] * 50) is None
    assert all(math.isfinite(length) for length in optimal_block_length([1.0, 2.0] * 50))
