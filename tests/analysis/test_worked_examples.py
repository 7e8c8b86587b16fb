"""Worked examples of papers, books and other programs: the figure that they print, to the digits that they print."""

import math

import numpy as np
import pytest
from scipy import signal, stats
from scipy.stats import mstats

from analysis.stats import changepoint, dispersion, distributions, fixed, paired, quantiles, ranks
from analysis.stats.blocks import block_length
from analysis.stats.boundaries import bernoulli_sequence, best_rho, beta_binomial_log_mixture
from analysis.stats.fixed import clopper_pearson, newcombe, sample_ratio, wilson
from experiments.core.hypotheses import looks

# scipy 1.17, stats/tests/test_mstats_extras.py, TestQuantiles.data.
HUNDRED = np.sort([
    0.706560797, 0.727229578, 0.990399276, 0.927065621, 0.158953014, 0.887764025, 0.239407086, 0.349638551, 0.972791145,
    0.149789972, 0.9369477, 0.132359948, 0.046041972, 0.641675031, 0.945530547, 0.224218684, 0.771450991, 0.820257774,
    0.336458052, 0.589113496, 0.509736129, 0.696838829, 0.491323573, 0.622767425, 0.775189248, 0.64146145, 0.1184552,
    0.77302945, 0.319280007, 0.752229111, 0.047841438, 0.466295911, 0.583850781, 0.840581845, 0.550086491, 0.466470062,
    0.504765074, 0.22685596, 0.362641207, 0.891620942, 0.127898691, 0.490094097, 0.044882048, 0.041441695, 0.317976349,
    0.504135618, 0.567353033, 0.434617473, 0.636243375, 0.231803616, 0.230154113, 0.160011327, 0.819464108, 0.854706985,
    0.438809221, 0.487427267, 0.78690731, 0.408367937, 0.405534192, 0.25044446, 0.995309248, 0.144389588, 0.739947527,
    0.953543606, 0.680051621, 0.388382017, 0.863530727, 0.006514031, 0.118007779, 0.924024803, 0.384236354, 0.893687694,
    0.626534881, 0.473051932, 0.750134705, 0.241843555, 0.432947602, 0.689538104, 0.136934797, 0.150206859, 0.474335206,
    0.907775349, 0.525869295, 0.189184225, 0.854284286, 0.831089744, 0.251637345, 0.587038213, 0.254475554, 0.237781276,
    0.82792862, 0.480283781, 0.594514455, 0.213641488, 0.024194386, 0.536668589, 0.699497811, 0.892804071, 0.093835427,
    0.731107772,
])  # fmt: skip


def test_harrell_and_davis_of_scipy():
    # The same file: 0.253210762, 0.512847491, 0.762232442; their test asks for seven digits.
    found = [quantiles.harrell_davis(HUNDRED, np.ones(100), p) for p in (0.25, 0.5, 0.75)]
    assert found == pytest.approx([0.253210762, 0.512847491, 0.762232442], abs=5e-10)
    ends = [quantiles.harrell_davis(HUNDRED, np.ones(100), p) for p in (0.0, 1.0)]
    assert ends == [0.006514031, 0.995309248]


def test_harrell_and_davis_on_counts_equals_scipy_on_raw_values():
    random = np.random.default_rng(2)
    values, counts = np.unique(random.integers(0, 40, 500), return_counts=True)
    for p in (0.05, 0.5, 0.99):
        expected = float(mstats.hdquantiles(np.repeat(values, counts), [p])[0])
        assert quantiles.harrell_davis(values.astype(float), counts, p) == pytest.approx(expected, rel=1e-12)


def autoregression(n, phi=0.3):
    return signal.lfilter([1.0], [1.0, -phi], np.random.RandomState(0).standard_normal(n + 100))[100:]


def test_block_length_of_arch():
    # arch 7, tests/bootstrap/test_block_length.py: RandomState(0), AR(1) with .3, 10 000 after 100.
    found = block_length(autoregression(10_000))
    assert (found.stationary, found.circular) == (
        pytest.approx(13.635665, abs=5e-7),
        pytest.approx(15.60894, abs=5e-6),
    )


