"""Requests of which nobody knows the arm: what is claimed must hold whichever way they went."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.failures import Arm, Pair, interval, is_shown, log_e_harm
from analysis.split import Counts, judge_counts
from experiments.core.hypotheses import hypotheses
from tests.analysis.synthetic import experiment

SPLIT = [{"name": "split", "route": {"old": 70, "new": 30}, "for": 30.0}]


@pytest.fixture(scope="module")
def registered():
    return hypotheses(experiment(phases=SPLIT))


@pytest.mark.parametrize(("known", "unknown"), [((70, 30), 400), ((30, 70), 60), ((0, 1), 188), ((300, 10), 40)])
def test_a_split_is_refuted_only_if_every_way_to_give_out_unknown_requests_refutes_it(registered, known, unknown):
    (claim,) = registered.split
    every = [
        judge_counts(Counts(("old", "new"), ((known[0] + more, known[1] + unknown - more),), (0.0,)), claim, registered)
        for more in range(unknown + 1)
    ]
    found = judge_counts(Counts(("old", "new"), (known,), (float(unknown),)), claim, registered)
    # Below 0 nothing is claimed; and whole requests do not meet the best share exactly.
    assert max(found.log_e, 0) <= max(min(one.log_e for one in every), 0) + 0.05
    for arm in (0, 1):
        assert found.intervals[arm][0] <= min(one.intervals[arm][0] for one in every) + 1e-9
        assert found.intervals[arm][1] >= max(one.intervals[arm][1] for one in every) - 1e-9


def test_many_unknown_requests_do_not_refute_what_they_may_well_agree_with(registered):
    (claim,) = registered.split
    found = judge_counts(Counts(("old", "new"), ((70.0, 30.0),), (400.0,)), claim, registered)
    assert found.log_e < 0
    assert not found.shown


def every_way(pair):
    """Each way to give out the unknown requests one by one; a lost one fails or does not."""
    served = pair.unknown.requests - pair.unknown.failed
    counted = [range(int(n) + 1) for n in (pair.unknown.failed, served)]
    lost = int(pair.lost)
    for f, s in itertools.product(*counted):
        for mine in range(lost + 1):
            for mine_failed, its_failed in itertools.product(range(mine + 1), range(lost - mine + 1)):
                yield Pair(
                    Arm(pair.canary.requests + f + s + mine, pair.canary.failed + f + mine_failed),
                    Arm(
                        pair.baseline.requests + pair.unknown.requests - f - s + lost - mine,
                        pair.baseline.failed + pair.unknown.failed - f + its_failed,
                    ),
                    Arm(),
                )


def arms():
    return st.integers(0, 60).flatmap(lambda n: st.integers(0, n).map(lambda failed: Arm(n, failed)))


UNKNOWN = st.tuples(st.integers(0, 4), st.integers(0, 6)).map(lambda fs: Arm(sum(fs), fs[0]))


@given(arms(), arms(), UNKNOWN, st.integers(0, 2), st.sampled_from((0.0, 0.01, 0.1, 0.4)))
@settings(max_examples=50, deadline=None)
def test_failures_are_judged_by_the_worst_way_to_give_out_unknown_requests(canary, baseline, more, lost, margin):
    found = Pair(canary, baseline, more, float(lost))
    ways = list(every_way(found))
    assert max(log_e_harm(found, margin), 0) <= max(min(log_e_harm(way, margin) for way in ways), 0) + 1e-9
    assert not is_shown(found, margin, 0.3) or all(is_shown(way, margin, 0.3) for way in ways)


def test_unknown_successes_do_not_dilute_unknown_failures():
    """A hundred failures of nobody among 20 000 successes of nobody may all be the canary's, and the successes not."""
    found = Pair(Arm(5000), Arm(10_000), Arm(20_100, 100))
    worst = Pair(Arm(5100, 100), Arm(30_000), Arm())
    assert not is_shown(worst, 0.01, 0.0125)
    assert not is_shown(found, 0.01, 0.0125)
    assert is_shown(Pair(Arm(25_100, 100), Arm(10_000), Arm()), 0.01, 0.0125)
    assert interval(found, 0.0125).high == pytest.approx(interval(worst, 0.0125).high)
