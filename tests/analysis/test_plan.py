"""What is fixed before the load, and what is promised of it."""

import math

import msgspec
import numpy as np
import pytest

from analysis import latency, trials
from analysis.findings import SHOWN
from analysis.judge import judge
from analysis.plan import plan
from analysis.plan.command import probability
from analysis.plan.designs import compare
from analysis.plan.history import SPREAD, History, batch_variance, newest
from analysis.plan.outlook import chance_at, floor, multiple_of
from analysis.plan.power import split_chance
from analysis.plan.setting import expected, setting
from analysis.split import Counts, judge_counts
from analysis.stats.bins import bin_of
from analysis.stats.exceedances import Histogram
from analysis.trials import least
from experiments.core import hypotheses, reading
from experiments.core.errors import ExperimentError
from tests.analysis.counted import cell, tally_of
from tests.analysis.synthetic import Truth, experiment, write_run


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
def test_the_catalogue_can_decide_its_required_claims(name, tmp_path):
    outlook = plan(reading.load(name).experiment, runs=tmp_path)
    assert outlook.undecidable == ()


def test_a_load_that_is_too_small_is_told_with_what_it_takes(tmp_path):
    outlook = plan(experiment(load={"arrivals": 1.0, "warmup": 5.0}), runs=tmp_path)
    assert outlook.undecidable
    assert all(one.seconds and one.seconds > 1 for one in outlook.undecidable)
    assert "expect hold" in outlook.lines()[-1]


def one_phase(**claims):
    """A split of 70/30 alone, small enough that its claims are shown in some runs and not in others."""
    phases = [{"name": "split", "route": {"old": 70, "new": 30}, "for": 40.0}]
    return experiment(phases=phases, load={"arrivals": 8.0, "warmup": 0.0}, claims=claims)


CLOSE = one_phase(split={"tolerance": 0.095}, errors={"max_increase": 0.06}, latency={"p50": {"margin": 0.24}})


def test_the_exact_power_of_the_split_agrees_with_drawn_runs():
    here = setting(CLOSE, History(), 0.9, 100)
    claim, random = here.registered.split[0], np.random.default_rng(5)
    n, draws = round(expected(here, "split", list(CLOSE.cohorts))), 400
    counts = (random.multinomial(n, list(claim.shares.values())).tolist() for _ in range(draws))
    shown = [judge_counts(Counts(tuple(claim.shares), (tuple(one),), (0.0,)), claim, here.registered) for one in counts]
    chance = split_chance(here, claim, 1.0).value
    assert 0.2 < chance < 0.95
    error = math.sqrt(chance * (1 - chance) / draws)
    assert np.mean([one.shown for one in shown]) == pytest.approx(chance, abs=3 * error)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_predicted_powers_are_those_of_the_judge(tmp_path):
    """Whole run directories, drawn and judged: every claim is shown as often as the plan said, within 3 s.e."""
    here = setting(CLOSE, History(), 0.9, 600)
    truth, runs = Truth(sigma=SPREAD, failing={"old": 0.0, "new": 0.0}, effective_us=3_000_000), 40
    seen = dict.fromkeys((claim.id for claim in here.claims), 0)
    for seed in range(runs):
        folder = tmp_path / str(seed)
        folder.mkdir()
        for claim in judge(write_run(folder, CLOSE, truth, seed=seed)).claims:
            seen[claim.id] += claim.state == SHOWN
    for claim in here.claims:
        chance = chance_at(here, claim, 1.0)
        error = math.hypot(math.sqrt(max(chance.value * (1 - chance.value), 1 / runs) / runs), chance.error)
        assert seen[claim.id] / runs == pytest.approx(chance.value, abs=3 * error), claim.id


def test_what_is_said_to_be_needed_gives_the_power_that_was_asked_for():
    here = setting(CLOSE, History(), 0.8, 100)
    for claim in (*here.registered.split, *here.registered.latency):
        multiple = multiple_of(here, claim)
        # Enough, and not much more: with the number of coarse groups of batches, and from 40 batches on, power jumps.
        assert chance_at(here, claim, multiple).value >= 0.8 - 0.08, claim.id
        assert chance_at(here, claim, 0.75 * multiple).value < 0.8, claim.id


MEASURES = {
    "p95": {"limit": "< 1000ms"},  # 200 answers, of the canary alone
    "mean": {"margin": 9.0},  # 30 of each arm, and not the 20 of a median
}