def test_block_length_of_an_autoregression_is_near_what_its_spectrum_says():
    """b = (2G²n/D)^⅓ from the true autocovariances φ^k/(1 − φ²) of AR(1) (Politis & White 2004, section 3.2)."""
    phi, n = 0.7, 20_000
    g, spectrum = 2 * phi / (1 - phi) ** 2 / (1 - phi**2), 1 / (1 - phi) ** 2
    expected = (2 * g**2 * n / (2 * spectrum**2)) ** (1 / 3)
    assert block_length(autoregression(n, phi)).stationary == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("v", [1e8, 1e13, 1e18])
def test_beta_binomial_mixture_tends_to_the_normal_one(v):
    """Howard et al. 2021, section 3.2: ln E = ½ ln(ρ/(v + ρ)) + s²/2(v + ρ), and ln 2Φ(s/√(v + ρ)) more on one side."""
    g, h, v_opt = 0.3, 0.7, 1e6
    for one_sided in (False, True):
        rho = best_rho(v_opt, 0.1 if one_sided else 0.05)
        for away in (0.0, 2.0, 4.0):
            s = away * math.sqrt(v)
            expected = 0.5 * math.log(rho / (v + rho)) + s * s / 2 / (v + rho)
            if one_sided:
                expected += math.log(2) + stats.norm.logcdf(s / math.sqrt(v + rho))
            found = beta_binomial_log_mixture(s, v, v_opt, g, h, one_sided=one_sided)
            assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((0, 10), (0, 10), (-0.2775, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
    ],
)
def test_differences_of_newcombe_1998(first, second, expected):
    # Newcombe 1998, Statistics in Medicine 17, 873-890, table II, method 10.
    assert newcombe(first, second, 0.05) == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.parametrize(
    ("hits", "n", "by_wilson", "exact"),
    [(15, 148, (0.0624, 0.1605), (0.0578, 0.1617)), (1, 29, (0.0061, 0.1718), (0.0009, 0.1776))],
)
def test_rates_of_newcombe_1998(hits, n, by_wilson, exact):
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, methods 3 and 5.
    assert wilson(hits, n, 0.05) == pytest.approx(by_wilson, abs=5.1e-5)
    assert clopper_pearson(hits, n, 0.05) == pytest.approx(exact, abs=5.1e-5)


def test_peas_of_conover():
    # Conover 1971, page 97; R's help of binom.test: 682 of 925 against 3/4.
    assert clopper_pearson(682, 925, 0.05) == pytest.approx((0.7076683, 0.7654066), abs=5e-8)
    assert distributions.binomial_two_sided(682, 925, 0.75) == pytest.approx(0.3825, abs=5e-5)
    assert fixed.shares_p_value([682, 243], [0.75, 0.25])[1] == pytest.approx(0.3825, abs=5e-5)


@pytest.mark.parametrize(("a", "b", "expected"), [(1, 7, 0.0703), (6, 16, 0.0525)])
def test_exact_mcnemar_of_fagerland(a, b, expected):
    # Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91, tables 1 and 2, exact conditional test.
    assert paired.mcnemar(a, b) == pytest.approx(expected, abs=5e-5)


def test_pain_scores_of_brunner_and_munzel():
    # Brunner & Munzel 2000, section 6; R's lawstat, help of brunner.munzel.test.
    first, second = [1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 1, 1], [3, 3, 4, 3, 1, 2, 3, 1, 1, 5, 4]
    found = ranks.brunner_munzel(*(np.bincount(scores, minlength=6) for scores in (first, second)))
    assert found.statistic == pytest.approx(3.1375, abs=5e-5)
    assert found.freedom == pytest.approx(17.683, abs=5e-4)
    assert found.p_value == pytest.approx(0.005786, abs=5e-7)
    assert found.estimate == pytest.approx(0.788961, abs=5e-7)
    assert (found.low, found.high) == pytest.approx((0.5952169, 0.9827052), abs=5e-8)


def test_shift_of_hollander_and_wolfe():
    # Hollander & Wolfe 1973, page 69 f. (R's help of wilcox.test): permeability at term less that at 12-26 weeks.
    # Half of the 50 differences lie on either side of .305.
    term, early = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46], [1.15, 0.88, 0.90, 0.74, 1.21]
    first, second = ((np.exp(np.sort(arm)), np.ones(len(arm))) for arm in (early, term))
    assert math.log(ranks.shift_ratio(first, second, 0.05)[0]) == pytest.approx(0.305, abs=1e-8)


