"""Runs that look well although something is wrong: none of them may be promoted, nor the wrong one blamed."""

import msgspec
import pytest

from analysis import judge as judging
from experiments.core import records
from tests.analysis.synthetic import Truth, experiment, write_run

# Arrivals are 100 a second: split runs from 10 to 55 s, so over the numbers 1 000 to 5 499.
PER_SECOND = 100
SPLIT = [{"name": "split", "route": {"old": 70, "new": 30}, "for": 50.0}]


def state(report, identifier):
    return next(claim.state for claim in report.claims if claim.id == identifier)


def within(sequence, begin, end):
    return begin * PER_SECOND <= sequence < end * PER_SECOND


def test_a_canary_that_fails_only_in_a_burst(judged):
    """Three seconds of 45: 6.7 % of its requests, where 2 points more are allowed."""
    report = judged(Truth(fails=lambda sequence, arm: arm == "new" and within(sequence, 30, 33)))
    assert state(report, "errors/new") == "broken"
    assert (report.verdict.word, report.verdict.cause) == ("roll back", "model")


@pytest.mark.slow
def test_a_canary_that_is_slow_only_in_a_burst(judged):
    """Eight seconds of 45 at five times the latency: its 95th percentile is beyond +100 %, its median is not."""
    claims = {"latency": {"p50": {"margin": 0.2}, "p95": {"margin": 1.0}}, "split": {"tolerance": 0.1}}
    truth = Truth(slower=lambda sequence, arm: 5.0 if arm == "new" and within(sequence, 30, 38) else 1.0)
    report = judged(truth, chosen=experiment(claims=claims))
    assert state(report, "latency/new/p95") != "shown"
    assert report.verdict.word != "promote"


@pytest.mark.slow
def test_a_canary_that_is_faster_because_it_fails(judged):
    truth = Truth(median_ms={"old": 20.0, "new": 4.0}, failing={"new": 0.3})
    report = judged(truth)
    assert (report.verdict.word, report.verdict.cause) == ("roll back", "model")
    assert report.verdict.because[0] == "errors/new"


@pytest.mark.slow
def test_cohorts_whose_errors_cancel(judged):
    """80 % of users get 20 % canary and 20 % get 70 %: 30 % in all, as configured."""

    def shares(phase, cohort, configured):
        if phase != "split":
            return configured
        return {"old": 0.8, "new": 0.2} if cohort == "everyone" else {"old": 0.3, "new": 0.7}

    report = judged(Truth(shares=shares), chosen=experiment(phases=SPLIT, claims={"split": {"tolerance": 0.05}}))
    assert (report.verdict.word, report.verdict.cause) == ("roll back", "routing")


@pytest.mark.slow
@pytest.mark.parametrize("period_s", [10, 25])
def test_a_split_that_is_right_only_on_average(judged, period_s):
    """60 % and none by turns: 30 % over all."""

    def picks(sequence, _phase, random):
        high = sequence // (period_s * PER_SECOND) % 2 == 1
        return "new" if high and random.random() < 0.6 else "old"

    report = judged(Truth(picks=picks), chosen=experiment(phases=SPLIT, claims={"split": {"tolerance": 0.1}}))
    assert report.verdict.word != "promote"
    assert {claim.state for claim in report.claims if claim.kind == "split"} <= {"undecided", "broken"}


@pytest.mark.slow
def test_a_canary_that_dies_on_the_way(judged):
    """From 30 s on all goes to the baseline, which answers well."""
    report = judged(Truth(picks=lambda sequence, _phase, _random: "old" if within(sequence, 30, 55) else None))
    assert report.verdict.word != "promote"


@pytest.mark.slow
def test_failures_that_do_not_say_whose_they_are(judged):
    """A tenth of the canary's requests is never heard of again: the baseline's share of them is nobody's guess."""
    report = judged(Truth(loses=lambda sequence, arm: arm == "new" and sequence % 10 == 0))
    assert state(report, "errors/new") != "shown"
    assert report.verdict.word != "promote"


@pytest.mark.slow
def test_pods_of_which_some_still_serve_the_old_model(tmp_path):
    """Every tenth answer of the canary comes from the baseline's model, under the canary's route header."""
    run = write_run(tmp_path)
    (shard,) = run.shards()
    lines = shard.read_bytes().splitlines(keepends=True)
    for index in range(1, len(lines) - 1, 10):
        row = records._row_decoder.decode(lines[index])
        if row.signature and row.signature.endswith("-new"):
            older = msgspec.structs.replace(row, signature=row.signature.replace("-new", "-old"))
            lines[index] = msgspec.json.encode(older) + b"\n"
    shard.write_bytes(b"".join(lines))
    report = judging.judge(run)
    assert report.verdict.word != "promote"
    assert "route header agrees" in [check.name for check in report.checks if not check.ok]


def test_retries_that_are_counted_twice(tmp_path):
    run = write_run(tmp_path)
    (shard,) = run.shards()
    lines = shard.read_bytes().splitlines(keepends=True)
    shard.write_bytes(b"".join([*lines[:3000], *lines[2000:3000], *lines[3000:]]))
    report = judging.judge(run)
    assert report.verdict.word == "invalid"
    assert "twice" in report.verdict.sentence or "rows, its trailer counts" in report.verdict.sentence


@pytest.mark.parametrize("rows", [0, 1])
def test_a_run_of_hardly_a_row(tmp_path, rows):
    run = write_run(tmp_path)
    (shard,) = run.shards()
    lines = shard.read_bytes().splitlines(keepends=True)
    trailer = msgspec.json.encode(records.Trailer(10**15, rows, rows, scheduled=rows)) + b"\n"
    shard.write_bytes(b"".join([lines[0], *lines[2000 : 2000 + rows], trailer]))
    report = judging.judge(run)
    assert report.verdict.word in {"hold", "invalid"}
    assert {claim.state for claim in report.claims} <= {"undecided", "void"}
