"""Loads of several machines: a master and its workers, apart or lost."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib

import gevent
import pytest

from analysis.judge import judge
from experiments.core import records
from experiments.core.errors import RecordsError
from experiments.core.home import CHECKOUT
from loadgen import transfer
from loadgen.clocks import Comparison, compared
from loadgen.crew import Crew
from loadgen.session import Closed, Division

FAST = {"arrivals": "120/s", "warmup": "0s"}


def ids(rows):
    return {row.request_id for row in rows}


def crew(load, server, port, workers, seconds, start=None):
    start = start or (lambda _number, given: load.start(*given))
    line = ["--worker", "--master-host", "127.0.0.1", "--master-port", port]
    given = [*line, *load.payloads, *load.experiment(**FAST)]
    started = [start(number, given) for number in range(workers)]
    master = load.headless(
        server, "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers",
        str(workers), "--run-time", seconds, load=FAST,
    )  # fmt: skip
    return master, started


@pytest.mark.slow
def test_a_worker_that_is_killed_is_named_and_its_arrivals_are_taken_by_the_others(server, load, port):
    started = server()
    master, workers = crew(load, started, port, 3, seconds="10s")
    load.await_rows(150)
    workers[1].kill()
    ended = load.end(master)
    shards = load.shards()
    assert [shard.complete for shard in shards].count(True) == 2
    (lost,) = [shard for shard in shards if not shard.complete]
    left = [shard for shard in shards if shard.complete]
    # The rows of the others are complete, whoever answers for it.
    assert ids(load.rows()) <= {seen.request_id for seen in started.requests()}
    assert len({seen.request_id for seen in started.requests()} - ids(load.rows())) <= 64
    # After the loss was seen, two workers send what three did.
    workers_of = {beat.workers for shard in left for beat in shard.beats}
    assert workers_of == {3, 2}
    last = max(row.intended_us for shard in left for row in shard.rows)
    tail = sorted(row.sequence for shard in left for row in shard.rows if row.intended_us > last - 1_500_000)
    assert tail == list(range(tail[0], tail[-1] + 1))
    # It is named: on the terminal, in the run, and in the report.
    assert f"worker {lost.header.client} is lost: the 2 others take its arrivals" in ended.text
    info = records.read_info(load.run())
    assert lost.header.client in info.ended.detail
    assert str(lost.path) in info.ended.detail
    report = judge(load.run())
    (check,) = [each for each in report.checks if each.name == "records complete"]
    assert f"{lost.path.name} of worker {lost.header.client}" in check.sentence
    assert not report.records.complete


@pytest.mark.slow
def test_a_worker_that_ends_in_order_leaves_its_arrivals_to_the_others(server, load, port):
    started = server()
    master, workers = crew(load, started, port, 3, seconds="8s")
    load.await_rows(150)
    workers[1].terminate()
    ended = load.end(master)
    assert ended.code == 0, ended.text
    shards = load.shards()
    assert [shard.complete for shard in shards] == [True] * 3
    assert ids(load.rows()) == {seen.request_id for seen in started.requests()}
    (early,) = [shard for shard in shards if {beat.workers for beat in shard.beats} == {3}]
    # From little after it left on, two workers send what three did.
    last = max(row.intended_us for row in load.rows())
    since = max(row.intended_us for row in early.rows) + 3_000_000
    tail = sorted(row.sequence for row in load.rows() if since < row.intended_us < last - 1_000_000)
    assert len(tail) > 100
    assert tail == list(range(tail[0], tail[-1] + 1))
    assert f"worker {early.header.client} has left: the 2 others take its arrivals" in ended.text
    (note,) = records.read_info(load.run()).departed
    assert "left in order after" in note
    assert early.header.client in note
    assert note in judge(load.run()).remarks


@pytest.mark.slow
def test_a_worker_that_stood_still_and_comes_back_sends_nothing_twice(server, load, port):
    started = server()
    master, workers = crew(load, started, port, 3, seconds="14s")
    load.await_rows(150)
    workers[1].send_signal(signal.SIGSTOP)
    time.sleep(7)  # until well after the others have taken its part
    workers[1].send_signal(signal.SIGCONT)
    ended = load.end(master)
    assert ended.code == 0, ended.text
    assert {beat.workers for shard in load.shards() for beat in shard.beats} == {3, 2}
    # Everything that was due was sent, each once: by it, late, until the others took over; then by them.
    numbers = sorted(row.sequence for row in load.rows())
    assert numbers == list(range(len(numbers)))
    assert ids(load.rows()) == {seen.request_id for seen in started.requests()}
    checks = {check.name: check for check in judge(load.run()).checks}
    assert checks["records reconciled"].ok
    assert checks["records complete"].ok


@pytest.mark.slow
def test_a_worker_that_comes_late_takes_part(server, load, port):
    started = server()
    master, _workers = crew(load, started, port, 2, seconds="90s")
    load.await_rows(100)
    line = ["--worker", "--master-host", "127.0.0.1", "--master-port", port, *load.payloads, *load.experiment(**FAST)]
    late = load.start(*line)
    load.wait_until(lambda: [path.read_bytes().count(b"\n[") > 50 for path in load.files()] == [True] * 3, patience=40)
    # Locust has nothing for a second one, which is said.
    later = load.start(*line)
    load.wait_until(lambda: "came after the start, and Locust gives it no users" in load.said(master), patience=40)
    master.send_signal(signal.SIGINT)
    ended = load.end(master)
    assert ended.code == 0, ended.text
    assert [load.end(each).code for each in (late, later)] == [0, 0]
    shards = load.shards()
    assert [shard.complete for shard in shards] == [True] * 3
    (third,) = [shard for shard in shards if shard.header.worker >= shard.header.workers]
    numbers = sorted(row.sequence for row in load.rows())
    assert numbers == list(range(len(numbers)))
    assert f"worker {third.header.client} is there, and takes a part of the arrivals" in ended.text
    info = records.read_info(load.run())
    assert set(info.load_processes) == {shard.header.client for shard in shards}
    assert judge(load.run()).records.complete


@pytest.mark.slow
def test_a_worker_that_comes_late_with_another_experiment_is_told_so_and_ends_nothing(server, load, port):
    master, _workers = crew(load, server(), port, 1, seconds="90s")
    load.await_rows(50)
    line = ["--worker", "--master-host", "127.0.0.1", "--master-port", port, *load.payloads]
    load.start(*line, *load.experiment("other", arrivals="99/s"))
    load.wait_until(lambda: "another experiment than its master" in load.said(master), patience=40)
    before = len(load.rows())
    load.await_rows(before + 100)
    master.send_signal(signal.SIGINT)
    ended = load.end(master)
    assert ended.code == 0, ended.text
    (said,) = [line for line in ended.text.splitlines() if "another experiment than its master" in line]
    assert said.endswith("It came after the start, and takes no part.")
    assert judge(load.run()).records.complete


@pytest.fixture
def elsewhere(load):
    """Starts workers that do not see the master's run directories: each in a mount namespace of its own."""
    unshare = shutil.which("unshare")
    probe = unshare and subprocess.run([unshare, "-m", "true"], capture_output=True, check=False)
    if not probe or probe.returncode:
        pytest.skip("a mount namespace needs root")

    def start(number, given):
        own = load.folder / f"machine-{number}"
        own.mkdir()
        load.runs.mkdir(exist_ok=True)
        script = f'mount --bind "{own}" "{load.runs}" && exec "$@"'
        command = [sys.executable, "-m", "locust", "-f", str(CHECKOUT / "loadgen" / "canary.py"), *given]
        child = subprocess.Popen(
            [unshare, "-m", "sh", "-c", script, "sh", *command],
            stdin=subprocess.DEVNULL, stdout=(log := (own / "log").open("w+b")), stderr=subprocess.STDOUT,
            cwd=load.folder, env=load.environment, start_new_session=True,
        )  # fmt: skip
        child.log = log
        load.children.append(child)
        return child

    return start


