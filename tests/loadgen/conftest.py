import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.core import home, journal, reading, records, stack
from experiments.core.home import CHECKOUT

# Locust makes the whole process cooperative as it is imported, which breaks whatever was imported before. Tests that
# look at its parts in this process do without; the processes that they start get it whole.
with pytest.MonkeyPatch.context() as _patch:
    _patch.setenv("LOCUST_SKIP_MONKEY_PATCH", "yes")
    import locust  # noqa: F401

EXPERIMENT = """
model: digits_classifier
arms:
  one: {digits: {hidden: [16]}}
  two: {digits: {hidden: [32]}}
payloads: {digits: 3}
cohorts:
  everyone:     {share: 75%}
  canary-users: {share: 25%, headers: {user-group: canary}}
phases:
  - {name: split, route: {one: 50, two: 50}, for: 30s}
"""


@dataclass(frozen=True)
class Logged:
    """A request as the server saw it."""

    request_id: str
    group: str
    arm: str
    status: int
    connection: int
    path: str


class Server:
    """A child process that answers predictions."""

    def __init__(self, folder: Path, options) -> None:
        folder.mkdir()
        self.log, port_file = folder / "log", folder / "port"
        script = Path(__file__).with_name("answering_server.py")
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            [sys.executable, str(script), "--log", str(self.log), "--port-file", str(port_file), *arguments]
        )
        wait_until(lambda: port_file.exists() and port_file.read_text())
        self.url = f"http://127.0.0.1:{port_file.read_text()}"

    def requests(self):
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = [line.split(" ") for line in lines]
        return [Logged(a, b, c, int(d), int(e), f) for a, b, c, d, e, f in found]

    @contextlib.contextmanager
    def frozen(self):
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def stop(self):
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Ended:
    """A Locust that has ended."""

    code: int
    text: str


class Load:
    """Locust with our locustfile, in a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.runs = folder / "home", folder / "runs"
        self.children = []
        self.locustfile = CHECKOUT / "loadgen" / "canary.py"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SPLITPROOF_", "LOCUST_"))},
            "SPLITPROOF_HOME": str(self.home),
            "SPLITPROOF_RUNS": str(self.runs),
        }
        self.payloads = []
        for name in ("cat", "dog", "owl"):
            body = folder / f"{name}.json"
            body.write_text(json.dumps({"instances": [[len(self.payloads)] * 8]}))
            self.payloads += ["--payload", str(body)]

    def experiment(self, name="small", **load):
        path = self.folder / f"{name}.yaml"
        settings = ", ".join(f"{key}: {value}" for key, value in load.items())
        path.write_text(f"{EXPERIMENT}load: {{{settings}}}\n")
        return ["--experiment", str(path)]

    def start(self, *arguments, extra=None, cwd=None, **options):
        """Without `--headless`: what every caller wants, and what some want else."""
        out = (self.folder / f"locust-{len(self.children)}.log").open("w+b")
        child = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", str(self.locustfile), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd or self.folder,
            env={**self.environment, **(extra or {})},
            start_new_session=True,
            **options,
        )
        child.log = out
        self.children.append(child)
        return child

    def headless(self, server, *arguments, load=None, **options):
        return self.start(
            "--headless", "--only-summary", "--loglevel", "WARNING", "--host", server.url, *self.payloads,
            *self.experiment(**(load or {"arrivals": "100/s"})), *arguments, **options,
        )  # fmt: skip

    def end(self, child, patience=40):
        child.wait(patience)
        child.log.seek(0)
        return Ended(child.returncode, child.log.read().decode())

    def said(self, child):
        """What it has written so far."""
        return Path(child.log.name).read_text()

    def run(self):
        """The only run directory."""
        (found,) = self.runs.glob("*/*")
        return records.RunDir(found)

    def write_journal(self):
        """What a stack would have written of the routing, had there been one."""
        run, info = self.run(), records.read_info(self.run())
        (phase,) = reading.from_mapping(info.experiment, "run.json").phases
        at_us = info.started_us - 1_000_000
        journal.append(run.journal, journal.Applied(0, phase.name, at_us, "test", [], ["one", "two"]))
        journal.append(run.journal, journal.Effective(0, at_us + 1, 3))

    def shards(self):
        return [records.read_shard(path) for path in self.run().shards()]

    def rows(self):
        return [row for shard in self.shards() for row in shard.rows]

    def files(self):
        """The shards of all runs, as files."""
        return list(self.runs.glob("*/*/requests-*"))

    def await_rows(self, count):
        wait_until(lambda: sum(path.read_bytes().count(b"\n[") for path in self.files()) >= count)

    def kill(self):
        for child in self.children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            child.log.close()


def wait_until(true, patience=20.0):
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


Load.wait_until = staticmethod(wait_until)


@pytest.fixture
def server(tmp_path):
    """Starts servers that end with the test."""
    started = []

    def start(**options):
        started.append(Server(tmp_path / f"server-{len(started)}", options))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def load(tmp_path):
    """Locust in a home of its own; whatever runs of it at the end is ended."""
    place = tmp_path / "place"
    place.mkdir()
    started = Load(place)
    yield started
    started.kill()


@pytest.fixture
def port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def page(load, port):
    """Starts Locust with its web page; gives the child, and a way to call the page."""

    def start(host, *more):
        web = ["--web-host", "127.0.0.1", "--web-port", port, "--host", host]
        child = load.start(*web, *load.payloads, *load.experiment(arrivals="100/s"), *more)

        def call(path, data=None):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data) as answer:
                return answer.read().decode()

        def up():
            with contextlib.suppress(OSError):
                return call("/")

        load.wait_until(up)
        return child, call

    return start


@pytest.fixture
def put_up():
    """Writes the state that a stack leaves for others, as far as a load reads it, into $SPLITPROOF_HOME."""

    def write(name, bodies, *, references=True, url="http://127.0.0.1:1", models=None):
        experiment = reading.load(name).experiment
        folder = stack.StackDir(home.stack_dir(name))
        folder.payloads.parent.mkdir(parents=True)
        mapping, hashed = reading.to_mapping(experiment), reading.experiment_hash(experiment)
        info = stack.StackInfo(1, mapping, hashed, "", "embedded", url, "", [], 1, 0, models or {})
        records.write_json(folder.info, info)
        entries = {}
        for payload, body in bodies.items():
            (folder.payloads.parent / f"{payload}.json").write_text(json.dumps(body))
            entries[payload] = stack.PayloadEntry(f"{payload}.json", "", payload)
        records.write_json(folder.payloads, stack.PayloadIndex(1, entries))
        if references is not False:
            known = references if isinstance(references, dict) else {}
            records.write_json(folder.references, records.References(1, "export", known))
        return folder

    return write
