import json
import os
import subprocess
import sys

import msgspec
import pytest

from analysis import following
from analysis.following import Following
from analysis.judge import judge
from analysis.look import ENDED, LIVE, WAITING, json_schema, to_json
from analysis.looking import Looking
from experiments.core import journal, records
from experiments.core.errors import RecordsError
from experiments.core.home import CHECKOUT
from tests.analysis.replay import Replay
from tests.analysis.synthetic import Layout, Truth, experiment

SHORT = [
    {"name": "dark-launch", "route": {"old": 100, "new": 0}, "for": 8.0},
    {"name": "split", "route": {"old": 70, "new": 30}, "for": 20.0},
    {"name": "focused", "route": {"old": 50, "new": 50}, "for": 8.0},
]
HEAVY = Truth(median_ms={"old": 20.0, "new": 200.0}, sigma=1.5)
"""Latencies up to seconds: requests are in flight at every beat and over every change of phase."""


def short(**changes):
    return experiment(phases=SHORT, load={"arrivals": 60.0, "warmup": 2.0}, **changes)


def counted(rows, changes, watermark):
    """Requests by phase and arm that count at a watermark, row by row, in plain Python."""
    found = {}
    for index, change in enumerate(changes):
        until = changes[index + 1].applied_us if index + 1 < len(changes) else 2**62
        own = [row for row in rows if change.effective_us <= row.start_us < until]
        crossing = [row.start_us for row in own if row.start_us + row.latency_us >= until]
        # Those in flight at the watermark cut the period too, but from behind it.
        cut = min([until, watermark, *crossing])
        for row in own:
            if row.start_us < cut and row.start_us >= rows[0].intended_us + 2_000_000:
                arm = (row.signature or "").rpartition("-")[2]
                found[change.phase, arm] = found.get((change.phase, arm), 0) + 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_every_look_counts_what_a_plain_loop_over_the_rows_counts(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(following, "MOST_PENDING", 100)
    played = Replay(tmp_path, short(), HEAVY, Layout(workers=workers))
    looking = Looking(Following(played.run))
    everything = sorted(played.rows, key=lambda row: row.sequence)
    looked = 0
    while played.now_us < everything[-1].start_us + 5_000_000:
        played.advance(1.7)
        look = looking.look()
        if look.state == WAITING:
            continue
        looked += 1
        changes = [c for c in journal.changes(journal.read(played.run.journal)) if c.effective_us]
        expected = counted(everything, changes, look.watermark_us)
        cells = looking.following.look().evidence.tally.judged
        seen = cells.groupby(["phase", "answered"])["n"].sum().to_dict()
        assert {key: n for key, n in seen.items() if n} == expected
        assert look.report.records.judged == sum(expected.values())
    assert looked > 15


@pytest.mark.slow
def test_the_report_of_a_phase_that_was_stopped_at_a_look_says_what_the_look_said(tmp_path):
    played = Replay(tmp_path, short(claims={"latency": {}}), HEAVY)
    looking = Looking(Following(played.run))
    while played.now_us < played.entries[3].at_us + 6_000_000:
        played.advance(2.3)
        look = looking.look()
    assert look.phase == "split"
    stop = records.Stop("split", look.look, look.watermark_us, look.at_us, "decided", "for the test")
    played.stop(stop)
    played.advance(5)
    later = looking.look()
    played.finish()
    final = looking.look()
    assert final.state == ENDED
    for report in (later.report, final.report, judge(played.run)):
        at_look = [share for share in look.report.shares if share.phase == "split"]
        assert [share for share in report.shares if share.phase == "split"] == at_look
        assert at_look[0].requests > 100


def test_a_torn_line_waits_for_its_rest(tmp_path):
    played = Replay(tmp_path, short())
    looking = Looking(Following(played.run))
    played.advance(6)
    played.tear()
    assert looking.look().state == LIVE
    before = looking.following.count
    path = played.run.shards()[0]
    row = replace_row(played.rows[-1])
    whole = msgspec.json.encode(row)
    path.write_bytes(path.read_bytes()[: -len(b'[99,"half')] + whole[:20])
    state = looking.following.shards[path]
    state.tail.offset, state.tail.rest = path.stat().st_size, whole[:20]
    with path.open("ab") as file:
        file.write(whole[20:] + b"\n")
    looking.look()
    assert looking.following.count == before + 1


def replace_row(row):
    return msgspec.structs.replace(row, request_id="late")


def test_a_run_that_is_not_there_yet_is_waited_for(tmp_path):
    run = records.RunDir(tmp_path / "later")
    looking = Looking(Following(run))
    found = looking.look()
    assert (found.state, found.report) == (WAITING, None)
    assert "has no run.json yet" in found.message
    run.path.mkdir()
    played = Replay(tmp_path / "real", short())
    run.info.write_bytes(played.run.info.read_bytes())
    assert "holds no requests yet" in looking.look().message


def test_a_directory_that_vanishes_is_one_clear_line(tmp_path):
    played = Replay(tmp_path, short())
    looking = Looking(Following(played.run))
    played.advance(6)
    looking.look()
    played.run.path.rename(tmp_path / "elsewhere")
    with pytest.raises(RecordsError, match="is gone; it was removed while it was watched"):
        looking.look()


def test_a_shard_that_shrinks_is_refused(tmp_path):
    played = Replay(tmp_path, short())
    looking = Looking(Following(played.run))
    played.advance(6)
    looking.look()
    path = played.run.shards()[0]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(RecordsError, match="is shorter than it was"):
        looking.look()


@pytest.mark.slow
def test_latency_is_undecided_before_its_look_whatever_it_is(tmp_path):
    played = Replay(tmp_path, short(), Truth(median_ms={"old": 20.0, "new": 400.0}))
    looking = Looking(Following(played.run))
    states = []
    while played.now_us < played.entries[4].at_us + 4_000_000:
        played.advance(1.9)
        look = looking.look()
        if look.state == LIVE:
            claim = next(claim for claim in look.report.claims if claim.id == "latency/new/p50")
            states.append((look.phase_s if look.phase == "split" else None, claim.state))
    early = {state for age, state in states[:-3] if age is None or age < 20}
    assert early == {"undecided"}
    assert states[-1][1] == "broken"


def test_claims_that_are_due_at_once_are_each_judged_at_the_alpha_of_their_own_look(tmp_path):
    played = Replay(tmp_path, short())
    looking = Looking(Following(played.run))
    played.advance(33.0)
    looking.taken["latency/new/p50"] = 1  # its first look was before; that of p95 comes only now
    seen = looking.following.look()
    registered = seen.evidence.registered
    found = {one.id: one for one in looking._report(seen, registered.latency).claims if one.kind == "latency"}
    assert list(found) == ["latency/new/p95", "latency/new/p50"]
    for name, look in (("latency/new/p50", 1), ("latency/new/p95", 0)):
        assert found[name].interval, found[name].sentence
        assert found[name].interval.level == pytest.approx(1 - 2 * registered.looks[look].alpha / 2)
    looking.look()
    assert looking.taken == {"latency/new/p50": 2, "latency/new/p95": 1}


def test_a_process_that_falls_silent_is_not_waited_for_for_ever(tmp_path):
    played = Replay(tmp_path, short(), layout=Layout(workers=2))
    looking = Looking(Following(played.run))
    played.advance(8)
    stuck = looking.look().watermark_us
    dead = played.shards.pop()
    played.advance(14)
    assert looking.look().watermark_us < stuck + 2_000_000
    played.advance(6)
    look = looking.look()
    assert look.watermark_us > stuck + 15_000_000
    assert look.message == f"no longer waited for: {dead.path.name}"
    complete = next(check for check in look.report.checks if check.name == "records complete")
    assert not complete.ok
    assert dead.path.name in complete.sentence


def test_a_look_hears_that_the_generator_was_the_bottleneck(tmp_path):
    played = Replay(tmp_path, short())
    looking = Looking(Following(played.run))
    played.advance(9)
    (check,) = [each for each in looking.look().report.checks if each.name == "load generator keeps up"]
    assert check.ok
    for _second in range(3):
        for appender in played.files.values():
            appender.append(records.Beat(played.now_us, played.now_us, 0, cpu=0.97, lag_us=70_000))
        played.advance(1)
    (check,) = [each for each in looking.look().report.checks if each.name == "load generator keeps up"]
    assert not check.ok
    assert "used all of a core in 3 of 1" in check.sentence


def test_a_change_of_the_routing_by_somebody_else_is_told_at_the_next_look(tmp_path):
    played = Replay(tmp_path, short())
    looking = Looking(Following(played.run))
    edited_us = played.entries[3].at_us + 6_000_000
    played.entries.append(journal.Foreign(edited_us, "weights", "kubectl-edit", object="VirtualService"))
    played.advance((edited_us - played.now_us) / 1e6 - 0.1)
    before = looking.look()
    assert before.report.verdict.word != "invalid"
    played.advance(3)
    look = looking.look()
    assert sum(edited_us <= row.start_us < played.now_us for row in played.rows) < 300
    assert (look.report.verdict.word, look.report.verdict.cause) == ("invalid", "routing")
    assert "by kubectl-edit" in look.report.verdict.sentence
    played.finish()
    assert looking.look().report.verdict.cause == "routing"


def test_a_look_is_what_its_schema_says(tmp_path):
    import jsonschema

    played = Replay(tmp_path, short())
    looking = Looking(Following(played.run))
    waiting = to_json(looking.look())
    played.advance(9)
    for line in (waiting, to_json(looking.look())):
        jsonschema.validate(json.loads(line), json_schema())


def watch(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "analysis", "watch", *arguments],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_the_command_gives_the_final_report_and_its_exit_code(tmp_path):
    played = Replay(tmp_path, short())
    played.finish()
    done = watch(str(played.run.path), "--json", "--into-run")
    lines = done.stdout.splitlines()
    last = json.loads(lines[-1])
    assert last["state"] == ENDED
    assert last["report"]["verdict"]["exit_code"] == done.returncode
    assert json.loads((played.run.path / "live.json").read_text()) == last
    said = watch(str(played.run.path))
    assert "\x1b" not in said.stdout + said.stderr
    assert said.stdout[:60] == judge(played.run).verdict.sentence[:60]
    assert last["report"]["claims"] == json.loads(to_json_of(judge(played.run)))["claims"]


def to_json_of(report):
    from analysis.render.json_report import render_json

    return render_json(report)