@pytest.mark.slow
def test_records_of_other_machines_come_to_the_master(server, load, port, elsewhere):
    started = server()
    master, workers = crew(load, started, port, 2, seconds="4s", start=elsewhere)
    ended = load.end(master)
    assert ended.code == 0, ended.text
    assert [load.end(each).code for each in workers] == [0, 0]
    assert [shard.complete for shard in load.shards()] == [True, True]
    assert ids(load.rows()) == {seen.request_id for seen in started.requests()}
    assert len(load.run().outputs()) == 2
    for number in range(2):
        (kept,) = (load.folder / f"machine-{number}").glob("*/*/requests-*")
        assert kept.read_bytes() == (load.run().path / kept.name).read_bytes()


@pytest.mark.slow
def test_a_worker_of_another_machine_that_is_killed_leaves_a_way_to_its_records(server, load, port, elsewhere):
    master, workers = crew(load, server(), port, 2, seconds="8s", start=elsewhere)
    load.wait_until(lambda: list((load.folder / "machine-0").glob("*/*/requests-*")))
    workers[0].kill()
    load.end(master)
    info = records.read_info(load.run())
    assert "its records: " in info.ended.detail
    (check,) = [each for each in judge(load.run()).checks if each.name == "records complete"]
    (absent,) = set(info.load_processes) - {shard.header.client for shard in load.shards()}
    assert f"nothing from worker {absent}: copy its files into the run directory" in check.sentence


