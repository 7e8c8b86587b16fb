import contextlib
import itertools
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from analysis.judge import judge
from experiments.core import reading, records
from experiments.core.home import CHECKOUT
from experiments.core.profile import steady
from loadgen.schedule import Schedule, arrivals

SHARES = {"canary-users": 0.25, "everyone": 0.75}
FAST = {"arrivals": "100/s"}


def ids(rows):
    return {row.request_id for row in rows}


def logged_ids(server):
    return {seen.request_id for seen in server.requests()}


def test_every_prediction_is_recorded_and_sent_as_scheduled(server, load):
    started = server(failure_rate=0.2)
    ended = load.end(
        load.headless(started, "--run-time", "2s", load={"arrivals": "100/s", "pattern": "poisson", "seed": 5})
    )
    seen = {each.request_id: each for each in started.requests()}
    (shard,) = load.shards()
    # Every request that the server read has a row, and tells the same story.
    assert ids(shard.rows) == set(seen)
    assert len(shard.rows) == len(seen) > 100
    for row in shard.rows:
        there = seen[row.request_id]
        assert (row.status, row.route) == (there.status, f"split/{there.arm}")
        assert there.group == ("canary" if row.cohort == "canary-users" else "-")
        assert (row.error, row.signature is None) == (("http_5xx", True) if there.status == 503 else (None, False))
    # The rows are the schedule.
    drawn = arrivals(Schedule(steady(100), "poisson", 5, SHARES, ("cat", "dog", "owl")))
    origin = shard.header.origin_us
    for arrival, row in zip(drawn, sorted(shard.rows, key=lambda row: row.sequence), strict=False):
        assert (row.sequence, row.cohort, row.payload) == (arrival.sequence, arrival.cohort, arrival.payload)
        assert row.intended_us == origin + arrival.offset_us
        assert row.start_us >= row.intended_us - 1000
    assert shard.complete
    assert (shard.header.mode, shard.trailer.locust_requests, shard.trailer.never_sent) == ("open", len(seen), 0)
    # One output for each arm and payload.
    outputs = list(records.read_outputs(load.run().outputs()[0]))
    assert {output.signature for output in outputs} == {row.signature for row in shard.rows if row.signature}
    info = records.read_info(load.run())
    assert (info.ended.how, info.locust_requests, info.load_started_us) == ("completed", len(seen), origin)
    assert info.hypotheses
    assert any("no stack" in note for note in info.notes)
    # A failed prediction is a result: the load itself went well, and Locust's own table shows the cohorts.
    assert ended.code == 0
    assert "predict [canary-users]" in ended.text
    assert f"python -m analysis report {load.run().path}" in ended.text


def test_two_processes_divide_the_schedule_whoever_has_locusts_port(server, load):
    started = server()
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # somebody else's Locust has it already
            taken.bind(("127.0.0.1", 5557))
            taken.listen()
        divide(started, load)


def divide(started, load):
    child = load.headless(started, "--run-time", "60s", "--processes", "2")
    # On a busy machine a process may begin seconds after the other: the load ends when both have sent enough.
    load.wait_until(
        lambda: [each.read_bytes().count(b"\n[") > 25 for each in load.files()] == [True, True], patience=60
    )
    child.send_signal(signal.SIGINT)
    ended = load.end(child)
    shards = load.shards()
    assert ended.code == 0, ended.text
    assert [shard.complete for shard in shards] == [True, True]
    assert ids(load.rows()) == logged_ids(started)
    for shard in shards:
        # Every second arrival from its first on, each once; what was due and not sent is counted.
        sent = sorted(row.sequence for row in shard.rows)
        assert sent == list(range(shard.header.worker, 2 * len(sent), 2))
        assert shard.trailer.scheduled == len(sent) + shard.trailer.never_sent
    assert sorted(shard.header.worker for shard in shards) == [0, 1]
    assert records.read_info(load.run()).locust_requests == len(load.rows())


@pytest.mark.parametrize(
    ("number", "processes"),
    [
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow),
        (signal.SIGINT, 2),
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
    ],
)
def test_a_signal_lets_requests_in_flight_finish(server, load, number, processes):
    started = server(delay=0.4)
    child = load.headless(started, "--run-time", "60s", *(["--processes", "2"] if processes > 1 else []))
    load.await_rows(20)
    os.kill(child.pid, number)
    ended = load.end(child)
    assert ended.code == 0, ended.text
    assert "Traceback" not in ended.text
    assert [shard.complete for shard in load.shards()] == [True] * processes
    assert ids(load.rows()) == logged_ids(started)
    assert not any(row.error for row in load.rows())
    assert records.read_info(load.run()).ended.how == "completed"


