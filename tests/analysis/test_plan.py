"""What is fixed before the load, and what is promised of it."""

import math

import msgspec
import numpy as np
import pytest

from analysis.plan import latency_chance, plan
from analysis.stats.bins import bin_of
from analysis.stats.exceedances import Histogram, quantile_ratio
from experiments.core import hypotheses, reading
from tests.analysis.synthetic import experiment


def test_hypotheses_survive_json():
    registered = hypotheses.register(experiment())
    decoded = msgspec.json.decode(msgspec.json.encode(registered))
    assert hypotheses.read(decoded) == hypotheses.hypotheses(experiment())


def test_alpha_is_spent_once():
    registered = hypotheses.hypotheses(experiment())
    parts = registered.alpha_split, registered.alpha_errors, registered.alpha_latency
    assert math.fsum(parts) == pytest.approx(registered.alpha)
    assert math.fsum(look.alpha for look in registered.looks) == pytest.approx(registered.alpha_latency)


def test_the_phase_of_comparison_has_both_arms_in_one_cohort():
    registered = hypotheses.hypotheses(experiment())
    assert {one.phase for one in registered.latency} == {"split"}
    assert not any(one.across_cohorts for one in registered.latency)
    assert registered.errors[0].phases == ["split", "focused"]


def test_cohorts_are_pooled_by_what_they_expect():
    claims = [(one.phase, one.cohorts) for one in hypotheses.hypotheses(experiment()).split]
    assert claims == [
        ("dark-launch", ["everyone", "canary-users"]),
        ("split", ["everyone", "canary-users"]),
        ("focused", ["everyone"]),
        ("focused", ["canary-users"]),
    ]


@pytest.mark.parametrize("name", [path.stem for path in reading.catalogue()])
def test_the_catalogue_can_decide_its_required_claims(name):
    outlook = plan(reading.load(name).experiment)
    assert outlook.undecidable == ()


def test_a_load_that_is_too_small_is_told_with_what_it_takes():
    outlook = plan(experiment(load={"arrivals": 1.0, "warmup": 5.0}))
    assert outlook.undecidable
    assert all(one.seconds and one.seconds > 1 for one in outlook.undecidable)
    assert "expect hold" in outlook.lines()[-1]


def test_the_normal_limit_of_latency_agrees_with_the_test_itself():
    registered = hypotheses.hypotheses(experiment(claims={"latency": {"p50": {"margin": 0.15}}}))
    claim, random = registered.latency[0], np.random.default_rng(3)
    canary, baseline, batches = 150, 350, 20

    def arm(n):
        values = 50_000 * np.exp(0.5 * random.standard_normal(n))
        bins, columns = np.unique(bin_of(values), return_inverse=True)
        counts = np.zeros((batches, bins.size), dtype=np.int64)
        np.add.at(counts, (random.integers(0, batches, n), columns), 1)
        return Histogram(bins, counts)

    shown = [quantile_ratio(arm(canary), arm(baseline), 0.5).p_below(1.15) <= 0.05 for _ in range(300)]
    expected = latency_chance(claim, (canary, baseline, batches), 0.5, 0.05)
    assert 0.3 < expected < 0.95
    assert np.mean(shown) == pytest.approx(expected, abs=0.15)
