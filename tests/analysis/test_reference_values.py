"""Every number here is somebody else's: the source stands beside it."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.stats import bernoulli, fixed, multinomial
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
