"""Stopping at a look, on the embedded stack."""

import pytest

from experiments.core import journal, records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
PATIENCE_S = 400

EASY = ("--set", "load.warmup=1s", "--set", "claims.errors={max_increase: 5pp}", "--set", "phases.0.for=2s")


def rows_before(run, phase, watermark_us):
    """Requests of a phase that were issued before a watermark, and those after it."""
    (change,) = [each for each in journal.changes(journal.read(run.journal)) if each.phase == phase]
    starts = [row.start_us for path in run.shards() for row in records.read_shard(path).rows]
    issued = [start for start in starts if start >= change.effective_us]
    return sum(start < watermark_us for start in issued), sum(start >= watermark_us for start in issued)


def judged(report, phase):
    """Requests of a phase that the report counts, over its cohorts."""
    return sum(share["requests"] for share in report["shares"] if share["phase"] == phase and share["arm"] == "small")


def test_a_run_ends_at_the_look_that_decides_it_and_the_report_names_both(place):
    ran = place.run(
        "run", "digits", *EASY, "--until-decided", "--at-most", "100s", "--set", "phases.1.for=90s",
        "--set", "phases.2.for=90s", "--set", "claims.latency={p50: {margin: +900%, required: false}}",
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    info = records.read_info(ran.run)
    assert info.stopping.startswith("Each phase may end as soon as every required claim on it is decided")
    assert [stop.phase for stop in info.stops][-2:] == ["split", "focused"]
    assert info.stops[-1].rule == "all 5 required claims are decided"
    for stop in info.stops:
        assert stop.outcome == "decided"
        named = f"Phase {stop.phase} ended at look {stop.look}: decided: {stop.rule}."
        assert named in ran.report["remarks"]
        assert f"{stop.phase}, look {stop.look}: decided" in ran.err
    for stop in info.stops[-2:]:
        before, after = rows_before(ran.run, stop.phase, stop.watermark_us)
        # What was issued before the watermark counts, all of it; what came while the routing changed does not.
        assert judged(ran.report, stop.phase) == before > 50
        assert after > 0
    assert 5 < (info.ended.at_us - info.started_us) / 1e6 < 95


def test_latency_waits_for_its_look_and_the_maximum_ends_the_run(place):
    ran = place.run(
        "run", "digits", *EASY, "--until-decided", "--at-most", "22s", "--set", "phases.1.for=90s",
        "--set", "claims.latency={p50: {margin: +900%}}",
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert ran.code == 3, ran.err
    claims = {claim["id"]: claim for claim in ran.report["claims"]}
    # What may be decided at any look is; the registered look of latency lies beyond the maximum, however clear it is.
    assert claims["split/split/everyone+canary-users"]["state"] == "shown"
    assert claims["latency/large/p50"]["state"] == "undecided"
    assert claims["latency/large/p50"]["interval"] is None
    # Its time batches were fixed for the whole phase: what the maximum leaves of it is too short for them.
    assert "time batches are too few" in claims["latency/large/p50"]["sentence"]
    assert not [stop for stop in records.read_info(ran.run).stops if stop.phase == "split"]
    changes = [each.phase for each in journal.changes(journal.read(ran.run.journal))]
    assert changes == ["dark-launch", "split"]