@pytest.mark.slow
def test_a_second_interrupt_does_not_wait(server, load):
    child = load.headless(server(delay=8.0), "--run-time", "60s")
    load.wait_until(lambda: list(load.runs.glob("*/*/requests-*")))
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    ended = load.end(child, patience=3)
    assert ended.code == 130
    assert "stopped at once" in ended.text
    assert "Traceback" not in ended.text
    assert not load.shards()[0].complete


@pytest.mark.slow
def test_workers_close_their_shards_when_their_master_is_killed(server, load, left_over):
    started = server()
    child = load.headless(started, "--run-time", "60s", "--processes", "2")
    load.await_rows(50)
    child.kill()
    load.wait_until(lambda: not left_over(load.home))
    assert [shard.complete for shard in load.shards()] == [True, True]
    assert ids(load.rows()) == logged_ids(started)
    assert records.read_info(load.run()).ended is None


def kill_at_a_random_moment(server, load, moment):
    started = server(delay=0.03)
    child = load.headless(started, "--run-time", "60s", load={"arrivals": "200/s", "slots": 12})
    load.await_rows(1)
    time.sleep(moment)
    child.kill()
    child.wait()
    time.sleep(0.2)
    (shard,) = load.shards()
    lost = logged_ids(started) - ids(shard.rows)
    assert ids(shard.rows) <= logged_ids(started)
    assert len(lost) <= judge(load.run()).records.lost_at_most <= 12
    assert not shard.complete
    assert shard.trailer is None
    load.kill()


def test_a_killed_load_loses_only_what_was_in_flight(server, load):
    kill_at_a_random_moment(server, load, random.Random(1).uniform(0, 1.5))


def test_a_load_that_is_killed_before_its_first_beat_says_what_it_may_have_lost(server, load):
    started = server(delay=0.5)
    child = load.headless(started, "--run-time", "60s", load={"arrivals": "200/s", "slots": 12})
    load.wait_until(lambda: any(b'"users":12' in path.read_bytes() for path in load.files()))
    child.kill()
    child.wait()
    time.sleep(0.2)
    assert not [beat for shard in load.shards() for beat in shard.beats if beat.cpu is not None]
    lost = logged_ids(started) - ids(load.rows())
    assert len(lost) <= judge(load.run()).records.lost_at_most == 12


@pytest.mark.slow
def test_a_closed_loop_that_is_killed_lost_no_more_than_its_users_had_sent(server, load):
    started = server(delay=0.2)
    child = load.headless(started, "--users", "7", "--spawn-rate", "7", "--closed-loop", "--run-time", "60s")
    load.await_rows(20)
    child.kill()
    child.wait()
    time.sleep(0.4)
    lost = logged_ids(started) - ids(load.rows())
    assert 0 < len(lost) <= judge(load.run()).records.lost_at_most == 7


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_again_and_again(server, load, seed):
    kill_at_a_random_moment(server, load, random.Random(seed + 100).uniform(0, 2))


@pytest.mark.slow
def test_a_frozen_server_shows_in_the_latency_from_the_intended_start(server, load):
    started = server()
    child = load.headless(started, "--run-time", "5s", load={"arrivals": "100/s", "slots": 40, "warmup": "0s"})
    load.await_rows(100)
    with started.frozen():
        frozen_at = time.time()
        time.sleep(2)
    thawed_at = time.time()
    ended = load.end(child)
    (shard,) = load.shards()
    # What each arrival must have waited: until the thaw if it came during the freeze, else nothing.
    truth = [max(0.0, thawed_at - row.intended_us / 1e6) * (row.intended_us / 1e6 > frozen_at) for row in shard.rows]
    intended = [(row.start_us - row.intended_us + row.latency_us) / 1e6 for row in shard.rows]
    for quantile in (0.9, 0.95, 0.99):
        assert np.quantile(intended, quantile) == pytest.approx(np.quantile(truth, quantile), abs=0.15)
    # 40 slots were not enough for 2 s at 100/s: the rest queued, in the open. A beat comes once a second: one of them
    # fell at least 0.6 s after the slots had run out.
    assert max(beat.backlog for beat in shard.beats) > 50
    assert max(beat.in_flight for beat in shard.beats) == 40
    stalled = [beat for beat in shard.beats if beat.in_flight == 40]
    assert all(beat.watermark_us < beat.at_us for beat in stalled)
    # The report names the slots and the service, not the generator.
    assert shard.trailer.starved > 100
    (check,) = [each for each in judge(load.run()).checks if each.name == "load generator keeps up"]
    assert "The service answered more slowly than requests arrived" in check.sentence
    assert "all 40 slots busy" in check.sentence
    assert ids(shard.rows) == logged_ids(started)
    assert ended.code == 0


