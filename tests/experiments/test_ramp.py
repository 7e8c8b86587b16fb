"""A progressive release on the real stack: gates by cumulative evidence, promotion, and roll-back within the step."""

import json
import os
import subprocess
import sys

import pytest

from experiments.core import journal, records
from experiments.core.home import CHECKOUT

# Latency of a busy machine proves nothing here: it must neither break nor be required.
LENIENT = "claims.latency={p50: {margin: +900%, required: false}}"

FAILING = """
import sys
from pathlib import Path
from deploy.embedded.faults import Faults
from experiments.conductor import Options, Tampering, conduct
from experiments.core import reading
from experiments.progress import Narrator
loaded = reading.load("ramp", [sys.argv[2]])
tampering = Tampering(Faults(failure_rate={"large": 0.6}))
conduct(loaded, Options(Path(sys.argv[1]), tampering), Narrator())
"""


def routes(run):
    """The phases that came into force, in order."""
    return [change.phase for change in journal.changes(journal.read(run.journal))]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_healthy_canary_is_promoted_gate_by_gate(place):
    ran = place.run("run", "ramp", "--set", LENIENT, timeout=350)
    assert ran.code == 0, ran.out + ran.err
    assert routes(ran.run) == ["step-5", "step-25", "step-50", "step-100"]
    stops = records.read_info(ran.run).stops
    assert [(stop.phase, stop.outcome) for stop in stops] == [
        (phase, "passed") for phase in ("step-5", "step-25", "step-50", "step-100")
    ]
    assert ran.report["verdict"]["word"] == "promote"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_failing_canary_is_rolled_back_within_the_step(place):
    ended = subprocess.run(
        [sys.executable, "-c", FAILING, str(place.runs), LENIENT],
        cwd=CHECKOUT,
        env={**os.environ, "SPLITPROOF_HOME": str(place.home)},
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    run = records.RunDir(next(place.runs.glob("*/*")))
    assert routes(run) == ["step-5", "rolled-back"]
    (stop,) = records.read_info(run).stops
    assert (stop.phase, stop.outcome, stop.rule) == ("step-5", "broken", "errors/large is broken")
    first, back = journal.changes(journal.read(run.journal))
    # Warm-up and the step together are 30 s; the decision came within them.
    assert back.applied_us - first.applied_us < 35_000_000
    rows = [row for path in run.shards() for row in records.read_shard(path).rows]
    after = [row for row in rows if row.start_us > back.effective_us]
    assert len(after) > 100
    assert {row.route for row in after} == {"rolled-back/small"}
    told = subprocess.run(
        [sys.executable, "-m", "analysis", "report", str(run.path), "--json", "-"],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 1
    verdict = json.loads(told.stdout)["verdict"]
    assert (verdict["word"], verdict["cause"]) == ("roll back", "model")