@pytest.mark.slow
def test_a_worker_whose_clock_is_wrong_sends_and_records_by_the_masters(server, load, port):
    started = server()
    site = load.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import time\nreal, real_ns = time.time, time.time_ns\n"
        "time.time = lambda: real() + 7200\ntime.time_ns = lambda: real_ns() + 7_200_000_000_000\n"
    )

    def start(number, given):
        return load.start(*given, extra={"PYTHONPATH": str(site)} if number else {})

    master, _workers = crew(load, started, port, 2, seconds="4s", start=start)
    assert load.end(master).code == 0
    right, wrong = sorted(load.shards(), key=lambda shard: abs(shard.header.clock_offset_us))
    assert right.header.clock_offset_us == 0
    assert abs(wrong.header.clock_offset_us + 7_200_000_000) < 50_000
    assert wrong.header.clock_uncertainty_us < 50_000
    assert len(wrong.rows) > 100
    starts = [[row.start_us for row in shard.rows] for shard in (right, wrong)]
    assert abs(min(starts[0]) - min(starts[1])) < 1_000_000


@pytest.mark.slow
def test_a_wall_clock_that_is_set_during_the_load_moves_no_row_and_is_reported(server, load):
    site = load.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import time\nreal, real_ns, began = time.time, time.time_ns, time.monotonic()\n"
        "jump = lambda: 3600 if time.monotonic() > began + 6 else 0\n"
        "time.time = lambda: real() + jump()\ntime.time_ns = lambda: real_ns() + jump() * 10**9\n"
    )
    child = load.headless(server(), "--run-time", "8s", load=FAST, extra={"PYTHONPATH": str(site)})
    assert load.end(child).code == 0
    (shard,) = load.shards()
    starts = [row.start_us for row in sorted(shard.rows, key=lambda row: row.sequence)]
    assert max(b - a for a, b in itertools.pairwise(starts)) < 1_000_000
    checks = {check.name: check for check in judge(load.run()).checks}
    assert "was set by 3,600,0" in checks["clock steady"].sentence


def setting_the_clock(load, by_s, when):
    """The environment of a process whose wall clock is set as soon as a file is there."""
    site = load.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, time\nreal, real_ns = time.time, time.time_ns\n"
        f"jump = lambda: {by_s} if os.path.exists({str(when)!r}) else 0\n"
        "time.time = lambda: real() + jump()\ntime.time_ns = lambda: real_ns() + jump() * 10**9\n"
    )
    return {"PYTHONPATH": str(site)}


