"""Shares that are right for the wrong reason: taking turns, sticking to arms, changing on the way."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.draws import examine
from analysis.stats.changepoint import bernoulli_change, change_p_value, level_change, poisson_change, trend_p_value
from analysis.stats.dispersion import design_effect, over_scales, p_too_even
from tests.analysis.synthetic import Truth, experiment

EVEN = [{"name": "split", "route": {"old": 50, "new": 50}, "for": 30.0}]
SPLIT = [{"name": "split", "route": {"old": 70, "new": 30}, "for": 30.0}]


def split_claim(report):
    return next(claim for claim in report.claims if claim.kind == "split")


def picked(choose):
    return replace(Truth(), picks=lambda sequence, _phase, random: choose(sequence, random))


def test_round_robin_is_no_weighted_route(judged):
    truth = picked(lambda sequence, _: ("old", "new")[sequence % 2])
    report = judged(truth, chosen=experiment(phases=EVEN))
    claim = split_claim(report)
    assert claim.state == "void"
    assert report.verdict.word == "invalid"
    assert "take turns more evenly than any random draw" in claim.sentence
    assert any("round-robin" in one.reading for one in report.dispersions)


def sticky(requests_each):
    """Users who come one after another, each with an arm of its own, 70/30 exactly."""
    arms = np.random.default_rng(4).permutation(["old"] * 7 + ["new"] * 3)
    return picked(lambda sequence, _: str(arms[(sequence // requests_each) % 10]))


@pytest.mark.parametrize("requests_each", [40, 300])
def test_sticky_users_do_not_show_a_split(judged, requests_each):
    claim = split_claim(judged(sticky(requests_each), chosen=experiment(phases=SPLIT)))
    assert claim.interval.estimate == pytest.approx(0.3, abs=0.07)
    assert claim.state == "undecided"
    assert claim.effective < claim.requests / 10
    assert claim.interval.high - claim.interval.low > 0.2


def test_a_share_that_changed_on_the_way_is_told_with_its_moment(judged):
    truth = picked(lambda sequence, random: ("old", "new")[int(random.random() > (0.7 if sequence < 1800 else 0.3))])
    report = judged(truth, chosen=experiment(phases=SPLIT))
    (drift,) = report.drifts
    # Warm-up takes the first five seconds; arrivals are 100 a second.
    assert drift.at_s == pytest.approx(18, abs=2.6)
    assert (drift.before, drift.after) == (pytest.approx(0.3, abs=0.05), pytest.approx(0.7, abs=0.05))
    claim = split_claim(report)
    assert claim.state == "broken"
    assert "changed from" in claim.sentence


def test_healthy_draws_are_worth_what_they_are(judged):
    report = judged()
    assert all(claim.effective == claim.requests for claim in report.claims if claim.kind == "split")
    assert {drift.reading for drift in report.drifts} == {"the share stayed what it was"}


def test_false_alarms_of_the_examination():
    """200 runs of 40 windows of independent draws: never too even, seldom uneven, hardly ever changed."""
    import pandas as pd

    random, seen = np.random.default_rng(5), []
    for _ in range(200):
        hits = random.binomial(20, 0.3, 40)
        seen.append(examine(pd.DataFrame({"new": hits, "old": 20 - hits}), ["new", "old"]))
    assert sum(one.too_even for one in seen) <= 1
    assert sum(one.factor > 1 for one in seen) <= 9
    assert sum(one.changed for one in seen) <= 2


def test_design_effect_of_sessions_is_their_length():
    """Sessions of 10 requests that draw once: the variance of a share is ten times that of single requests."""
    random, found = np.random.default_rng(6), []
    for _ in range(200):
        hits = 10 * random.binomial(12, 0.3, 40)
        found.append(over_scales(hits, np.full(40, 120))[0].index)
    assert np.mean(found) == pytest.approx(10, rel=0.05)
    assert design_effect(over_scales(hits, np.full(40, 120)), 0.01) > 5


def test_index_equals_scipy_on_the_table():
    random = np.random.default_rng(7)
    hits, totals = random.binomial(30, 0.4, 25), np.full(25, 30)
    expected = stats.chi2_contingency([hits, totals - hits], correction=False)
    assert over_scales(hits, totals)[0].p_over == pytest.approx(expected.pvalue)


def test_every_extreme_is_defined():
    for hits, totals in (([], []), ([0], [0]), ([1], [1]), ([0] * 50, [9] * 50), ([9] * 50, [9] * 50)):
        assert over_scales(hits, totals) == []
        assert p_too_even([]) == 1
        assert bernoulli_change(hits, totals) is None or bernoulli_change(hits, totals).p_value == 1
        assert trend_p_value(hits, totals) is None
    huge = over_scales(np.full(20, 3e17), np.full(20, 1e18))
    assert all(np.isfinite(one.index) for one in huge)


def test_change_point_equals_a_naive_scan():
    random = np.random.default_rng(8)
    totals = random.integers(5, 40, 30)
    hits = random.binomial(totals, np.where(np.arange(30) < 11, 0.3, 0.5))

    def naive(at):
        def best(h, n):
            return stats.binom.logpmf(h, n, h.sum() / n.sum()).sum()

        return 2 * (best(hits[:at], totals[:at]) + best(hits[at:], totals[at:]) - best(hits, totals))

    part = totals.cumsum() / totals.sum()
    allowed = [at for at in range(1, 30) if 0.15 <= part[at - 1] <= 0.85]
    found = bernoulli_change(hits, totals)
    assert found.at == max(allowed, key=naive)
    assert found.statistic == pytest.approx(max(map(naive, allowed)))


def test_change_point_of_the_nile():
    # Nile at Aswan, 1871-1970 (Cobb 1978): least squares puts the change after 28 years, 1898.
    from statsmodels.datasets import nile

    assert level_change(nile.load_pandas().data["volume"].to_numpy()).at == 28


def test_change_point_of_the_coal_mines():
    # Jarrett 1979: 127 disasters in the 41 years to 1891, 64 in the 71 years after; the likelihood ratio is 69.99.
    found = poisson_change([127, 64], [41, 71])
    assert (found.at, found.statistic) == (1, pytest.approx(69.99, abs=0.005))


def test_critical_values_of_andrews():
    # Andrews 2003, table I, one parameter, 15 % trimmed: 8.68 at 5 %, 12.16 at 1 %.
    assert change_p_value(8.68) == pytest.approx(0.05, abs=0.006)
    assert change_p_value(12.16) == pytest.approx(0.01, abs=0.002)
