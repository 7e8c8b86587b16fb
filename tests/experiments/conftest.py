import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.core import records
from experiments.core.home import CHECKOUT

# Eight seconds on a busy machine say little of latency: here it must neither break nor be required.
LENIENT = "claims.latency={p50: {margin: +900%, required: false}}"
SHORT = (
    "--set", "load.warmup=1s", "--set", "phases.0.for=2s", "--set", "phases.1.for=8s", "--set", "phases.2.for=2s",
    "--set", LENIENT,
)  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """A run that has ended."""

    code: int
    out: str
    err: str
    run: records.RunDir

    @property
    def report(self):
        return json.loads((self.run.path / "report.json").read_text())


class Place:
    """A home and runs of its own, with the models that the session has trained already."""

    def __init__(self, folder: Path, models: Path) -> None:
        self.home = folder / "home"
        self.runs = folder / "runs"
        self.home.mkdir(parents=True)
        (self.home / "models").symlink_to(models)

    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "experiments", *arguments, "--runs", str(self.runs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            env={**os.environ, "SPLITPROOF_HOME": str(self.home)},
            start_new_session=True,
        )

    def finish(self, process, timeout=150):
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        found = sorted(self.runs.glob("*/*"), key=lambda path: path.name)
        return Ran(process.returncode, out, err, records.RunDir(found[-1] if found else self.runs))

    def run(self, *arguments, timeout=150):
        return self.finish(self.start(*arguments), timeout)

    def await_rows(self, at_least=100, timeout=90):
        """Wait until the load has recorded that many requests; returns how many."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for shard in self.runs.glob("*/*/requests-*.jsonl"):
                rows = len(records.read_shard(shard).rows) if shard.stat().st_size else 0
                if rows >= at_least:
                    return rows
            time.sleep(0.1)
        raise TimeoutError("no rows")


@pytest.fixture(scope="session")
def short():
    """Phases just long enough to see them."""
    return SHORT


@pytest.fixture
def place(tmp_path, models, left_over):
    made = Place(tmp_path / "place", models)
    yield made
    rest = left_over(made.home)
    for process in rest:
        process.kill()
    assert rest == [], f"left behind: {rest}"


@pytest.fixture(scope="session")
def healthy(tmp_path_factory, models):
    """One short healthy run of digits that many tests look at."""
    made = Place(tmp_path_factory.mktemp("healthy") / "place", models)
    return made.run("run", "digits", *SHORT)
