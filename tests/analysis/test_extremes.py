"""Nothing, one, all of one arm, 10^18, shares of 1e-9, infinity, no number: what is answered is in order, and in range.

That each public function answers at all is asked in test_extremes_everywhere.py.
"""

import math
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis.stats import (
    bands,
    bernoulli,
    bins,
    changepoint,
    dispersion,
    fixed,
    likelihood,
    multinomial,
    multiplicity,
    paired,
    quantiles,
    ranks,
)

SIZES = [0, 1, 2, 3, 47, 10**4, 10**9, 10**18]
KS = [15.0, 700.0, 1500.0]
NAN, INF = math.nan, math.inf


def told(value):
    """Every number in a result, however deep."""
    if is_dataclass(value):
        return [one for field in fields(value) for one in told(getattr(value, field.name))]
    if isinstance(value, list | tuple | np.ndarray):
        return [one for each in value for one in told(each)]
    return [value] if isinstance(value, float | int | np.number) else []


def sane(value):
    """No number that is none, and ends of a pair in their order."""
    assert not any(math.isnan(one) for one in told(value)), value
    return value


def ordered(interval):
    low, high = sane(interval)
    assert low is None or high is None or low <= high, interval
    return interval


quick = settings(max_examples=30, deadline=None)
sizes = st.sampled_from(SIZES)
alphas = st.sampled_from([1e-12, 0.0125, 0.05, 0.5])
shares = st.sampled_from([1e-9, 0.01, 0.3, 0.5, 1 - 1e-9])
rates = st.sampled_from([0.0, 1e-9, 0.3, 0.5, 1.0])
odd_values = st.sampled_from([0.0, 1.0, 20_000.0, 20_000.5, 1e18, INF, NAN])
odd_counts = st.sampled_from([0, 1, 7, 10**18])