@pytest.mark.slow
def test_a_clock_that_is_set_between_connecting_and_the_start_is_compared_again(server, load, port):
    when = load.folder / "now"
    extra = setting_the_clock(load, 30, when)
    worker = ["--worker", "--master-host", "127.0.0.1", "--master-port", port, *load.payloads, *load.experiment(**FAST)]
    master = load.headless(
        server(), "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2",
        "--run-time", "3s", load=FAST,
    )  # fmt: skip
    load.start(*worker, extra=extra)
    time.sleep(6)  # it has connected, and compared
    when.touch()
    load.start(*worker)
    assert load.end(master).code == 0
    right, wrong = sorted(load.shards(), key=lambda shard: abs(shard.header.clock_offset_us))
    assert abs(wrong.header.clock_offset_us + 30_000_000) < 50_000
    starts = [[row.start_us for row in shard.rows] for shard in (right, wrong)]
    assert abs(min(starts[0]) - min(starts[1])) < 1_000_000


@pytest.mark.slow
def test_a_master_whose_clock_is_set_divides_the_arrivals_of_a_lost_worker_all_the_same(server, load, port):
    when = load.folder / "now"
    extra = setting_the_clock(load, 3600, when)
    line = ["--worker", "--master-host", "127.0.0.1", "--master-port", port]
    workers = [load.start(*line, *load.payloads, *load.experiment(**FAST)) for _number in range(3)]
    master = load.headless(
        server(), "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "3",
        "--run-time", "10s", load=FAST, extra=extra,
    )  # fmt: skip
    load.await_rows(150)
    when.touch()
    workers[1].kill()
    load.end(master)
    rows = [row for shard in load.shards() if shard.complete for row in shard.rows]
    last = max(row.intended_us for row in rows)
    tail = sorted(row.sequence for row in rows if row.intended_us > last - 1_500_000)
    assert len(tail) > 100
    assert tail == list(range(tail[0], tail[-1] + 1))


@pytest.mark.slow
def test_workers_that_are_forked_on_another_machine_follow_the_masters_clock(server, load, port):
    extra = setting_the_clock(load, 7200, load.folder)  # from the start
    worker = ["--worker", "--processes", "2", "--master-host", "127.0.0.1", "--master-port", port]
    load.start(*worker, *load.payloads, *load.experiment(**FAST), extra=extra)
    master = load.headless(
        server(), "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2",
        "--run-time", "3s", load=FAST,
    )  # fmt: skip
    assert load.end(master).code == 0
    offsets = [shard.header.clock_offset_us for shard in load.shards()]
    assert [abs(offset + 7_200_000_000) < 50_000 for offset in offsets] == [True, True]
    assert len(load.rows()) > 200


def test_clocks_are_compared_by_the_middle_of_a_round_trip():
    assert compared(0, 4_000_000, wall_us=1_000, master_wall_us=-8_999_000) == Comparison(-8_998_000, 2_000)
    assert compared(0, 4_000_000, wall_us=1_000, master_wall_us=1_500) == Comparison(0, 2_000)


def test_a_crew_knows_who_is_lost_and_who_has_closed():
    seen = Crew({"a": 0, "b": 1, "c": 2})
    assert not seen.observe(["a", "b", "c"], 1.0)
    assert seen.observe(["a", "c"], 4.0)
    seen.divide(5_000_000)
    assert seen.divisions == [Division(0, {"a": 0, "b": 1, "c": 2}), Division(5_000_000, {"a": 0, "c": 1})]
    seen.shards["b"] = "/elsewhere/requests-b-1.jsonl"
    # When the test ends, who has closed may go.
    seen.draining = True
    seen.closed["a"] = Closed(5, 5, "")
    assert seen.waiting_for() == {"c"}
    assert not seen.observe(["c"], 5.0)
    assert seen.unclosed() == [
        "worker b (part 2 of 3): lost after 4 s; its records: /elsewhere/requests-b-1.jsonl",
        "worker c (part 3 of 3): no word from it; it recorded nothing that is known",
    ]
    assert seen.departed(open_loop=True) == []
    assert seen.observe(["b", "c"], 6.0)
    # When nobody is left there is nothing to divide.
    assert not Crew({"a": 0}).observe([], 1.0)


