"""Run directories as a load process would have left them, with shares, latencies and failures that are known."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.core import hypotheses, journal, reading, records, routing
from experiments.core.spec import Experiment

START_US = 1_700_000_000_000_000
PAYLOADS = ("cat", "dog", "fish")
OUTPUTS = {
    "cat": {"old": [0.9, 0.1, 0.0], "new": [0.5, 0.3, 0.2]},
    "dog": {"old": [0.1, 0.8, 0.1], "new": [0.2, 0.3, 0.5]},
    "fish": {"old": [0.0, 0.2, 0.8], "new": [0.3, 0.1, 0.6]},
}


def answer(payload: str, arm: str) -> list[float] | None:
    """What an arm answers: as above, and its own for each of `arm3`, `arm4`, …; None for a stranger."""
    if arm in OUTPUTS[payload] or not arm.removeprefix("arm").isdigit():
        return OUTPUTS[payload].get(arm)
    part = 0.9 / (int(arm.removeprefix("arm")) + 1)
    return [part, 0.4 * (1 - part), 0.6 * (1 - part)]


LABELS = {"cat": 0, "dog": 1, "fish": 2}

EXPERIMENT: dict[str, Any] = {
    "name": "synthetic",
    "arms": {"old": {"keras": "ResNet50"}, "new": {"keras": "ResNet101"}},
    "payloads": ["*.jpg"],
    "cohorts": {
        "everyone": {"share": 0.8},
        "canary-users": {"share": 0.2, "headers": {"user-group": "canary"}},
    },
    "phases": [
        {"name": "dark-launch", "route": {"old": 100, "new": 0}, "for": 10.0},
        {"name": "split", "route": {"old": 70, "new": 30}, "for": 45.0},
        {
            "name": "focused",
            "route": [{"when": {"user-group": "canary"}, "to": "new"}, {"to": "old"}],
            "for": 15.0,
        },
    ],
    "load": {"arrivals": 100.0, "warmup": 5.0},
    "claims": {
        "split": {"tolerance": 0.1},
        "errors": {"max_increase": 0.02},
        "latency": {"p50": {"margin": 0.2}, "p95": {"margin": 1.0, "required": False}},
    },
}


def experiment(**changes: Any) -> Experiment:
    """The experiment above, with top-level keys replaced."""
    return reading.from_mapping({**EXPERIMENT, **changes}, "synthetic")


@dataclass(frozen=True)
class Truth:
    """What really happens, where it differs from what is configured.

    `shares` maps a phase and cohort to true shares by arm; `serves` says whose model an arm's pods really run. `picks`
    chooses the arm from sequence number and phase; None leaves it to the draw. From sequence number and arm `slower`
    multiplies a latency, and `fails`, `loses` (the answer, and who was asked) and `garbles` (the output) say when.
    """

    median_ms: Mapping[str, float] = field(default_factory=lambda: {"old": 20.0, "new": 20.0})
    sigma: float = 0.3
    failing: Mapping[str, float] = field(default_factory=dict)
    shares: Callable[[str, str, Mapping[str, float]], Mapping[str, float]] | None = None
    picks: Callable[[int, str, np.random.Generator], str | None] | None = None
    slower: Callable[[int, str], float] = lambda _sequence, _arm: 1.0
    fails: Callable[[int, str], bool] = lambda _sequence, _arm: False
    loses: Callable[[int, str], bool] = lambda _sequence, _arm: False
    garbles: Callable[[int, str], bool] = lambda _sequence, _arm: False
    serves: Mapping[str, str] = field(default_factory=dict)
    unheard: float = 0.0
    garbled: float = 0.0
    effective_us: int = 30_000
    headers: bool = True
    slow_start: bool = False


@dataclass(frozen=True)
class Layout:
    """How the records lie on disk."""

    workers: int = 1
    shuffled: bool = False
    trailers: bool = True
    torn: bool = False
    references: bool = True
    problems: Sequence[str] = ()
    weights: str = "imagenet"
    registered: bool = True


@dataclass(frozen=True)
class Drawer:
    """What one phase really does with one cohort: arms, and the upper ends of their parts of [0, 1)."""

    arms: tuple[str, ...]
    ends: tuple[float, ...]

    def draw(self, random: np.random.Generator) -> str:
        at = random.random()
        return next((arm for arm, end in zip(self.arms, self.ends, strict=True) if at < end), self.arms[-1])


def _drawers(chosen: Experiment, truth: Truth) -> dict[tuple[str, str], Drawer]:
    found = {}
    for phase in chosen.phases:
        for cohort, expectation in routing.phase_expectations(chosen, phase).items():
            shares = expectation.shares or {arm: 1 / len(chosen.arms) for arm in chosen.arms}
            if truth.shares is not None:
                shares = truth.shares(phase.name, cohort, shares)
            used = {arm: share for arm, share in shares.items() if share > 0}
            ends = np.cumsum(list(used.values())) / sum(used.values())
            found[phase.name, cohort] = Drawer(tuple(used), tuple(ends.tolist()))
    return found


def write_run(
    folder: Path,
    chosen: Experiment | None = None,
    truth: Truth | None = None,
    layout: Layout | None = None,
    seed: int = 1,
) -> records.RunDir:
    """A whole run directory; the same arguments give the same bytes."""
    chosen, truth, layout = chosen or experiment(), truth or Truth(), layout or Layout()
    run = records.RunDir(folder / "run")
    run.path.mkdir(parents=True)
    changes = _write_journal(run, chosen, truth)
    rows = _rows(chosen, truth, changes, np.random.default_rng(seed))
    _write_shards(run, chosen, rows, layout, np.random.default_rng(seed + 1))
    if layout.references:
        _write_references(run, chosen, layout)
    _write_info(run, chosen, layout)
    return run


def _write_journal(run: records.RunDir, chosen: Experiment, truth: Truth) -> list[journal.Change]:
    at = START_US - 1_000_000
    for index, phase in enumerate(chosen.phases):
        http = routing.http_routes(chosen, phase)
        journal.append(run.journal, journal.Applied(index, phase.name, at, "test", http, list(chosen.deployed(phase))))
        journal.append(run.journal, journal.Effective(index, at + truth.effective_us, 3))
        at = START_US if index == 0 else at
        at += round(phase.duration * 1e6)
    return journal.changes(journal.read(run.journal))


def _rows(
    chosen: Experiment, truth: Truth, changes: Sequence[journal.Change], random: np.random.Generator
) -> list[records.Row]:
    total = sum(phase.duration for phase in chosen.phases)
    number = int(total * chosen.load.rate)
    gap_us = 1e6 / chosen.load.rate
    names, shares = list(chosen.cohorts), [cohort.share for cohort in chosen.cohorts.values()]
    cohorts = random.choice(names, size=number, p=np.array(shares) / sum(shares))
    applied = np.array([change.applied_us for change in changes])
    drawers = _drawers(chosen, truth)
    rows = []
    for sequence in range(number):
        start = START_US + round(sequence * gap_us)
        phase = changes[int(np.searchsorted(applied, start, side="right")) - 1].phase
        what = sequence, start, str(cohorts[sequence])
        rows.append(_row(truth, phase, drawers[phase, what[2]], what, random))
    return rows


def _row(
    truth: Truth, phase: str, drawer: Drawer, what: tuple[int, int, str], random: np.random.Generator
) -> records.Row:
    sequence, start, cohort = what
    arm = (truth.picks(sequence, phase, random) if truth.picks else None) or drawer.draw(random)
    payload = PAYLOADS[int(random.random() * len(PAYLOADS))]
    median_us = truth.median_ms[arm] * 1000 * truth.slower(sequence, arm)
    latency = round(median_us * float(np.exp(truth.sigma * random.standard_normal())))
    fails = random.random() < truth.failing.get(arm, 0.0) or truth.fails(sequence, arm)
    unheard = random.random() < truth.unheard or truth.loses(sequence, arm)
    served = truth.serves.get(arm, arm)
    signature = None if fails or unheard else f"{payload}-{served}"
    if signature and (random.random() < truth.garbled or truth.garbles(sequence, arm)):
        signature = f"{payload}-garbled"
    route = routing.route_value(phase, arm) if truth.headers and not unheard else None
    return records.Row(
        sequence=sequence,
        request_id=f"r{sequence}",
        cohort=cohort,
        payload=payload,
        intended_us=start,
        start_us=start + 100,
        latency_us=latency,
        status=0 if unheard else 503 if fails else 200,
        signature=signature,
        error="timeout" if unheard else "http-503" if fails else None,
        route=route,
        upstream_us=None,
        pod=None,
        response_bytes=100,
    )


def _write_shards(
    run: records.RunDir, chosen: Experiment, rows: Sequence[records.Row], layout: Layout, random: np.random.Generator
) -> None:
    for worker in range(layout.workers):
        own = [row for row in rows if row.sequence % layout.workers == worker]
        if layout.shuffled:
            own = [own[index] for index in random.permutation(len(own))]
        _write_shard(run, chosen, own, layout, worker)


def _write_shard(
    run: records.RunDir, chosen: Experiment, rows: Sequence[records.Row], layout: Layout, worker: int
) -> None:
    appender = records.Appender(records.shard_path(run.path, "host", 100 + worker))
    appender.append(header(chosen, worker, layout.workers))
    for row in rows:
        appender.append(row)
    end = max(row.start_us + row.latency_us for row in rows) + 1
    if layout.trailers:
        appender.append(records.Trailer(end, len(rows), len(rows), scheduled=len(rows)))
    else:
        appender.append(records.Beat(end, end, 3))
    appender.close()
    if layout.torn:
        with appender.path.open("ab") as file:
            file.write(b'[1, "to')
    _write_outputs(run, rows, worker)


def header(chosen: Experiment, worker: int = 0, workers: int = 1) -> records.ShardHeader:
    """The first line of a shard."""
    return records.ShardHeader(
        schema=records.SCHEMA,
        run="synthetic-run",
        experiment_hash=reading.experiment_hash(chosen),
        host="host",
        pid=100 + worker,
        columns=records.COLUMNS,
        monotonic_us=0,
        wall_us=START_US,
        origin_us=START_US,
        worker=worker,
        workers=workers,
    )


def _write_outputs(run: records.RunDir, rows: Sequence[records.Row], worker: int) -> None:
    appender = records.Appender(records.outputs_path(run.path, "host", 100 + worker))
    for payload, signature in sorted({(row.payload, row.signature) for row in rows if row.signature}):
        arm = signature.rpartition("-")[2]
        values = answer(payload, arm) or [0.34, 0.33, 0.33]
        appender.append(records.Output(signature, payload, list(values)))
    appender.close()


def _write_references(run: records.RunDir, chosen: Experiment, layout: Layout) -> None:
    outputs = {
        payload: {
            arm: answer(payload, arm) or OUTPUTS[payload][("old", "new")[index % 2]]
            for index, arm in enumerate(chosen.arms)
        }
        for payload in PAYLOADS
    }
    known = {
        payload: records.PayloadReference(
            {arm: records.ArmReference(list(values), 1e-7) for arm, values in by_arm.items()}, LABELS[payload]
        )
        for payload, by_arm in outputs.items()
    }
    references = records.References(records.SCHEMA, "export", known, START_US, list(layout.problems))
    records.write_json(run.references, references)


def _write_info(run: records.RunDir, chosen: Experiment, layout: Layout) -> None:
    info = records.RunInfo(
        schema_version=records.SCHEMA,
        id="synthetic-run",
        experiment=reading.to_mapping(chosen),
        experiment_hash=reading.experiment_hash(chosen),
        started_us=START_US,
        target="embedded",
        hypotheses=hypotheses.register(chosen) if layout.registered else {},
        models={arm: {"weights": layout.weights} for arm in chosen.arms},
        ended=records.Ending(START_US + 70_000_000, "completed"),
    )
    records.write_json(run.info, info)


def misrouted(phase: str, shares: Mapping[str, float]) -> Truth:
    """Every cohort of one phase really gets these shares."""

    def chosen(now: str, _cohort: str, configured: Mapping[str, float]) -> Mapping[str, float]:
        return shares if now == phase else configured

    return replace(Truth(), shares=chosen)
