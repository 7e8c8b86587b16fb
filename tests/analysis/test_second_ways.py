"""Closed forms worked out a second, naive way: by enumeration, by a plain loop, by simulation or by another library."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from analysis import failures, secondary, words
from analysis.stats import batches as batch
from analysis.stats import (
    bernoulli,
    bins,
    boundaries,
    fixed,
    likelihood,
    multinomial,
    multiplicity,
    quantiles,
    woodruff,
)
from analysis.stats.exceedances import Histogram
from experiments.core.hypotheses import hypotheses
from tests.analysis.counted import cell, tally_of
from tests.analysis.synthetic import experiment

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(st.lists(st.integers(0, 6), min_size=3, max_size=4), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_exact_multinomial_is_the_sum_over_every_sequence_of_counts(counts, seed):
    shares = np.random.default_rng(seed).dirichlet(np.ones(len(counts)) * 3)
    n = sum(counts)
    law = stats.multinomial(n, shares)
    all_counts = [one for one in itertools.product(range(n + 1), repeat=len(counts)) if sum(one) == n]
    chances = law.pmf(np.array(all_counts))
    naive = chances[chances <= law.pmf(counts) * (1 + 1e-9)].sum()
    assert fixed._exact_multinomial(counts, shares.tolist()) == pytest.approx(naive, rel=1e-6)


def test_three_arms_are_tested_exactly_while_that_is_cheap():
    assert fixed.shares_p_value([5, 3, 0], [0.6, 0.3, 0.1])[0] == "exact multinomial"
    assert fixed.shares_p_value([600, 300, 100], [0.6, 0.3, 0.1])[0] == "Pearson chi-square"
    assert fixed.shares_p_value([1] * 50, [0.02] * 50)[0] == "Pearson chi-square"
    two = fixed._exact_multinomial([7, 13], [0.5, 0.5])
    assert two == pytest.approx(stats.binomtest(7, 20, 0.5).pvalue)


@given(P_VALUES, st.sampled_from((0.01, 0.05, 0.2, 0.5)))
@settings(deadline=None)
def test_holm_is_the_closure_of_bonferroni(p_values, alpha):
    """A null is rejected where each set that it is in has a p-value of at most alpha over its size."""
    every = range(len(p_values))
    sets = [one for size in every for one in itertools.combinations(every, size + 1)]
    naive = [all(min(p_values[i] for i in one) * len(one) <= alpha for one in sets if index in one) for index in every]
    assert multiplicity.holm(p_values, alpha) == naive


@given(P_VALUES, st.sampled_from((0.01, 0.05, 0.2, 0.5)))
@settings(deadline=None)
def test_benjamini_and_hochberg_reject_the_largest_set_that_pays_for_itself(p_values, rate):
    """Every set of rejections below a threshold is tried: at most rate × (its size) of them expected by chance."""
    good = [t for t in p_values if t * len(p_values) <= rate * sum(p <= t for p in p_values)]
    naive = [bool(good) and p <= max(good) for p in p_values]
    found = multiplicity.benjamini_hochberg(p_values, rate)
    assert found == naive
    logs = [-math.log(max(p, 1e-300)) for p in p_values]
    assert sum(multiplicity.e_benjamini_hochberg(logs, rate)) == sum(found)
    assert sum(multiplicity.e_holm(logs, rate)) == sum(multiplicity.holm(p_values, rate))


@given(st.integers(0, 10**5), st.floats(1e-3, 1e5))
@settings(deadline=None)
def test_deviance_is_that_of_poisson_counts(hits, expected):
    naive = stats.poisson.logpmf(hits, hits) - stats.poisson.logpmf(hits, expected) if hits else expected
    assert likelihood.deviance(hits, expected) == pytest.approx(naive, rel=1e-6, abs=1e-6)


def log_beta_evidence(n, hits, weight, p):
    """The mixture of "never" and Beta(½, ½) against one rate, as the textbook has it."""
    spread = (1 - weight) * math.exp(special.betaln(hits + 0.5, n - hits + 0.5) - special.betaln(0.5, 0.5))
    fit = special.xlogy(hits, p) + special.xlog1py(n - hits, -p)
    return math.log(spread + (weight if hits == 0 else 0.0)) - fit


@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from((0.0, 0.75)), st.sampled_from((0.0125, 0.05)))
@settings(max_examples=40, deadline=None)
def test_a_rate_interval_is_what_a_fine_grid_of_rates_does_not_refute(n, part, weight, alpha):
    hits = round(n * part)
    low, high = bernoulli.rate_interval(bernoulli.observe(n, hits, weight), alpha)
    grid = (np.arange(2000) + 0.5) / 2000
    kept = [p for p in grid.tolist() if log_beta_evidence(n, hits, weight, p) < -math.log(alpha)]
    assert low == pytest.approx(min(kept), abs=1 / 1000)
    assert high == pytest.approx(max(kept), abs=1 / 1000)


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0.5, 6))
@settings(max_examples=40, deadline=None)
def test_a_divergence_interval_is_what_a_fine_grid_keeps(n, part, most):
    hits = round(n * part)
    grid = (np.arange(4000) + 0.5) / 4000
    own = special.xlogy(hits, hits / n) + special.xlogy(n - hits, 1 - hits / n)
    kept = grid[own - special.xlogy(hits, grid) - special.xlog1py(n - hits, -grid) <= most]
    low, high = likelihood.divergence_interval(n, hits, most)
    assert low == pytest.approx(kept.min(), abs=1 / 2000)
    assert high == pytest.approx(kept.max(), abs=1 / 2000)


@given(st.lists(st.integers(0, 300), min_size=2, max_size=4), st.floats(0, 0.9), st.floats(0.02, 0.3))
@settings(max_examples=40, deadline=None)
def test_log_e_outside_is_the_least_over_the_margin(counts, low, width):
    shares = [1 / len(counts)] * len(counts)
    split, n = multinomial.observe([counts], shares, [15.0, 700.0]), sum(counts)
    high = min(low + width, 1.0)
    grid = np.linspace(max(low, 1e-12), min(high, 1 - 1e-12), 2001)
    rest = n - counts[0]
    own = special.xlogy(counts[0], counts[0] / max(n, 1)) + special.xlogy(rest, rest / max(n, 1))
    naive = split.log_peak + (own - special.xlogy(counts[0], grid) - special.xlog1py(rest, -grid)).min()
    assert multinomial.log_e_outside(split, 0, low, high) == pytest.approx(naive, rel=1e-3, abs=2e-2)


@given(st.integers(1, 200), st.integers(1, 200), st.floats(0, 1), st.floats(0, 1), st.sampled_from((0.0, 0.1)))
@settings(max_examples=30, deadline=None)
def test_log_e_above_is_the_least_over_all_smaller_differences(n, m, p, q, margin):
    first, second = bernoulli.observe(n, round(n * p)), bernoulli.observe(m, round(m * q))
    found = bernoulli.log_e_above(first, second, margin)
    smaller = np.linspace(margin, -0.99, 120).tolist()
    naive = min(bernoulli.log_e_difference(first, second, one) for one in smaller)
    assert max(found, 0.0) <= max(naive, 0.0) + 1e-6


def test_no_failure_in_either_arm_says_what_it_does_bound():
    """The sentence of the undecided claim gives the bound of its interval."""
    tally = tally_of([cell(30, "new"), cell(90, "old")])
    ((claim,), _) = failures.judge(tally, hypotheses(experiment()), 0.0, {"everyone": 10.0})
    assert claim.state == "undecided"
    assert 0.02 < claim.interval.high < 0.5
    assert f"at most {words.points(claim.interval.high)} more often by now, not enough to tell" in claim.sentence


def test_failures_given_exposure_are_those_of_the_e_process_of_the_arms_shares():
    chosen = experiment(phases=[{"name": "split", "route": {"old": 70, "new": 30}, "for": 45.0}])
    registered = hypotheses(chosen)
    cells = [
        cell(900, "old"),
        cell(400, "new"),
        cell(20, "old", outcome="http-503"),
        cell(60, "new", outcome="http-503"),
    ]
    (found,) = [one for one in secondary.describe(tally_of(cells), registered) if one.name.startswith("failures given")]
    logs = [
        special.betaln(k * 0.3 + 60, k * 0.7 + 20)
        - special.betaln(k * 0.3, k * 0.7)
        - 60 * math.log(0.3)
        - 20 * math.log(0.7)
        for k in registered.concentrations
    ]
    assert found.p_value == pytest.approx(len(logs) / np.exp(logs).sum(), rel=1e-6)
    assert (found.estimate, found.null_value) == (0.75, pytest.approx(0.3))
    assert 0.3 < found.low < 0.75 < found.high
    assert "in time" in found.assumption
    # Nothing is said where nothing failed, or where cohorts get different shares.
    assert not [one for one in secondary.describe(tally_of(cells[:2]), registered) if "exposure" in one.name]


def two_samples_naively(first, second, p, t_opt):
    """Every candidate, every share that it may have in each arm, and the mixture over the true share integrated."""
    spread = p * (1 - p)
    r = boundaries.best_rho(spread * t_opt, 0.05) - spread
    step = np.linspace(-14, 14, 3001)
    share = special.expit(step)
    mass = stats.beta(r / (1 - p), r / p).pdf(share) * share * (1 - share) * (step[1] - step[0])

    def evidence(n, below):
        return math.log((mass * (share / p) ** below * ((1 - share) / (1 - p)) ** (n - below)).sum())

    def least(values, x):
        low, high = sum(v < x for v in values), sum(v <= x for v in values)
        return min(evidence(len(values), below) for below in np.linspace(low, high, 201))

    return min(1.0, math.exp(-max(min(sum(least(arm, x) for arm in (first, second)) for x in {*first, *second}), 0.0)))


@pytest.mark.parametrize(("p", "shift"), [(0.5, 0), (0.5, 6), (0.8, 9), (0.8, 5), (0.3, 6)])
def test_the_two_sample_test_of_quantiles_is_the_least_evidence_against_any_common_quantile(p, shift):
    noise = np.random.default_rng(3)
    first, second = np.sort(noise.integers(0, 12, 60)), np.sort(noise.integers(shift, 12 + shift, 45))
    arms = [np.unique(arm, return_counts=True) for arm in (first, second)]
    found = quantiles.two_sample_p(*[(v.astype(float), n) for v, n in arms], p, 100)
    assert found == pytest.approx(two_samples_naively(first.tolist(), second.tolist(), p, 100), rel=1e-4)
    assert shift == 0 or found < 1


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 0.9])
def test_freedom_is_that_of_the_variance_of_as_many_independent_batches(correlation):
    """A variance estimated with k degrees of freedom has, itself, a variance of 2/k of its square."""
    runs, batches = 4000, 600
    shocks = np.random.default_rng(8).standard_normal((batches, runs)) * math.sqrt(1 - correlation**2)
    made = [shocks[0] / math.sqrt(1 - correlation**2)]
    for shock in shocks[1:]:
        made.append(correlation * made[-1] + shock)
    variances = np.var(made, axis=0, ddof=1)
    seen = 2 * variances.mean() ** 2 / variances.var()
    assert seen == pytest.approx(
        batch.freedom_of(batches, correlation), rel=4 * math.sqrt(2 / runs) + 3 / batches / (1 - correlation)
    )


def test_what_few_batches_cannot_exclude_is_what_student_and_pearson_say():
    seen = batch.Weather(20, 0.2, 3.0)
    assert seen.excluding(0.05).largest_lag == pytest.approx(0.2 + stats.t(18).ppf(0.95) / math.sqrt(20))
    assert seen.excluding(0.05).beside(batch.Weather(20, 0.5, 9.0)).errors == pytest.approx(stats.t(18).ppf(0.95))
    assert seen.unnoticed(0.05) == pytest.approx(stats.chi2(19).ppf(0.95) / 19)
    # Two thirds of a spread of three are common to a batch: their neighbours are alike by .3, and (1 + .3)/(1 − .3).
    assert seen.worth == pytest.approx(1 / (3 * (1 / 3 + 2 / 3 * 1.3 / 0.7)))
    assert batch.Weather(20, -0.3, 0.8).worth == 1


def test_an_interval_of_a_quantile_is_that_of_its_share_read_off_the_sorted_values():
    """Woodruff's in plain Python, over values and not bins; batches that are alike have what twenty would not notice.

    As fewer than 40 batches, they have 15 % on top.
    """
    random = np.random.default_rng(5)
    batches = [sorted(random.integers(200, 1024, 50).tolist()) for _ in range(20)]
    counts = np.array([[batch.count(value) for value in range(200, 1024)] for batch in batches])
    arm = Histogram(bins.bin_of(np.arange(200, 1024)), counts)
    values = sorted(itertools.chain(*batches))
    at = values[math.ceil(0.9 * len(values)) - 1]
    shares = [sum(value <= at for value in batch) / 50 for batch in batches]
    independent = math.sqrt(0.9 * 0.1 / len(values))
    assert stats.tstd(shares) / math.sqrt(20) < 0.9 * independent
    assert stats.pearsonr(shares[1:], shares[:-1]).statistic < -0.05
    for alpha in (0.05, 0.3):
        half = stats.t(19).ppf(1 - alpha / 2) * independent / (0.9 * 0.1)
        half *= 1.15 * math.sqrt(stats.chi2(19).ppf(0.95) / 19)
        ends = [1 / (1 + math.exp(-(math.log(9) + side * half))) for side in (-1, 1)]
        wanted = values[math.ceil(len(values) * ends[0]) - 1], values[math.floor(len(values) * ends[1])]
        assert woodruff.quantile_interval(arm, 0.9, alpha) == wanted


def test_forty_slow_and_fast_spells_bound_no_far_quantile_however_many_answers_they_hold():
    """.95^40 = 13 % of such runs hold none of the slowest twentieth; dealt out anew, the same values do bound it."""
    random = np.random.default_rng(7)
    counts = np.zeros((80, 40), dtype=np.int64)
    counts[np.arange(80), np.repeat(random.permutation(40), 2)] = 50
    spells = Histogram(np.arange(1100, 1140), counts)
    dealt = Histogram(spells.bins, random.multinomial(50, np.full(40, 1 / 40), 80))
    assert woodruff.quantile_interval(spells, 0.95, 0.05)[1] is None
    assert woodruff.quantile_interval(spells, 0.05, 0.05)[0] == 0
    assert None not in woodruff.quantile_interval(spells, 0.5, 0.05)
    assert None not in woodruff.quantile_interval(dealt, 0.95, 0.05)
    assert woodruff.quantile_interval(dealt, 0.05, 0.05)[0] > 0


def test_an_interval_of_a_quantile_is_not_made_of_one_batch_nor_of_what_wanders_without_end():
    steady = Histogram(np.arange(1024, 1034), np.full((40, 10), 6))
    assert woodruff.quantile_interval(steady, 0.5, 0.05) is not None
    assert woodruff.quantile_interval(Histogram(steady.bins, steady.counts[:1]), 0.5, 0.05) is None
    drift = np.zeros((40, 10), dtype=np.int64)
    drift[np.arange(40), np.arange(40) // 4] = 60
    assert woodruff.quantile_interval(Histogram(steady.bins, drift), 0.5, 0.05) is None
    few = Histogram(steady.bins, steady.counts[:2])
    assert woodruff.quantile_interval(few, 0.99, 0.05)[1] is None  # 120 values: none bounds the 99th of a hundred
