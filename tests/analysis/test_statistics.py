"""Statistics against second, naive implementations, and against their own promises in simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from analysis.stats import bernoulli, dispersion, likelihood, multinomial
from analysis.stats.batches import lag_correlation, weather
from analysis.stats.bins import bin_of, lower_edge, middle, quantile_bin
from analysis.stats.exceedances import Histogram, density_ratio, quantile_ratio

COUNTS = st.lists(st.integers(0, 10**6), min_size=2, max_size=6)


def naive_log_e(counts, shares, k):
    counts, shares = np.asarray(counts, float), np.asarray(shares, float)
    prior = k * shares

    def log_beta(a):
        return special.gammaln(a).sum() - special.gammaln(a.sum())

    return log_beta(prior + counts) - log_beta(prior) - (counts * np.log(shares)).sum()


@given(COUNTS, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_e_process_equals_the_textbook_formula(counts, seed):
    shares = np.random.default_rng(seed).dirichlet(np.ones(len(counts)) * 5)
    ks = [10.0, 100.0, 1000.0]
    naive = special.logsumexp([naive_log_e(counts, shares, k) for k in ks]) - math.log(3)
    assert multinomial.observe([counts], shares.tolist(), ks).log_e == pytest.approx(naive, rel=1e-7, abs=1e-6)


@given(st.integers(2, 5000), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
@settings(max_examples=40, deadline=None)
def test_share_interval_is_where_the_e_process_crosses(n, rate, share):
    hits = round(n * rate)
    split = multinomial.observe([[hits, n - hits]], [share, 1 - share], [10.0, 100.0])
    low, high = multinomial.share_interval(split, 0, 0.05)

    def crossing(theta):
        logs = [
            special.betaln(k * share + hits, k * (1 - share) + n - hits) - special.betaln(k * share, k * (1 - share))
            for k in (10.0, 100.0)
        ]
        fit = special.xlogy(hits, theta) + special.xlog1py(n - hits, -theta)
        return special.logsumexp(logs) - math.log(2) - fit - math.log(20)

    for end in (low, high):
        if 0 < end < 1:
            assert crossing(end) == pytest.approx(0, abs=1e-6)
    assert low <= hits / n <= high


def test_other_arms_are_profiled_out():
    """The interval of one of three arms, by brute minimisation over the others."""
    counts, shares = [20.0, 50.0, 30.0], [0.3, 0.4, 0.3]
    split = multinomial.observe([counts], shares, [100.0])

    def worst(theta):
        def at(part):
            others = (1 - theta) * part, (1 - theta) * (1 - part)
            return naive_log_e(counts, shares, 100.0) + sum(
                c * (math.log(s) - math.log(t)) for c, s, t in zip(counts, shares, (theta, *others), strict=True)
            )

        return optimize.minimize_scalar(at, bounds=(0.01, 0.99), method="bounded").fun - math.log(20)

    low, high = multinomial.share_interval(split, 0, 0.05)
    assert optimize.brentq(worst, 0.01, 0.2) == pytest.approx(low, abs=1e-5)
    assert optimize.brentq(worst, 0.2, 0.9) == pytest.approx(high, abs=1e-5)


def test_counts_of_any_size_are_defined():
    for n in (0, 1, 10**9, 10**18):
        split = multinomial.observe([[0.7 * n, 0.3 * n]], [0.7, 0.3], [10, 100, 1000])
        low, high = multinomial.share_interval(split, 1, 0.025)
        assert 0 <= low <= high <= 1
        assert math.isfinite(split.log_e)
    # The precision of a large sample: the width falls as the root of ln(n)/n.
    assert high - low < 3e-8


def test_e_process_keeps_its_level_under_peeking():
    """800 runs of 3 000 requests, looked at every 50: at most 5 % + 2 s.e. ever reach 1/alpha."""
    random = np.random.default_rng(5)
    crossings = 0
    for _ in range(800):
        canary = random.binomial(50, 0.3, size=60).cumsum()
        totals = np.arange(1, 61) * 50
        crossings += any(
            multinomial.observe([[n - c, c]], [0.7, 0.3], [10, 100, 1000]).log_e >= math.log(20)
            for n, c in zip(totals[::4].tolist(), canary[::4].tolist(), strict=True)
        )
    assert crossings / 800 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 800)


@pytest.mark.parametrize(("canary", "baseline"), [(0.0, 0.0), (0.01, 0.01), (0.05, 0.02), (0.5, 0.4)])
def test_difference_interval_covers_under_peeking(canary, baseline):
    random = np.random.default_rng(7)
    missed = 0
    for _ in range(150):
        hits = random.binomial(25, canary, 12).cumsum(), random.binomial(60, baseline, 12).cumsum()
        missed += any(
            not low - 1e-9 <= canary - baseline <= high + 1e-9
            for low, high in (
                bernoulli.difference_interval(
                    bernoulli.observe(25 * (look + 1), float(hits[0][look])),
                    bernoulli.observe(60 * (look + 1), float(hits[1][look])),
                    0.1,
                )
                for look in (0, 3, 7, 11)
            )
        )
    assert missed / 150 <= 0.1 + 2 * math.sqrt(0.1 * 0.9 / 150)


@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(0, 1), st.floats(0, 1), st.floats(-0.9, 0.9))
@settings(max_examples=60, deadline=None)
def test_restricted_likelihood_equals_a_fine_grid(n, m, p, q, difference):
    first, second = bernoulli.observe(n, round(n * p)), bernoulli.observe(m, round(m * q))
    grid = np.linspace(max(0.0, -difference), min(1.0, 1 - difference), 20001)
    a, b = np.clip(grid + difference, 0, 1), grid
    fit = (
        special.xlogy(first.hits, a)
        + special.xlogy(n - first.hits, 1 - a)
        + special.xlogy(second.hits, b)
        + special.xlogy(m - second.hits, 1 - b)
    ).max()
    own = sum(
        special.xlogy(r.hits, r.hits / r.n) + special.xlogy(r.n - r.hits, 1 - r.hits / r.n) for r in (first, second)
    )
    naive = first.log_peak + second.log_peak + own - fit
    found = bernoulli.log_e_difference(first, second, difference)
    assert found <= naive + 1e-6
    assert found == pytest.approx(naive, rel=2e-3, abs=5e-2)


def test_clean_requests_that_suffice():
    """48 clean canary requests beside a baseline that does not fail either bound the increase by 10 pp."""
    baseline = bernoulli.observe(250, 0)
    assert bernoulli.difference_interval(bernoulli.observe(48, 0), baseline, 0.0125)[1] < 0.10
    assert bernoulli.difference_interval(bernoulli.observe(40, 0), baseline, 0.0125)[1] > 0.10


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=50))
def test_bins_hold_their_values(values):
    bins = bin_of(values)
    given_values = np.asarray(values, dtype=float)
    assert (lower_edge(bins) <= given_values).all()
    assert (given_values < lower_edge(bins + 1)).all() or min(values) == 0
    positive = given_values > 0
    error = np.abs(middle(bins) - given_values)[positive] / given_values[positive]
    assert (error <= 1 / 2048).all()


def test_bins_are_the_bits_of_the_float():
    values = np.random.default_rng(1).integers(1, 2**23, 5000)
    bits = (values.astype(np.float32).view(np.uint32) >> 13).astype(np.int64) - (127 << 10)
    assert (bin_of(values) == bits).all()


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.floats(0.01, 1))
def test_quantile_on_bins_is_the_inverse_of_the_distribution(values, probability):
    bins, counts = np.unique(bin_of(values), return_counts=True)
    expected = np.quantile(values, probability, method="inverted_cdf")
    assert int(middle(quantile_bin(bins, counts, probability))) == expected


def sample(random, n, batches, factor=1.0, sigma=0.5):
    values = 50_000 * factor * np.exp(sigma * random.standard_normal(n))
    bins, columns = np.unique(bin_of(values), return_inverse=True)
    counts = np.zeros((batches, bins.size), dtype=np.int64)
    np.add.at(counts, (random.integers(0, batches, n), columns), 1)
    return Histogram(bins, counts)


@pytest.mark.parametrize(("quantile", "ratio"), [(0.5, 1.0), (0.5, 1.5), (0.95, 1.0), (0.95, 1.3)])
def test_ratio_interval_covers(quantile, ratio):
    random = np.random.default_rng(11)
    missed = 0
    for _ in range(200):
        found = quantile_ratio(sample(random, 400, 20, ratio), sample(random, 900, 20), quantile)
        low, high = found.interval(0.05)
        missed += not low <= ratio <= high
    assert missed / 200 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


def test_ratio_test_has_the_power_of_its_normal_limit():
    random = np.random.default_rng(12)
    found = [quantile_ratio(sample(random, 1000, 30, 1.5), sample(random, 2300, 30), 0.5) for _ in range(40)]
    # Not all: batches that seem to hang together by chance cost width.
    assert np.mean([one.p_above(1.2) < 0.0125 for one in found]) >= 0.9
    assert np.mean([one.p_below(2.0) < 0.0125 for one in found]) >= 0.9
    assert np.median([one.estimate for one in found]) == pytest.approx(1.5, rel=0.03)


def test_per_request_naive_variance_agrees_when_requests_are_independent():
    """The interval from batches is close to the textbook's interval of a difference of two exceedance rates."""
    random = np.random.default_rng(13)
    widths = []
    for _ in range(60):
        low, high = quantile_ratio(sample(random, 1000, 60), sample(random, 1000, 60), 0.5).interval(0.05)
        widths.append(math.log(high / low))
    # Median of a lognormal: the error of ln(ratio) is sqrt(2 * pi/2 * sigma^2 / n).
    assert np.mean(widths) == pytest.approx(2 * 1.96 * math.sqrt(math.pi) * 0.5 / math.sqrt(1000), rel=0.2)


