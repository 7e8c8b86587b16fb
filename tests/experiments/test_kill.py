"""A load process is killed at random moments; Envoy's access log is the witness of what it had sent."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from experiments.core import records
from experiments.core.home import CHECKOUT, stack_dir

KILLS = 20
TOLERANCE_S = 0.05  # between two clocks' readings of one instant, on a busy machine


@pytest.fixture
def stack(place, monkeypatch):
    monkeypatch.setenv("SPLITPROOF_HOME", str(place.home))
    monkeypatch.setenv("SPLITPROOF_RUNS", str(place.runs))
    subprocess.run([sys.executable, "-m", "deploy", "up", "digits"], check=True, cwd=CHECKOUT, timeout=120)
    yield stack_dir("digits")
    subprocess.run([sys.executable, "-m", "deploy", "down", "digits"], check=True, cwd=CHECKOUT, timeout=60)


def load(*more):
    arguments = ["-f", "loadgen/canary.py", "--experiment", "digits", "--headless", "--run-time", "60s", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "locust", *arguments],
        cwd=CHECKOUT,
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def await_first_row(runs, known):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for path in runs.glob("*/*/requests-*.jsonl"):
            if path.parent not in known and path.read_bytes().count(b"\n") > 5:
                return path.parent
        time.sleep(0.02)
    raise TimeoutError("no rows")


def witnessed(stack):
    """Request id → (start, end) in seconds, of every prediction that Envoy has seen; probes are not the load's."""
    time.sleep(0.4)  # its log is flushed every 100 ms
    found = {}
    for line in (stack / "envoy" / "access.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["path"].endswith(":predict"):
            start = float(entry["start_time"])
            found[entry["request_id"]] = (start, start + entry["duration_ms"] / 1000)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_load_process_loses_only_what_was_in_flight(place, stack):
    judged = set()
    chance = random.Random(20)
    for _ in range(KILLS):
        before = set(witnessed(stack))
        process = load()
        run = await_first_row(place.runs, judged)
        judged.add(run)
        time.sleep(chance.uniform(0.1, 1.5))
        killed = time.time()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shards = [records.read_shard(path) for path in records.RunDir(run).shards()]
        rows = {row.request_id for shard in shards for row in shard.rows}
        sent = {name: span for name, span in witnessed(stack).items() if name not in before}
        in_flight = {name for name, (start, end) in sent.items() if _covers(start, end, killed)}
        missing = set(sent) - rows
        assert len(missing) <= len(in_flight)
        assert missing <= in_flight
        assert not any(shard.complete for shard in shards)
    last = max(judged, key=lambda path: path.name)
    done = subprocess.run(
        [sys.executable, "-m", "analysis", "report", str(last)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (3, 4)
    assert "incomplete" in done.stdout


def _covers(start, end, moment):
    return start <= moment + TOLERANCE_S and end >= moment - TOLERANCE_S