@st.composite
def trials(draw):
    n = draw(sizes)
    hits = draw(st.sampled_from(sorted({0, min(1, n), n // 3, max(n - 1, 0), n})))
    return float(n), float(hits)


@st.composite
def histograms(draw):
    """Increasing values, infinity and what is no number among them, with counts."""
    found = np.unique(np.array(draw(st.lists(odd_values, max_size=6))))
    return found, np.array(draw(st.lists(odd_counts, min_size=found.size, max_size=found.size)), dtype=np.float64)


@st.composite
def windows(draw):
    """Hits and totals by window, some of them strange."""
    some = [draw(trials()) for _ in range(draw(st.integers(0, 40)))]
    return [hits for _, hits in some], [n for n, _ in some]


@quick
@given(trials(), trials(), alphas, rates)
@example((1.0, 0.0), (1e9, 1e9), 0.05, 0.5)  # an end of Newcombe's interval that floats round past −1
def test_rates(one, other, alpha, margin):
    (n, x), (m, y) = one, other
    for weight in (0.0, 0.75, 1.0):
        first, second = bernoulli.observe(n, x, weight), bernoulli.observe(m, y, weight)
        ordered(bernoulli.rate_interval(first, alpha))
    first, second = bernoulli.observe(n, x), bernoulli.observe(m, y)
    low, high = ordered(bernoulli.difference_interval(first, second, alpha))
    assert -1 <= low <= high <= 1
    for difference in (-1.0, -margin, 0.0, margin, 1.0):
        sane(bernoulli.log_e_difference(first, second, difference))
        sane(bernoulli.log_e_above(first, second, difference))
    sane(bernoulli.zero_bound(n, alpha))
    for interval in (fixed.wilson, fixed.clopper_pearson, fixed.jeffreys):
        low, high = ordered(interval(x, n, alpha))
        assert 0 <= low <= high <= 1
    low, high = ordered(fixed.newcombe((x, n), (y, m), alpha))
    assert -1 <= low <= high <= 1


@quick
@given(st.lists(st.tuples(sizes, sizes), max_size=3), shares, alphas)
def test_two_arms(periods, share, alpha):
    split = multinomial.observe([[float(a), float(b)] for a, b in periods], [share, 1 - share], KS)
    sane((split.log_e, split.requests, split.log_peak))
    for arm in (0, 1):
        low, high = ordered(multinomial.share_interval(split, arm, alpha))
        assert 0 <= low <= high <= 1
        sane(multinomial.log_e_outside(split, arm, max(share - 0.05, 0), min(share + 0.05, 1)))
    sane(multinomial.observed_gap(split.counts[0], split.requests or 1.0, share))
    counts = split.counts
    sane(fixed.shares_p_value(counts, [share, 1 - share]))
    sane(fixed.sample_ratio(counts, [share, 1 - share]))


@quick
@given(st.lists(st.sampled_from([0.0, 1.0, 1e9, 1e18]), min_size=50, max_size=50), st.booleans())
def test_fifty_arms(counts, tiny):
    configured = [1e-9] * 49 + [1 - 49e-9] if tiny else [0.02] * 50
    split = multinomial.observe([counts], configured, KS)
    sane((split.log_e, [multinomial.share_interval(split, arm, 0.05) for arm in (0, 49)]))
    sane(fixed.shares_p_value(counts, configured))
    sane(fixed.shares_p_value(counts, [0.0, *configured[1:-1], configured[-1] + configured[0]]))
    sane(fixed.sample_ratio(counts, configured))


@quick
@given(st.lists(st.sampled_from([-INF, -700.0, 0.0, 700.0, 1e300, INF]), min_size=1, max_size=4))
def test_means_of_evidence(logs):
    found = sane(multinomial.log_mean_exp(logs))
    assert min(logs) <= found <= max(logs) or math.isclose(found, max(logs))


@quick
@given(trials(), shares, st.sampled_from([0.0, 1e-9, 3.0, 1e300, INF]))
def test_likelihoods(counted, share, budget):
    n, hits = counted
    sane(likelihood.divergence(n, hits, share))
    low, high = ordered(likelihood.divergence_interval(n, hits, budget))
    assert 0 <= low <= high <= 1
    sane(likelihood.deviance(hits, n * share))
    sane(likelihood.log_evidence([hits, n - hits], [0.5, 0.5], [share, 1 - share]))
    sane(likelihood.stirling_remainder(n + 0.5))


@quick
@given(windows())
def test_windows(found):
    hits, totals = found
    sane(changepoint.bernoulli_change(hits, totals))
    sane(changepoint.poisson_change(hits, totals))
    sane(changepoint.level_change(hits))
    sane(changepoint.trend_p_value(hits, totals))
    sane(dispersion.dispersion(hits, totals))
    scales = sane(dispersion.over_scales(hits, totals))
    sane(dispersion.over_scales(hits, totals, change=len(hits) // 2))
    assert dispersion.design_effect(scales, 0.01) >= 1
    assert 0 <= dispersion.p_too_even(scales) <= 1
    if hits:
        sane(dispersion.merged(np.array(hits), 3))


@quick
@given(st.lists(odd_values, max_size=12))
def test_levels_of_strange_values(values):
    sane(changepoint.level_change(values))
    sane(changepoint.poisson_change(values, [1.0] * len(values)))
    sane(changepoint.change_p_value(values[0] if values and not math.isnan(values[0]) else 0.0))
    sane(changepoint.bernoulli_change(values, [2e18] * len(values)))
    sane(changepoint.trend_p_value(values, [2e18] * len(values)))


@quick
@given(st.lists(odd_values, max_size=8))
def test_bins(values):
    found = bins.bin_of(values)
    assert found.dtype == np.int64
    assert all(found[at] == bins.UNKNOWN for at, value in enumerate(values) if math.isnan(value))
    sane(bins.lower_edge(found))
    sane(bins.middle(found))
    some = np.unique(found)
    if some.size:
        sane(bins.quantile_bin(some, np.ones(some.size), 1e-9))


@quick
@given(histograms(), histograms(), st.sampled_from([1e-9, 0.5, 0.999, 1 - 1e-9]), alphas)
def test_latencies(first, second, quantile, alpha):
    for one in (first, second):
        ordered(quantiles.order_statistic_interval(*one, quantile, alpha))
        ordered(quantiles.quantile_sequence(*one, quantile, alpha, 100))
        n = float(one[1].sum())
        assert 0 <= sane(quantiles.quantile_p_value(n // 2, n // 3, n, quantile)) <= 1
        sane((bands.dkw_radius(n, alpha), bands.band_sum(n, 7, alpha, 100)))
    assert 0 <= sane(quantiles.two_sample_p(first, second, quantile, 100)) <= 1
    sane(ranks.shift_ratio(first, second, alpha))
    sane(bands.largest_gap(first[1], np.resize(second[1], first[1].size) if second[1].size else first[1]))


@quick
@given(st.lists(odd_counts, max_size=6), st.lists(odd_counts, max_size=6), alphas)
def test_ranks(first, second, alpha):
    size = max(len(first), len(second))
    a, b = (np.array([*one, *[0] * (size - len(one))], dtype=np.float64) for one in (first, second))
    for strange in (0.0, INF, NAN):
        found = sane(ranks.brunner_munzel([*a, strange], [*b, 1.0], alpha))
    if found is not None:
        low, high = ordered(ranks.superiority_interval(found, float(a.sum()), float(b.sum()) + 1, alpha))
        assert 0 <= low <= high <= 1
    places = np.arange(size)
    sane(ranks.aligned((places, a), (places, b)))


@quick
@given(st.lists(st.sampled_from([0.0, 1e-300, 0.04, 1.0, NAN]), max_size=6), alphas)
def test_several_claims(values, alpha):
    logs = [-INF, -700.0, 0.0, 701.0, INF, NAN][: len(values)]
    for rejected, given_values in (
        (multiplicity.holm(values, alpha), values),
        (multiplicity.benjamini_hochberg(values, alpha), values),
        (multiplicity.e_holm(logs, alpha), logs),
        (multiplicity.e_benjamini_hochberg(logs, alpha), logs),
    ):
        assert len(rejected) == len(given_values)
        # What cannot be told is never a finding.
        assert not any(no for no, value in zip(rejected, given_values, strict=True) if math.isnan(value))


@quick
@given(st.sampled_from([0, 1, 5, 10**9, 10**18]), st.sampled_from([0, 1, 5, 10**9, 10**18]))
def test_paired(a, b):
    found = sane(paired.mcnemar(a, b))
    assert found is None or 0 <= found <= 1


@pytest.mark.parametrize("share", [1e-9, 0.5])
def test_a_count_of_one_keeps_its_share(share):
    """One of 10^18 must not vanish in the last bits."""
    split = multinomial.observe([[1.0, 1e18]], [share, 1 - share], KS)
    low, high = multinomial.share_interval(split, 0, 0.05)
    assert 0 < low <= 1e-18 <= high < 1e-15