def test_correlated_batches_are_noticed():
    random = np.random.default_rng(14)
    walk = np.cumsum(random.standard_normal(60))
    assert lag_correlation(walk - walk.mean()) > 0.7
    assert weather(walk - walk.mean(), 1.0).endless
    assert abs(np.mean([lag_correlation(random.standard_normal(60)) for _ in range(200)])) < 0.03


def test_density_ratio_of_equal_and_of_wider_arms():
    random = np.random.default_rng(15)
    narrow, wide = sample(random, 20_000, 10, sigma=0.3), sample(random, 20_000, 10, sigma=0.6)
    assert density_ratio(narrow, narrow, 0.5) == pytest.approx(1.0)
    assert density_ratio(wide, narrow, 0.5) == pytest.approx(0.5, rel=0.15)


def test_nothing_to_compare_is_none_not_a_number():
    empty = Histogram(np.zeros(0, dtype=np.int64), np.zeros((3, 0), dtype=np.int64))
    some = sample(np.random.default_rng(1), 50, 3)
    assert quantile_ratio(empty, some, 0.5) is None
    assert dispersion.dispersion([1], [2]) is None


def test_round_robin_and_stickiness_betray_themselves():
    random = np.random.default_rng(16)
    totals = np.full(40, 20)
    even = dispersion.dispersion(np.full(40, 10), totals)
    sticky = dispersion.dispersion(10 * random.integers(0, 3, 40), totals)
    honest = dispersion.dispersion(random.binomial(20, 0.5, 40), totals)
    assert even.p_under < 1e-6
    assert sticky.p_over < 1e-6
    assert min(honest.p_under, honest.p_over) > 0.001


@given(st.floats(0, 1e18), st.floats(0, 1e18))
def test_deviance_is_never_negative_and_never_nan(x, m):
    value = likelihood.deviance(x, m)
    assert value >= -1e-9 * max(x, m)
    assert not math.isnan(value)