@pytest.mark.slow
def test_the_closed_loop_waits_for_its_answers(server, load):
    started = server(delay=0.02)
    child = load.headless(started, "--users", "8", "--spawn-rate", "8", "--closed-loop", "--run-time", "1s")
    ended = load.end(child)
    (shard,) = load.shards()
    assert "closed loop" in ended.text
    assert shard.header.mode == "closed"
    assert {row.intended_us for row in shard.rows} == {None}
    assert ids(shard.rows) == logged_ids(started)
    assert sorted(row.sequence for row in shard.rows) == list(range(len(shard.rows)))
    # Eight users, six of everyone and two of the canary's, each on a connection of its own.
    assert len({seen.connection for seen in started.requests()}) == 8
    share = sum(row.cohort == "canary-users" for row in shard.rows) / len(shard.rows)
    assert share == pytest.approx(0.25, abs=0.05)


@pytest.mark.slow
def test_tags_choose_cohorts_of_the_schedule(server, load):
    started = server()
    load.end(load.headless(started, "--run-time", "1s", "--tags", "canary-users"))
    drawn = arrivals(Schedule(steady(100), "constant", 1, SHARES, ("cat", "dog", "owl")))
    wanted = [each.sequence for each in itertools.islice(drawn, 50) if each.cohort == "canary-users"]
    assert sorted(row.sequence for row in load.rows())[: len(wanted)] == wanted
    assert {seen.group for seen in started.requests()} == {"canary"}


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["garbage", "reset"])
def test_broken_answers_have_their_class(server, load, behaviour):
    started = server(behaviour=behaviour)
    ended = load.end(load.headless(started, "--run-time", "1s"))
    rows = load.rows()
    assert ids(rows) == logged_ids(started)
    classes = {row.error for row in rows}
    assert classes == ({None, "reset"} if behaviour == "reset" else {"undecodable"})
    assert ended.code == 0


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_full_disk_ends_the_load_at_once(server, load, processes):
    several = ["--processes", "2"] if processes > 1 else []
    child = load.headless(
        server(), "--run-time", "60s", *several, preexec_fn=limit_file_size, load={"arrivals": "400/s"}
    )
    ended = load.end(child)
    lines = [line for line in ended.text.splitlines() if "cannot be written" in line]
    assert ended.code == 2, ended.text
    assert len(lines) == 1
    assert "requests-" in lines[0]
    assert "Traceback" not in ended.text
    # What was written before stays readable.
    full = [shard for shard in load.shards() if shard.trailer is None]
    assert full
    assert all(len(shard.rows) > 50 for shard in full)
    assert records.read_info(load.run()).ended.how == "failed"


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 256 KB, where we may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None:
        pytest.skip("there is no mount command")
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield place
    subprocess.run([unmount, str(place)], check=True)


@pytest.mark.slow
def test_a_read_only_disk_is_refused_before_the_first_request(server, load, tiny_disk):
    subprocess.run([shutil.which("mount") or "", "-o", "remount,ro", str(tiny_disk)], check=True)
    started = server()
    ended = load.end(load.headless(started, "--run-time", "5s", "--runs", str(tiny_disk)))
    assert ended.code == 2, ended.text
    assert ended.text.count("Read-only file system; use --runs DIR to name another place.") == 1
    assert "Traceback" not in ended.text
    assert not started.requests()


