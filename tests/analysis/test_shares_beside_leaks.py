"""Shares of all requests beside an arm that should get nothing: two sequences may miss, and they share one alpha."""

import math

import numpy as np
import pytest

from analysis.split import BEFORE_A_HIT, OF_LEAKS, Counts, judge_counts
from analysis.stats import bernoulli, multinomial
from experiments.core.hypotheses import Hypotheses, SplitHypothesis

ARMS = ("old", "new", "none")
ALPHA = 0.2
CLAIM = SplitHypothesis("split", "p", ["c"], {"old": 0.7, "new": 0.3, "none": 0.0}, 0.05, required=True)
REGISTERED = Hypotheses(1, ALPHA, ALPHA, ALPHA, [15.0, 700.0, 1500.0], "old", [], [], [], [], {}, 8, [])


def intervals(counts):
    return judge_counts(Counts(ARMS, (tuple(map(float, counts)),), (0.0,)), CLAIM, REGISTERED).intervals


def leak(n, hits, alpha):
    if not hits:
        return 0.0, 1 - (BEFORE_A_HIT * alpha) ** (1 / n)
    return bernoulli.rate_interval(bernoulli.observe(n, hits, zero_weight=0.0), (1 - BEFORE_A_HIT) * alpha)


@pytest.mark.parametrize("counts", [(700, 300, 0), (690, 290, 20), (7, 3, 0)])
def test_a_share_beside_a_leak_takes_its_alpha_from_both_sequences(counts):
    split = multinomial.observe([counts[:2]], [0.7, 0.3], REGISTERED.concentrations)
    low, high = multinomial.share_interval(split, 0, (1 - OF_LEAKS) * ALPHA)
    least, most = leak(sum(counts), counts[2], OF_LEAKS * ALPHA)
    found = intervals(counts)
    assert found[0] == pytest.approx((low * (1 - most), high * (1 - least)))
    # The leak's own interval rests on one sequence only, and has all of alpha.
    assert found[2] == pytest.approx(leak(sum(counts), counts[2], ALPHA))


def test_with_a_single_arm_only_the_leak_can_be_missed():
    claim = SplitHypothesis("split", "p", ["c"], {"old": 1.0, "new": 0.0}, 0.0, required=True)
    found = judge_counts(Counts(("old", "new"), ((400.0, 0.0),), (0.0,)), claim, REGISTERED).intervals
    assert found[0] == pytest.approx((1 - leak(400, 0, ALPHA)[1], 1.0))


@pytest.mark.parametrize("leaks", [0.0, 0.03])
def test_a_share_beside_a_leak_is_covered_at_all_looks(leaks):
    random, runs, missed = np.random.default_rng(3), 300, 0
    true = (0.7 * (1 - leaks), 0.3 * (1 - leaks), leaks)
    for _ in range(runs):
        seen = random.multinomial([40, 160, 800], true).cumsum(axis=0)
        missed += any(not low <= true[0] <= high for low, high in (intervals(counts)[0] for counts in seen))
    assert missed / runs <= ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
