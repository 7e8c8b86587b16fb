"""Intervals beside the claims: what any valid one must do, and a second way to work each out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.stats import quantiles, ranks


@given(st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]), st.integers(1, 400))
def test_no_value_bounds_a_quantile_that_all_may_lie_below(quantile, n):
    """All n values lie below the quantile with chance p^n: while that is above alpha, no upper end can be valid."""
    low, high = quantiles.quantile_sequence(np.arange(1.0, n + 1), np.ones(n), quantile, 0.05, 100)
    assert high is None or quantile**n <= 0.05
    assert low is None or (1 - quantile) ** n <= 0.05
    mirrored = quantiles.quantile_sequence(np.arange(1.0, n + 1), np.ones(n), 1 - quantile, 0.05, 100)
    assert mirrored[0] == (None if high is None else n + 1 - high)


def test_bounds_come_when_there_are_enough_values():
    ends = [quantiles.quantile_sequence(np.arange(1.0, n + 1), np.ones(n), 0.99, 0.05, 100)[1] for n in (300, 3000)]
    assert ends[0] is None
    assert 0.99 * 3000 < ends[1] < 3000


def overlapping(n, m, factor, seed):
    random = np.random.default_rng(seed)
    first, second = random.lognormal(0, 0.3, n), factor * random.lognormal(0, 0.3, m)
    edges = np.unique(np.concatenate([first, second]))
    return [np.searchsorted(edges, values) for values in (first, second)], edges.size


@pytest.mark.parametrize(("n", "m", "factor"), [(40, 25, 1.0), (140, 60, 3.0), (30, 20, 0.5)])
def test_interval_of_superiority_on_a_grid(n, m, factor):
    """Newcombe 2006, method 5, by trying every candidate; the other on the log odds, from scipy's statistic."""
    (first, second), size = overlapping(n, m, factor, 5)
    found = ranks.brunner_munzel(np.bincount(first, minlength=size), np.bincount(second, minlength=size))
    low, high = ranks.superiority_interval(found, n, m, 0.05)
    at, z, half = found.estimate, stats.norm.isf(0.025), (n + m) / 2 - 1
    theta = np.linspace(0, 1, 200_001)[1:-1]
    variance = theta * (1 - theta) * (1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / (n * m)
    kept = theta[np.abs(at - theta) <= z * np.sqrt(variance)]
    error = (at - 0.5) / -stats.brunnermunzel(second, first).statistic
    reach = stats.t.isf(0.025, found.freedom) * abs(error) / (at * (1 - at))
    odds = math.log(at / (1 - at)) + np.array([-reach, reach])
    expected = 1 / (1 + np.exp(-odds))
    assert low == pytest.approx(min(kept[0], expected[0]), abs=2e-5)
    assert high == pytest.approx(max(kept[-1], expected[1]), abs=2e-5)
