"""A failed condition voids the claims that it touches, in the phases and of the arms that it touches, and no others."""

from dataclasses import replace

import pytest

from tests.analysis.synthetic import EXPERIMENT, Truth, experiment

RATE = 100
SPLIT_BEGINS, SPLIT_ENDS = 10 * RATE, 55 * RATE


def states(report):
    return {claim.id: claim.state for claim in report.claims}


def check(report, name):
    return next(one for one in report.checks if one.name == name)


def test_answers_of_unknown_arm_void_the_claims_of_their_phase_only(judged):
    bad = judged(Truth(garbles=lambda at, _arm: SPLIT_BEGINS <= at < SPLIT_ENDS and at % 5 < 2))
    found, before = states(bad), states(judged())
    assert check(bad, "answers attributed").phases == ["split"]
    assert "of 4," in check(bad, "answers attributed").sentence
    touched = {one.id for one in bad.claims if one.phase == "split" and one.kind != "errors"}
    assert {name for name, state in found.items() if state == "void"} == touched
    assert all(found[name] == before[name] for name in found if name not in touched)


def test_a_bad_phase_is_not_hidden_by_good_ones(judged):
    """A tenth of the short dark launch is 1.5 % of the run."""
    bad = judged(Truth(garbles=lambda at, _arm: at < SPLIT_BEGINS and at % 10 == 0))
    assert check(bad, "answers attributed").phases == ["dark-launch"]
    assert states(bad)["split/dark-launch/everyone+canary-users"] == "void"
    assert states(bad)["latency/new/p50"] == "shown"


def in_turns(at, phase, _random):
    """In the split phase the canary has the last third for itself."""
    if phase != "split":
        return None
    return "new" if at - SPLIT_BEGINS > 30 * RATE else "old"


@pytest.mark.parametrize("latency", [EXPERIMENT["claims"]["latency"], {}])
def test_arms_that_are_not_concurrent_void_what_compares_them(judged, latency):
    claims = {**EXPERIMENT["claims"], "latency": latency}
    report = judged(Truth(picks=in_turns), chosen=experiment(claims=claims))
    found = check(report, "arms concurrent in split")
    assert not found.ok
    assert "new and old both answered in" in found.sentence
    for claim in report.claims:
        if claim.kind != "split" and claim.phase == "split":
            assert claim.state == "void", claim.id
    assert states(report)["split/dark-launch/everyone+canary-users"] == "shown"
    assert check(judged(), "arms concurrent in split").ok


def test_an_arm_that_dies_answers_no_more_but_fails_beside_the_other(judged):
    """Its answers are not concurrent, its failures are: that it is harmful must not be excused by its harm."""
    dies = replace(Truth(), fails=lambda at, arm: arm == "new" and SPLIT_BEGINS + 15 * RATE < at < SPLIT_ENDS)
    report = judged(dies)
    assert check(report, "arms concurrent in split").voids == ["latency"]
    assert states(report)["errors/new"] == "broken"
    assert report.verdict.word == "roll back"


def test_a_canary_that_is_not_concurrent_says_nothing_of_another(judged):
    three = {**EXPERIMENT["arms"], "arm3": {"keras": "VGG16"}}
    phases = [{"name": "split", "route": {"old": 50, "new": 25, "arm3": 25}, "for": 45.0}]

    def late(at, _phase, random):
        if at >= 30 * RATE:
            return None
        return "old" if random.random() < 0.7 else "new"

    report = judged(
        Truth(picks=late, median_ms=dict.fromkeys(three, 20.0)), chosen=experiment(arms=three, phases=phases)
    )
    found = states(report)
    assert found["errors/arm3"] == found["latency/arm3/p50"] == "void"
    assert found["errors/new"] == found["latency/new/p50"] == "shown"
