import os
import signal

import psutil
import pytest

from deploy.embedded import stack as embedded
from experiments.core import journal, records


def all_rows(run):
    return [row for path in run.shards() for row in records.read_shard(path).rows]


def test_a_healthy_run_breaks_nothing_and_says_so(healthy):
    assert healthy.code in (0, 3), healthy.err
    assert healthy.report["verdict"]["word"] in ("promote", "hold")
    required = [claim["state"] for claim in healthy.report["claims"] if claim["required"]]
    assert required
    assert set(required) <= {"shown", "undecided"}


def test_every_answer_is_attributed_and_none_contradicts_its_route(healthy):
    checks = {check["name"]: check for check in healthy.report["checks"]}
    answered = healthy.report["records"]["judged"]
    assert answered > 1000
    assert checks["answers attributed"]["sentence"] == f"all {answered:,} successful answers name their arm."
    assert checks["route header agrees"]["sentence"] == f"{answered:,} route headers agree with the outputs."


def test_a_run_directory_holds_all_that_a_verdict_needs(healthy):
    names = {path.name.split("-")[0] for path in healthy.run.path.iterdir()}
    assert {"run.json", "journal.jsonl", "references.json", "requests", "outputs", "report.json", "report.md"} <= names
    info = records.read_info(healthy.run)
    assert info.ended is not None
    assert info.ended.how == "completed"
    assert info.hypotheses
    shares = info.expectations["split"]["everyone"]["shares"]
    assert shares == pytest.approx({"small": 0.7, "large": 0.3})


def test_every_row_is_there_once(healthy):
    rows = all_rows(healthy.run)
    sequences = [row.sequence for row in rows]
    assert sorted(sequences) == list(range(len(rows)))
    assert len({row.request_id for row in rows}) == len(rows)
    assert {row.status for row in rows} == {200}


def test_each_phase_was_seen_soon_after_it_was_applied(healthy):
    changes = journal.changes(journal.read(healthy.run.journal))
    assert [change.phase for change in changes] == ["dark-launch", "split", "focused"]
    for change in changes[1:]:
        assert change.effective_us is not None
        assert change.effective_us - change.applied_us < 1_000_000


def test_rows_name_the_routing_they_met(healthy):
    phases = [row.route.partition("/")[0] for row in sorted(all_rows(healthy.run), key=lambda row: row.start_us)]
    assert set(phases) == {"dark-launch", "split", "focused"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_takes_down_what_it_put_up_and_keeps_its_records(place, short, number):
    process = place.start("run", "digits", *short)
    recorded = place.await_rows()
    process.send_signal(number)
    ran = place.finish(process)
    assert ran.code == 128 + number
    assert "Traceback" not in ran.err
    info = records.read_info(ran.run)
    assert info.ended.how == "interrupted"
    assert len(all_rows(ran.run)) >= recorded
    assert all(records.read_shard(path).complete for path in ran.run.shards())


@pytest.mark.parametrize(
    "victim", [pytest.param(victim, marks=pytest.mark.slow) for victim in ("serving", "envoy", "locust")]
)
def test_whatever_dies_the_run_ends_invalid_and_leaves_nothing(place, short, left_over, victim):
    process = place.start("run", "digits", *short)
    place.await_rows()
    marks = {"envoy": "bin/envoy", "serving": "deploy.embedded.serving", "locust": "canary.py"}
    victims = [each for each in left_over(place.home) if marks[victim] in " ".join(each.cmdline())]
    assert victims
    victims[0].send_signal(signal.SIGKILL)
    ran = place.finish(process)
    assert "Traceback" not in ran.err
    assert records.read_info(ran.run).ended.how == "failed"
    assert ran.code == 4
    assert ran.report["verdict"]["word"] == "invalid"


@pytest.mark.slow
def test_a_killed_conductor_leaves_nothing(place, short, left_over):
    process = place.start("run", "digits", *short)
    place.await_rows()
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(left_over(place.home), timeout=20)
    process.communicate()
    assert alive == []


@pytest.mark.slow
def test_a_second_run_of_the_same_experiment_is_refused(place, monkeypatch):
    monkeypatch.setenv("SPLITPROOF_HOME", str(place.home))
    with embedded.reserved("digits"):
        ran = place.run("run", "digits")
    assert ran.code == 2
    assert f"digits: a run (pid {os.getpid()}) uses its stack" in ran.err
    assert "--set name=digits-2" in ran.err
