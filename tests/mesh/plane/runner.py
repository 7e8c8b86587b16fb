"""Whole runs of `digits` on a mesh whose pods are our serving processes, short enough for a test."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plane.mesh import Mesh
from plane.objects import FEW
from plane.processes import environment
from plane.waiting import until

from experiments.core import records
from experiments.core.home import CHECKOUT

SHORT = (
    "--set", "load.warmup=0.4s", "--set", "phases.0.for=1s", "--set", "phases.1.for=3s", "--set", "phases.2.for=1s",
    "--set", FEW, "--set", "claims.latency={p50: {margin: +900%, required: false}}",
)  # fmt: skip
"""What makes a run short; latencies of so few seconds decide nothing, and are not asked for."""


@dataclass(frozen=True)
class Ended:
    """A run that has ended: its exit code, its report if there is one, what it said, its directory."""

    code: int
    report: dict[str, Any] | None
    text: str
    path: Path

    @property
    def required(self) -> set[str]:
        """The states of the claims that a promotion needs."""
        claims = self.report["claims"] if self.report else []
        return {claim["state"] for claim in claims if claim["required"]}

    @property
    def checks(self) -> dict[str, str]:
        """The sentence of each check."""
        return {check["name"]: check["sentence"] for check in self.report["checks"]} if self.report else {}

    @property
    def info(self) -> records.RunInfo:
        """What the run directory says of the run."""
        return records.read_info(records.RunDir(self.path))


@dataclass(frozen=True)
class Runner:
    """Starts runs and sees them end. `way_in` are the options that name the gateway, `extra` more variables."""

    mesh: Mesh
    folder: Path
    way_in: tuple[str, ...]
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        """Where run directories go."""
        return self.folder / "runs"

    def start(self, *options: str) -> subprocess.Popen[str]:
        """A run under way; later options go before earlier ones."""
        command = [sys.executable, "-m", "experiments", "run", "digits", "--target", "kubernetes", *SHORT, *options,
                   *self.way_in, "--runs", str(self.runs)]  # fmt: skip
        with self.mesh.inside():
            return subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT,
                env={**environment(self.mesh.place), **self.extra},
            )  # fmt: skip

    def finish(self, process: subprocess.Popen[str]) -> Ended:
        """Wait for a run's end."""
        out, err = process.communicate(timeout=400)
        found = sorted(self.runs.glob("*/*"), key=lambda path: path.name)
        assert found, err
        path = found[-1] / "report.json"
        report = json.loads(path.read_text()) if path.exists() else None
        return Ended(process.returncode, report, out + err, found[-1])

    def run(self, *options: str) -> Ended:
        """A whole run."""
        return self.finish(self.start(*options))

    def rows(self) -> list[records.Row]:
        """What the run has recorded so far."""
        shards = [path for path in self.runs.glob("*/*/requests-*.jsonl") if path.stat().st_size]
        return [row for path in shards for row in records.read_shard(path).rows]

    def await_phase(self, name: str, rows: int = 100) -> None:
        """Wait until a run has recorded that many requests in a phase."""

        def reached() -> bool:
            return sum((row.route or "").startswith(f"{name}/") for row in self.rows()) >= rows

        until(reached, f"{rows} requests in phase {name}", 150)

    def await_word(self, word: str) -> int:
        """When the run's own journal had this word, in microseconds."""
        until(lambda: list(self.runs.glob("*/*/journal.jsonl")), "a journal", 60)
        (path,) = self.runs.glob("*/*/journal.jsonl")
        until(lambda: word in path.read_text(), f"the run to hear of {word}", 20, every_s=0.02)
        return path.stat().st_mtime_ns // 1000