def test_trend_and_spread_of_smokers():
    # Fleiss 1981, page 139; R's help of prop.test and prop.trend.test: χ² 12.6004 (p .005585) and p .004132.
    smokers, patients = [83, 90, 129, 70], [86, 93, 136, 82]
    found = dispersion.dispersion(smokers, patients)
    assert 3 * found.index == pytest.approx(12.6004, abs=5e-5)
    assert found.p_over == pytest.approx(0.005585, abs=5e-7)
    assert changepoint.trend_p_value(smokers, patients) == pytest.approx(0.004132, abs=5e-7)


def test_shares_of_r():
    # R's help of chisq.test: counts 89, 37, 30, 28, 2 against .40, .20, .20, .15, .05: χ² 9.9901, p .04059.
    statistic, p = sample_ratio([89, 37, 30, 28, 2], [0.4, 0.2, 0.2, 0.15, 0.05])
    assert (statistic, p) == (pytest.approx(9.9901, abs=5e-5), pytest.approx(0.04059, abs=5e-6))


# Explosions in British coal mines, 1851 to 1962, by year (Carlin, Gelfand & Smith 1992, table 1, from Jarrett 1979).
COAL = [
    4, 5, 4, 1, 0, 4, 3, 4, 0, 6, 3, 3, 4, 0, 2, 6, 3, 3, 5, 4, 5, 3, 1, 4, 4, 1, 5, 5, 3, 4, 2, 5, 2, 2, 3, 4, 2, 1, 3,
    2, 2, 1, 1, 1, 1, 3, 0, 0, 1, 0, 1, 1, 0, 0, 3, 1, 0, 3, 2, 2, 0, 1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 2, 1, 0, 0, 0, 1, 1,
    0, 2, 3, 3, 1, 1, 2, 1, 1, 1, 1, 2, 4, 2, 0, 0, 0, 1, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1,
]  # fmt: skip


def test_break_of_the_coal_mines_is_found_among_all_years():
    found = changepoint.poisson_change(COAL, np.ones(112))
    assert (found.at, found.statistic) == (41, pytest.approx(69.99, abs=0.005))
    assert (found.before, found.after) == (pytest.approx(127 / 41), pytest.approx(64 / 71))


def test_boundaries_of_lan_and_demets():
    # Reboussin, DeMets, Kim & Lan 2000 (WinLD; R's ldbounds): five looks, .025 a side, first boundary 4.8769;
    # two looks: 2.9626 at half of the information.
    five, two = looks(0.025, (0.2, 0.4, 0.6, 0.8, 1.0)), looks(0.025, (0.5, 1.0))
    assert distributions.normal_upper(five[0].alpha) == pytest.approx(4.8769, abs=5e-5)
    assert distributions.normal_upper(two[0].alpha) == pytest.approx(2.9626, abs=5e-5)
    # What is spent in all by then, from scipy.
    spent = np.cumsum([look.alpha for look in five])
    assert spent == pytest.approx(2 * stats.norm.sf(stats.norm.isf(0.0125) / np.sqrt([0.2, 0.4, 0.6, 0.8, 1.0])))


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7])
def test_the_price_of_looking_all_the_time(rate):
    """From the tuning alone: √(2(1 + 1/ρ)·ln(√(ρ + 1)/α)) against 1.96, with ρ of Waudby-Smith et al. (2103.06476)."""
    rho = -2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))
    limit = math.sqrt(2 * (1 + 1 / rho) * math.log(math.sqrt(rho + 1) / 0.05)) / stats.norm.isf(0.025)
    assert limit == pytest.approx(1.55, abs=0.005)
    n = 10_000
    low, high = bernoulli_sequence(rate * n, n, 0.05, n)
    below, above = wilson(rate * n, n, 0.05)
    assert (high - low) / (above - below) == pytest.approx(1.55, abs=0.005)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95, 0.99])
def test_the_price_of_looking_at_quantiles_all_the_time(quantile):
    n = 100_000
    told = np.arange(1.0, n + 1), np.ones(n), quantile, 0.05
    low, high = quantiles.quantile_sequence(*told, n)
    below, above = quantiles.order_statistic_interval(*told)
    assert (high - low) / (above - below) == pytest.approx(1.55, abs=0.02)
