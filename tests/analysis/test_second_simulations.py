"""Sequences and tests against their own promises in small seeded simulations, and against naive searches."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.stats import bands, bins, boundaries, changepoint, exceedances, means, quantiles, ranks, woodruff
from analysis.stats.bins import PER_OCTAVE
from analysis.stats.exceedances import Histogram
from analysis.trials import mean_trial, quantile_trial


def allowed(alpha, runs):
    """Alpha and two standard errors."""
    return alpha + 2 * math.sqrt(alpha * (1 - alpha) / runs)


def distance(values):
    """Between the empirical distribution of uniform values and the true one."""
    ordered, n = np.sort(values), len(values)
    return max((np.arange(1, n + 1) / n - ordered).max(), (ordered - np.arange(n) / n).max())


def test_distributions_stay_within_their_radius():
    random, runs, alpha = np.random.default_rng(1), 300, 0.2
    once = np.mean([distance(random.random(60)) > bands.dkw_radius(60, alpha) for _ in range(runs)])
    assert 0.05 < once <= allowed(alpha, runs)  # the bound is nearly sharp
    left = 0
    for _ in range(runs):
        values = random.random(2000)
        looks = (20, 40, 80, 200, 500, 2000)
        left += any(distance(values[:n]) > boundaries.lil_radius(n, alpha, 20) for n in looks)
    assert left / runs <= allowed(alpha, runs)


@given(st.integers(100, 10**6), st.integers(100, 10**6))
@settings(deadline=None)
def test_a_band_is_the_sum_of_two_radii_and_never_more_than_all(n, m):
    both = boundaries.lil_radius(n, 0.025, 100) + boundaries.lil_radius(m, 0.025, 100)
    assert bands.band_sum(n, m, 0.05, 100) == min(1.0, both)


def test_all_quantiles_stay_within_the_double_stitching_bound():
    """Ranks of the true quantiles: those below p must be p·t, give or take the bound, at all looks and all p."""
    random, runs, alpha, missed = np.random.default_rng(2), 200, 0.2, 0
    places = (0.5, 0.6, 0.75, 0.9, 0.95)
    for _ in range(runs):
        values = random.random(1000)
        for t in (100, 200, 400, 1000):
            ranks_of = [(values[:t] < p).sum() for p in places]
            bounds = [boundaries.double_stitching_bound(p, t, alpha, 100) for p in places]
            if any(at - p * t > bound for at, p, bound in zip(ranks_of, places, bounds, strict=True)):
                missed += 1
                break
    assert missed / runs <= allowed(alpha, runs)


def test_a_mean_is_covered_at_all_looks():
    random, runs, alpha, missed = np.random.default_rng(3), 300, 0.2, 0
    for _ in range(runs):
        values = random.exponential(size=3000)
        ends = [means.mean_sequence(n, values[:n].mean(), values[:n].var(), alpha, 500) for n in (200, 500, 1200, 3000)]
        missed += any(not low <= 1 <= high for low, high in ends)
    assert missed / runs <= allowed(alpha, runs)


@given(st.lists(st.integers(-50, 50), min_size=3, max_size=30).filter(lambda found: len(set(found)) > 1))
@settings(max_examples=40, deadline=None)
def test_a_change_of_level_is_where_two_means_fit_best(values):
    value = np.array(values, dtype=float)
    rests = {at: value[:at].var() * at + value[at:].var() * (len(value) - at) for at in range(1, len(value))}
    found = changepoint.level_change(values)
    assert rests[found.at] == pytest.approx(min(rests.values()), abs=1e-6)


def test_the_chance_of_a_largest_likelihood_ratio():
    """Of 2 000 sequences of 400 normal values: those whose largest standardised bridge is so large."""
    random, n, trim = np.random.default_rng(4), 400, 0.15
    walk = random.standard_normal((2000, n)).cumsum(axis=1)
    at = np.arange(1, n + 1) / n
    inner = (at >= trim) & (at <= 1 - trim)
    bridge = (walk - at * walk[:, -1:])[:, inner] / np.sqrt(n * at[inner] * (1 - at[inner]))
    for statistic in (8.68, 12.16):
        seen = np.mean((bridge**2).max(axis=1) >= statistic)
        # Of steps, and not of a line: a little less often.
        assert (
            0.6 * changepoint.change_p_value(statistic, trim)
            < seen
            < 1.25 * changepoint.change_p_value(statistic, trim)
        )


@given(st.integers(0, 999), st.integers(3, 25), st.integers(3, 25))
@settings(max_examples=30, deadline=None)
def test_a_shift_ratio_is_the_median_ratio_of_all_pairs(seed, n, m):
    random = np.random.default_rng(seed)
    first, second = np.sort(np.exp(random.standard_normal(n))), np.sort(np.exp(random.standard_normal(m)))
    found = ranks.shift_ratio((first, np.ones(n)), (second, np.ones(m)), 0.05)
    ratios = np.sort((second[:, None] / first[None, :]).ravel())
    middle = ratios[(ratios.size - 1) // 2], ratios[ratios.size // 2]
    assert middle[0] * (1 - 1e-6) <= found[0] <= middle[1] * (1 + 1e-6)
    assert found[1] <= found[0] <= found[2]


def test_a_share_beyond_a_limit_keeps_its_level():
    random, runs, alpha = np.random.default_rng(5), 400, 0.1
    totals = np.full(30, 20)
    found = [exceedances.share_beyond(random.binomial(20, 0.1, 30), totals, 0.1) for _ in range(runs)]
    assert np.mean([one.p_above <= alpha for one in found]) <= allowed(alpha, runs)
    assert np.mean([one.p_below <= alpha for one in found]) <= allowed(alpha, runs)


def batches_of(random, drag):
    """40 batches of 60 log-normal latencies; `drag` is the spread that those of a batch have in common."""
    values = random.standard_normal((40, 60)) + drag * random.standard_normal((40, 1))
    found = bins.bin_of(1e5 * np.exp(0.3 * values))
    known, places = np.unique(found, return_inverse=True)
    counts = np.zeros((40, known.size), dtype=np.int64)
    np.add.at(counts, (np.repeat(np.arange(40), 60), places.ravel()), 1)
    return Histogram(known, counts)


@pytest.mark.parametrize(("quantile", "drag"), [(0.5, 0.0), (0.95, 0.0), (0.5, 0.5), (0.95, 0.5)])
def test_a_quantile_is_covered_whether_or_not_the_values_of_a_batch_resemble_one_another(quantile, drag):
    random, runs, alpha = np.random.default_rng(6), 300, 0.1
    true = 1e5 * math.exp(0.3 * stats.norm.ppf(quantile) * math.hypot(1, drag))
    missed, alone, nothing = 0, 0, 0
    for _ in range(runs):
        arm = batches_of(random, drag)
        values, counts = bins.middle(arm.bins), arm.counts.sum(axis=0)
        naive = quantiles.order_statistic_interval(values, counts, quantile, alpha)
        alone += not naive[0] * 0.999 <= true <= naive[1] * 1.001
        found = woodruff.quantile_interval(arm, quantile, alpha)
        if found is None:
            nothing += 1
            continue
        missed += not found[0] * 0.999 <= true <= found[1] * 1.001
        assert found[0] <= naive[0]
        assert found[1] >= naive[1]
    assert nothing <= 0.05 * runs
    assert missed / runs <= allowed(alpha, runs)
    # As independent values each miss would be rare; batches that differ take that away.
    assert (alone / runs > 2 * alpha) == (drag > 0)


def wandering(random):
    """A minute of six answers a second, all of whose latency wanders for ten seconds: a few spells."""
    level, stays = [random.standard_normal()], math.exp(-0.1)
    while len(level) < 60:
        level.append(stays * level[-1] + math.sqrt(1 - stays**2) * random.standard_normal())
    found = bins.bin_of(1e5 * np.exp(0.5 * np.array(level)))
    known, places = np.unique(found, return_inverse=True)
    counts = np.zeros((60, known.size), dtype=np.int64)
    counts[np.arange(60), places] = 6
    return Histogram(known, counts)


def test_a_far_quantile_of_a_few_slow_spells_is_missed_no_more_often_than_promised():
    random, runs, shown, missed = np.random.default_rng(8), 200, 0, 0
    for _ in range(runs):
        found = woodruff.quantile_interval(wandering(random), 0.95, 0.05)
        if found is not None:
            shown += 1
            missed += found[1] is not None and found[1] * 1.001 < 1e5 * math.exp(0.5 * stats.norm.ppf(0.95))
    assert shown > 0.8 * runs
    assert missed / shown <= allowed(0.05, shown)


def drawn(random, n, factor):
    places = np.arange(200) + 14 * PER_OCTAVE
    counts = np.zeros((12, 200), dtype=np.int64)
    np.add.at(counts, (random.integers(0, 12, n), np.minimum((random.gamma(4, 12, n) * factor).astype(int), 199)), 1)
    return Histogram(places, counts)


@given(st.integers(0, 999), st.integers(-6, 8), st.sampled_from((0.5, 0.9)), st.sampled_from((1.0, 1.3)))
@settings(max_examples=15, deadline=None)
def test_latency_in_another_unit_is_judged_the_same(seed, octaves, quantile, limit):
    """A power of two in the unit of time moves latencies by whole octaves: all stays, within a bin's width."""
    random = np.random.default_rng(seed)
    arms = [drawn(random, 150, 1.2), drawn(random, 300, 1.0)]
    scaled = [Histogram(one.bins + octaves * PER_OCTAVE, one.counts) for one in arms]
    sums = [one.counts @ np.exp2(one.bins / PER_OCTAVE) for one in arms]
    pairs = [
        (quantile_trial(*arms, quantile, limit), quantile_trial(*scaled, quantile, limit)),
        (
            mean_trial(*zip(arms, sums, strict=True), limit),
            mean_trial(*zip(scaled, [total * 2.0**octaves for total in sums], strict=True), limit),
        ),
    ]
    for one, other in pairs:
        assert other.estimate == pytest.approx(one.estimate, rel=1e-3)
        assert (other.p_above, other.p_below) == pytest.approx((one.p_above, one.p_below), abs=0.01)
        assert other.interval(0.05) == pytest.approx(one.interval(0.05), rel=2e-3)