@pytest.mark.slow
def test_a_saturated_generator_makes_the_run_invalid_and_says_what_to_do(server, load):
    # More than any process here can send: the server answers at once, and the rate is not reached.
    given = load.experiment(arrivals="20000/s", warmup="0s", slots=200)
    Path(given[1]).write_text(f"{Path(given[1]).read_text()}attribution: route-header\n")
    child = load.start(
        "--headless", "--only-summary", "--host", server().url, *load.payloads, *given, "--run-time", "8s"
    )
    assert load.end(child).code == 0
    load.write_journal()
    report = judge(load.run())
    (check,) = [each for each in report.checks if each.name == "load generator keeps up"]
    (shard,) = load.shards()
    seconds = [beat for beat in shard.beats if beat.cpu is not None]
    saturated = sum(beat.cpu >= 0.9 for beat in seconds)
    lagging = sum(beat.lag_us >= 100_000 for beat in seconds)
    assert not check.ok
    assert f"Sent and due, a second: {shard.path.name}" in check.sentence
    # On a machine where somebody else had the core, the slots are what ran out.
    limit = max(0.1 * len(seconds), 1)
    assert ("The generator was the bottleneck" in check.sentence) == (max(saturated, lagging) > limit)
    assert "--processes N" in check.sentence or "slots" in check.sentence
    # Latency may not be judged, and so neither may the run; nothing else kept it from being judged.
    assert report.verdict.word == "invalid"
    assert check.sentence in report.verdict.sentence
    assert {claim.state for claim in report.claims if claim.kind == "latency" and claim.required} == {"void"}
    assert "void" not in {claim.state for claim in report.claims if claim.kind in ("split", "errors")}


@pytest.mark.slow
def test_a_really_full_disk(server, load, tiny_disk):
    child = load.headless(
        server(), "--run-time", "60s", "--runs", str(tiny_disk), load={"arrivals": "1000/s", "slots": 20}
    )
    ended = load.end(child)
    assert ended.code == 2, ended.text
    assert ended.text.count("No space left on device") == 1
    (path,) = tiny_disk.glob("*/*/requests-*")
    shard = records.read_shard(path)
    assert not shard.complete
    assert len(shard.rows) > 500