@pytest.mark.parametrize(("measure", "fewest"), [("p95", 200), ("mean", 30)])
@pytest.mark.parametrize("canary_has_fewer", [False, True])
def test_a_plan_asks_for_the_answers_that_the_judge_asks_for(measure, fewest, canary_has_fewer):
    """Just enough answers of the arms that count, and just too few: as the judge says, so does the plan."""
    chosen = one_phase(latency={measure: MEASURES[measure]})
    here = setting(chosen, History(), 0.8, 20)
    (claim,) = here.registered.latency
    numbers = (
        {"new": fewest, "old": 15 if measure == "p95" else 500}
        if not canary_has_fewer
        else {"new": fewest - 1, "old": 500}
    )
    cells = [cell(n // 16 + (w < n % 16), arm, window=w) for arm, n in numbers.items() for w in range(16)]
    ((judged,), _) = latency.judge(tally_of([one for one in cells if one["n"]]), here.registered, {"everyone": 8.0})
    enough = least(claim) <= trials.fewest(claim, numbers["new"], numbers["old"])
    assert ("takes at least" in judged.reason) == (not enough) == canary_has_fewer
    # The plan's floor is a tenth more, as draws may have fewer.
    share = {"new": 0.3, "old": 0.7}
    counting = share["new"] if measure == "p95" else min(share.values())
    whole = expected(here, "split", list(chosen.cohorts))
    assert floor(here, claim) == pytest.approx(max(1.1 * fewest / (counting * whole), 8 / 40))


def test_a_limit_is_planned_for_without_answers_of_the_baseline():
    phases = [{"name": "split", "route": {"old": 1, "new": 99}, "for": 40.0}]
    chosen = experiment(
        phases=phases, load={"arrivals": 30.0, "warmup": 0.0}, claims={"latency": {"p95": {"limit": "< 1000ms"}}}
    )
    here = setting(chosen, History(), 0.8, 20)
    (claim,) = here.registered.latency
    assert chance_at(here, claim, 1.0).value > 0.9


@pytest.mark.slow
def test_more_canary_is_cheaper_and_the_bottleneck_is_named():
    phases = [{"name": "split", "route": {"old": 90, "new": 10}, "for": 60.0}]
    claims = {"latency": {"p50": {"margin": 0.2}}}
    chosen = experiment(phases=phases, load={"arrivals": 50.0, "warmup": 0.0}, claims=claims)
    found = compare(setting(chosen, History(), 0.9, 60))
    assert found.cheapest.weight >= 30
    assert found.cheapest.seconds < 0.6 * found.planned.seconds
    assert found.planned.bottleneck in {"latency/new/p50", "errors/new"}


@pytest.mark.slow
def test_an_earlier_run_lends_its_variance(tmp_path):
    spread = {}
    for sigma in (0.2, 0.8):
        folder = tmp_path / "runs" / "synthetic"
        run = write_run(tmp_path / str(sigma), truth=Truth(sigma=sigma, failing={"old": 0.01, "new": 0.01}))
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"20260101T00000{int(10 * sigma)}Z-aaaa"
        run.path.rename(place)
        past = newest(tmp_path / "runs", "synthetic", quick=True)
        assert past.told == place.name
        assert past.failing["old"] == pytest.approx(0.01, abs=0.006)
        here = setting(experiment(), past, 0.8, 60)
        spread[sigma] = multiple_of(here, here.registered.latency[0])
    assert spread[0.8] > 2 * spread[0.2]


def test_wandering_latency_is_found_and_takes_more_time():
    random, batches, n = np.random.default_rng(2), 40, 200
    shifts = 0.1 * random.standard_normal(batches)
    logs = 0.3 * random.standard_normal((batches, n)) + shifts[:, None]
    bins = bin_of(50_000 * np.exp(logs))
    cells, columns = np.unique(bins, return_inverse=True)
    counts = np.zeros((batches, cells.size), dtype=np.int64)
    np.add.at(counts, (np.repeat(np.arange(batches), n), columns.ravel()), 1)
    assert batch_variance(Histogram(cells, counts), 0.5) == pytest.approx(0.01, rel=0.5)
    counts = np.zeros_like(counts)
    np.add.at(counts, (np.tile(np.arange(batches), n), np.sort(columns.ravel())), 1)  # the same values in every batch
    assert batch_variance(Histogram(cells, counts), 0.5) == 0.0


@pytest.mark.parametrize("power", ["much", "40%", "100%", "-0.9"])
def test_a_power_that_cannot_be_asked_for_is_refused(power):
    with pytest.raises(ExperimentError, match="must be a chance from 50% to"):
        probability(power)
