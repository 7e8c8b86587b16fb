"""Requests of which nobody knows the arm: what is claimed must hold whichever way they went."""

import pytest

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
