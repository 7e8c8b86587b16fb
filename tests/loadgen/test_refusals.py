"""What cannot run is refused while Locust imports the locustfile: one line, exit code 2, before any fork."""

import os
import socket
from types import SimpleNamespace

import pytest

from experiments.core import reading, records
from experiments.core.access import Access
from experiments.core.errors import RecordsError, StackError
from loadgen.assignment import Assignment
from loadgen.coordination import Coordinator
from loadgen.rundir import local_run, open_run
from loadgen.session import Order
from loadgen.startup import wire

FILE = """
model: digits_classifier
arms: {one: {digits: {hidden: [16]}}, two: {digits: {hidden: [32]}}}
payloads: {digits: 3}
cohorts:
  everyone: {share: 75%}
  canary-users: {share: 25%}
phases: [{name: split, route: {one: 50, two: 50}}]
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SPLITPROOF_", "LOCUST_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SPLITPROOF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SPLITPROOF_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "body.json").write_text('{"instances": [[1]]}')
    return tmp_path


@pytest.fixture
def taken():
    """A port on which somebody listens: something to send to, and nothing to listen on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield str(listening.getsockname()[1])


@pytest.fixture
def refused(monkeypatch, capsys):
    """Imports the locustfile as Locust would with these arguments; the line that it said in ending with 2."""

    class Hook:
        def add_listener(self, heard):
            del heard

    def imported(*arguments):
        monkeypatch.setattr("sys.argv", ["locust", *arguments])
        with pytest.raises(SystemExit) as ended:
            wire(SimpleNamespace(init_command_line_parser=Hook()))
        said = capsys.readouterr().err.strip().splitlines()
        assert ended.value.code == 2
        assert len(said) == 1
        return said[0]

    return imported


def asked(place, taken, load="{arrivals: 5/s}"):
    (place / "small.yaml").write_text(f"{FILE}load: {load}\n")
    return ["--experiment", "small.yaml", "--payload", "body.json", "--host", f"http://127.0.0.1:{taken}"]


@pytest.mark.parametrize(
    ("load", "rule"),
    [
        ("{arrivals: 0/s}", "greater than 0"),
        ("{arrivals: -5/s}", "must be a rate such as 8/s"),
        ("{arrivals: nan/s}", "must be a rate such as 8/s"),
        ("{arrivals: .nan}", "must be a rate such as 8/s"),
        ("{arrivals: inf/s}", "must be a rate such as 8/s"),
        ("{arrivals: 1000000000/s}", "100000"),
        ("{arrivals: 1e9/s}", "must be a rate such as 8/s"),
        ("{arrivals: quickly}", "must be a rate such as 8/s"),
        ("{arrivals: 8}", "must be a rate such as 8/s"),
        ("[{arrivals: 5/s..-1/s, for: 30s}]", "must be a rate such as 8/s"),
        ("[{arrivals: 5/s..1000000000/s, for: 30s}]", "must be at most 100000/s"),
    ],
)
def test_impossible_rates(place, taken, refused, load, rule):
    line = refused("--headless", *asked(place, taken, load))
    assert rule in line
    assert "small.yaml" in line
    assert "arrivals" in line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--tags", "vip"], "unknown cohort 'vip'; must be one of everyone, canary-users"),
        (["--users", "8"], "--users 8: the experiment's load has arrivals"),
        (["--users", "0", "--closed-loop"], "--users 0: must be at least 1"),
    ],
)
def test_cohorts_and_users(place, taken, refused, arguments, line):
    assert line in refused("--headless", *asked(place, taken), *arguments)


@pytest.mark.parametrize(
    "host", ["http://a..b:80", f"http://{'a' * 64}.b", "http://h/\u6a21", "http://h/a b", "http://h:0"]
)
@pytest.mark.parametrize("headless", [["--headless"], []])
def test_a_host_that_cannot_be_asked(place, taken, refused, host, headless):
    arguments = [*asked(place, taken)[:-1], host, "--web-host", "127.0.0.1", "--web-port", "0"]
    line = refused(*headless, *arguments)
    assert line.startswith(f"--host {host}: ")
    assert line.endswith("; mend it.")


def test_plain_locust_without_an_experiment(refused):
    assert "no experiment is named and no stack is up; run: python -m deploy up quickstart" in refused("--headless")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--headless", "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port"], "--master-bind-port"),
        (
            ["--headless", "--processes", "2", "--master-bind-host", "127.0.0.1", "--master-bind-port"],
            "--master-bind-port",
        ),
        (["--web-host", "127.0.0.1", "--web-port"], "--web-port"),
        (["--web-port"], "--web-port"),
    ],
)
def test_a_port_that_is_taken(place, taken, refused, arguments, option):
    line = refused(*asked(place, taken), *arguments, taken)
    assert line.startswith(f"{option} {taken}: cannot be listened on")
    assert "Address already in use" in line


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", "70000"), ("192.0.2.1", "0"), ("no.such.host.invalid", "80")])
def test_a_place_that_cannot_be_listened_on(place, taken, refused, host, port):
    assert "cannot be listened on" in refused(*asked(place, taken), "--web-host", host, "--web-port", port)


def assignment(place):
    (place / "small.yaml").write_text(FILE)
    experiment = reading.load("small.yaml").experiment
    bodies = {"body": b"{}"}
    return Assignment(
        experiment=experiment, payloads=bodies, host=None, stack=None, run=None, runs=place / "runs", run_id=None,
        access=Access(), open_loop=True, cohorts=("everyone",), notes=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"experiment_hash": "0"}, "a worker has another experiment than its master"),
        ({"payloads_hash": "0"}, "a worker has other payloads than its master"),
    ],
)
def test_a_worker_whose_experiment_was_changed_sends_nothing(place, changed, line):
    mine = assignment(place)
    said = {"experiment_hash": mine.experiment_hash, "payloads_hash": mine.payloads_hash, **changed}
    order = {"run": str(place), "origin_us": 0, "open_loop": True, "cohorts": [], "workers": {"w": 0}, **said}
    environment = SimpleNamespace(parsed_options=SimpleNamespace(splitproof_order=order))
    worker = Coordinator(mine)
    with pytest.raises(StackError, match=line):
        worker._take_order(environment)
    assert worker.session is None
    assert Order(**order).workers == {"w": 0}


def test_a_run_that_holds_records_takes_no_other_load(place):
    run = records.RunDir(place / "runs" / "small" / "given")
    run.path.mkdir(parents=True)
    given = Assignment(**{**vars(assignment(place)), "run": run})
    assert open_run(given, "http://x") is run
    records.shard_path(run.path, "host", 1).touch()
    with pytest.raises(RecordsError, match="holds the records of another load"):
        open_run(given, "http://x")


def test_where_no_run_can_be_made(place):
    (place / "runs").touch()
    mine = assignment(place)
    with pytest.raises(RecordsError, match="Not a directory"):
        open_run(mine, "http://x")
    with pytest.raises(RecordsError, match="use --runs DIR on this worker"):
        local_run(place / "gone" / "there", mine)