def test_who_comes_late_takes_part_once_it_asks_and_is_named_once_where_it_does_not():
    seen = Crew({"a": 0})
    assert not seen.observe(["a", "late"], 1.0)
    assert [seen.left_out(ready, 2) for ready in (["a", "late"], ["late"], ["late"], [])] == [[], ["late"], [], []]
    seen.admit("late")
    assert seen.observe(["a", "late"], 2.0)
    seen.divide(3_000_000)
    assert seen.divisions[-1].workers == {"a": 0, "late": 1}
    assert seen.left_out(["late"], 4) == []


def test_who_closes_while_the_test_goes_on_has_left_its_part_to_the_others():
    seen = Crew({"a": 0, "b": 1, "c": 2})
    seen.closed["b"] = Closed(5, 5, "", until_us=3_900_000)
    # Even before Locust has forgotten it.
    assert seen.observe(["a", "b", "c"], 4.0)
    seen.divide(5_000_000)
    assert seen.divisions[-1].workers == {"a": 0, "c": 1}
    assert seen.waiting_for() == {"a", "c"}
    whole = "Of the load, worker b (part 2 of 3) left in order after 4 s: its records are whole"
    hole = ", its part of the arrivals of 1.1 s, until others took them, was not sent"
    assert seen.departed(open_loop=True) == [f"{whole}{hole}."]
    assert seen.departed(open_loop=False) == [f"{whole}."]


def test_files_come_whole_or_are_named(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    files = [there / "requests-h-1.jsonl", there / "outputs-h-1.jsonl"]
    files[0].write_bytes(os.urandom(600_000))
    files[1].write_bytes(b"")
    pieces = []
    sizes = transfer.Sender(files, lambda kind, data: pieces.append((kind, data))).finish()
    assert {kind for kind, _data in pieces} == {transfer.PIECE}
    assert len(pieces) == 4
    for _kind, data in pieces[:2]:
        transfer.receive(here, data)
    assert transfer.incomplete(here, sizes) == ["requests-h-1.jsonl", "outputs-h-1.jsonl"]
    for _kind, data in pieces[2:]:
        transfer.receive(here, data)
    assert transfer.incomplete(here, sizes) == []
    assert (here / "requests-h-1.jsonl").read_bytes() == files[0].read_bytes()


def test_a_file_that_grows_comes_as_it_grows(tmp_path):
    there, here = tmp_path / "requests-h-1.jsonl", tmp_path / "here"
    here.mkdir()
    there.write_bytes(b"one\n")
    sender = transfer.Sender([there], lambda _kind, data: transfer.receive(here, data))
    sender.follow()
    gevent.sleep(1.2)
    assert (here / there.name).read_bytes() == b"one\n"
    with there.open("ab") as more:
        more.write(b"two\n")
    assert sender.finish() == {there.name: 8}
    assert (here / there.name).read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("name", "offset", "why"),
    [
        ("../requests-h-1.jsonl", 0, "no file of records"),
        ("run.json", 0, "no file of records"),
        ("requests-h-1.jsonl", 0, "File exists"),
        ("requests-h-1.jsonl", 9, "a piece is missing before byte 9"),
        ("requests-h-2.jsonl", 9, "No such file"),
    ],
)
def test_a_piece_that_does_not_fit_is_refused(tmp_path, name, offset, why):
    (tmp_path / "requests-h-1.jsonl").write_bytes(b"abc")
    with pytest.raises(RecordsError, match=why):
        transfer.receive(tmp_path, {"name": name, "offset": offset, "data": zlib.compress(b"x")})
    assert (tmp_path / "requests-h-1.jsonl").read_bytes() == b"abc"