def test_a_conductors_run_directory_is_used_and_left_to_it(server, load):
    started = server()
    experiment = reading.load(load.experiment(arrivals="50/s")[1]).experiment
    given = records.RunDir(load.runs / "small" / "given")
    given.path.mkdir(parents=True)
    before = records.RunInfo(1, "given", reading.to_mapping(experiment), reading.experiment_hash(experiment), 0, "test")
    records.write_json(given.info, before)
    child = load.headless(
        started, "--run-time", "1s", extra={"SPLITPROOF_RUN": str(given.path)}, load={"arrivals": "10/s"}
    )
    assert load.end(child).code == 0
    after = records.read_info(given)
    (shard,) = load.shards()
    assert shard.complete
    # The experiment is the one that the conductor wrote down, whatever else is named.
    assert (shard.header.run, shard.header.experiment_hash) == ("given", before.experiment_hash)
    assert (after.ended, after.locust_requests) == (None, len(shard.rows))
    assert len(shard.rows) > 20
    assert not given.journal.exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--host", "http://127.0.0.1:1"], "cannot be reached: Connection refused"),
        (["--host", "HOST", "--runs", "BODY/x"], "Not a directory"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(server, load, arguments, line):
    words = {"BODY/x": f"{load.payloads[1]}/x", "HOST": server().url}
    given = [words.get(word, word) for word in arguments]
    quiet = ["--headless", "--loglevel", "ERROR", "--only-summary"]
    ended = load.end(load.start(*quiet, *load.payloads, *load.experiment(), *given))
    tables = ("note:", "Response", "Type")
    said = [each for each in ended.text.splitlines() if each and "|" not in each and not each.startswith(tables)]
    assert ended.code == 2, ended.text
    assert len(said) == 1, ended.text
    assert line in said[0]
    assert not list(load.runs.glob("*/*"))


def test_a_refusal_leaves_no_forked_process(load, left_over):
    ended = load.end(load.start("--headless", "--processes", "2", "--experiment", "nonesuch"))
    assert ended.code == 2
    assert left_over(load.home) == []


def test_listing_needs_no_stack(load):
    listed = load.end(load.start("--list", *load.experiment(), *load.payloads))
    assert {"Arrivals", "Everyone", "CanaryUsers"} <= set(listed.text.split())
    assert listed.code == 0


def test_it_starts_from_any_folder_without_being_installed(server, load):
    started = server()
    program = (
        "import sys; from pathlib import Path;"
        f"sys.path[:] = [each for each in sys.path if Path(each or '.').resolve() != Path({str(CHECKOUT)!r})];"
        "from locust.main import main; main()"
    )
    done = subprocess.run(
        [
            sys.executable, "-c", program, "-f", str(CHECKOUT / "loadgen" / "canary.py"), "--headless", "--run-time",
            "1s", "--host", started.url, *load.payloads, *load.experiment(**FAST),
        ],
        cwd="/", env=load.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ids(load.rows()) == logged_ids(started)


def test_nothing_in_the_folder_of_the_locustfile_hides_a_module_of_pythons():
    # Locust puts that folder before all others.
    names = {path.stem for path in Path(CHECKOUT, "loadgen").iterdir() if not path.stem.startswith("__")}
    assert not names & set(sys.stdlib_module_names)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
def test_a_master_and_workers_started_apart(server, load):
    started, port = server(), free_port()
    worker = ["--worker", "--master-host", "127.0.0.1", "--master-port", port, *load.payloads, *load.experiment(**FAST)]
    workers = [load.start(*worker), load.start(*worker)]
    master = load.headless(
        started, "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2",
        "--run-time", "2s",
    )  # fmt: skip
    assert load.end(master).code == 0
    assert [load.end(each).code for each in workers] == [0, 0]
    assert [shard.complete for shard in load.shards()] == [True, True]
    assert ids(load.rows()) == logged_ids(started)


@pytest.mark.slow
def test_a_worker_with_another_experiment_is_refused(server, load):
    started, port = server(), free_port()
    load.start(
        "--worker", "--master-host", "127.0.0.1", "--master-port", port, *load.payloads,
        *load.experiment("other", arrivals="99/s"),
    )  # fmt: skip
    master = load.headless(
        started, "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--run-time", "30s"
    )
    ended = load.end(master)
    assert ended.code == 2, ended.text
    assert "another experiment than its master" in ended.text
    assert not started.requests()


def test_locusts_page_starts_and_stops_runs_of_their_own(server, load, page):
    started = server()
    child, call = page(started.url)
    assert "how many requests may be in flight at once" in call("/experiment/look")
    for count in (1, 2):
        call("/swarm", b"user_count=20&spawn_rate=20")
        load.wait_until(lambda count=count: len(list(load.runs.glob("*/*/requests-*"))) == count)
        time.sleep(1)
        call("/stop", b"")
    child.send_signal(signal.SIGINT)
    ended = load.end(child)
    assert ended.code == 0, ended.text
    runs = [records.RunDir(path) for path in load.runs.glob("*/*")]
    shards = [records.read_shard(path) for run in runs for path in run.shards()]
    assert len(runs) == len(shards) == 2
    assert all(shard.complete and shard.header.mode == "open" and len(shard.rows) > 50 for shard in shards)
    assert ids(row for shard in shards for row in shard.rows) == logged_ids(started)
    # The users of the form are slots; that is said, and written down.
    assert [shard.header.slots for shard in shards] == [20, 20]
    assert ended.text.count("20 users from Locust's page: arrivals come from the experiment's load") == 2


@pytest.mark.slow
def test_slots_that_are_stopped_at_the_page_take_no_arrival_away(server, load, page):
    started = server(delay=0.02)
    child, call = page(started.url)
    for count in (30, 4, 25, 3, 30):
        call("/swarm", f"user_count={count}&spawn_rate=100".encode())
        time.sleep(1.5)
    child.send_signal(signal.SIGINT)
    ended = load.end(child)
    assert ended.code == 0, ended.text
    (shard,) = load.shards()
    numbers = sorted(row.sequence for row in shard.rows)
    assert len(numbers) > 300
    assert numbers == list(range(len(numbers)))
    assert ids(shard.rows) == logged_ids(started)
    assert shard.header.slots == max(beat.users for beat in shard.beats) == 30


def test_a_host_that_is_typed_into_locusts_page_and_cannot_be_asked(server, load, page):
    child, call = page(server().url)
    call("/swarm", b"user_count=5&spawn_rate=5&host=http%3A%2F%2Fa..b%3A80")
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    ended = load.end(child)
    assert ended.code == 2, ended.text
    assert ended.text.count("--host http://a..b:80: a..b can be no host's name") == 1
    assert "Traceback" not in ended.text
    assert not load.files()
