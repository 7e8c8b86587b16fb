"""The run directory of a plain Locust run: made before the load, closed after it. A conductor does both itself."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from experiments.core import home, journal, records
from experiments.core.errors import RecordsError
from experiments.core.hypotheses import register
from experiments.core.reading import to_mapping
from experiments.core.records import Ending, RunDir, RunInfo
from experiments.core.routing import phase_expectations, route_is_generated
from experiments.core.spec import Experiment
from experiments.core.stack import StackDir
from experiments.core.versions import installed
from loadgen.assignment import Assignment

_VERSIONS_OF = ("locust", "gevent", "geventhttpclient", "numpy")


def open_run(assignment: Assignment, host: str) -> RunDir:
    """The conductor's run directory if there is one, else a new one with its `run.json`.

    Raises:
        RecordsError: it cannot be made or written.
    """
    if assignment.run is not None:
        if assignment.run.shards():
            raise RecordsError(f"{assignment.run.path}: holds the records of another load; give each a run of its own.")
        return assignment.run
    experiment, stack = assignment.experiment, assignment.stack
    run = records.create_run(assignment.runs, experiment.name, run_id=assignment.run_id)
    info = RunInfo(
        schema_version=records.SCHEMA,
        id=run.path.name,
        experiment=to_mapping(experiment),
        experiment_hash=assignment.experiment_hash,
        started_us=time.time_ns() // 1000,
        target=stack.target if stack else host,
        hypotheses=register(experiment),
        versions={**installed(_VERSIONS_OF), **(stack.versions if stack else {})},
        host={"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        models=stack.models if stack else {},
        notes=[*(stack.notes if stack else []), *assignment.notes],
        expectations=_expectations(experiment),
    )
    records.write_json(run.info, info)
    return run


def local_run(run: Path, assignment: Assignment) -> Path:
    """The master's run directory where this machine has it, else one of the same name here.

    Raises:
        RecordsError: it cannot be made.
    """
    if run.is_dir():
        return run
    here = assignment.runs / assignment.experiment.name / run.name
    try:
        here.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordsError(f"{here}: cannot be made: {error.strerror}; use --runs DIR on this worker.") from error
    return here


def _expectations(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """What each cohort should get, for the phases whose routes are written in the experiment itself."""
    found: dict[str, dict[str, Any]] = {}
    for phase in experiment.phases:
        if route_is_generated(phase.route):
            expected = phase_expectations(experiment, phase)
            found[phase.name] = {cohort: vars(expectation) for cohort, expectation in expected.items()}
    return found


@dataclass(frozen=True)
class Totals:
    """What is known once the load is over.

    Its processes as Locust names them, when it began, Locust's own count, and a sentence for each that left early.
    """

    processes: list[str]
    origin_us: int
    locust_requests: int
    departed: list[str]


def close_run(assignment: Assignment, run: RunDir, totals: Totals, ending: Ending) -> None:
    """Write down when the load began and what Locust counted; without a conductor also how it ended and the evidence.

    Raises:
        RecordsError: something cannot be written.
    """
    info = records.read_info(run)
    changed = msgspec.structs.replace(
        info,
        load_started_us=totals.origin_us,
        locust_requests=totals.locust_requests,
        load_processes=totals.processes,
        departed=totals.departed,
    )
    if assignment.run is None:
        changed = msgspec.structs.replace(changed, ended=ending)
        _copy_evidence(assignment.experiment.name, run, totals.origin_us)
    records.write_json(run.info, changed)


def _copy_evidence(experiment: str, run: RunDir, origin_us: int) -> None:
    """The routing that was in force when the load began, every change since, and the references."""
    stack = StackDir(home.stack_dir(experiment))
    entries = journal.read(stack.journal)
    applied = [entry for entry in entries if isinstance(entry, journal.Applied)]
    first = max((entry.sequence for entry in applied if entry.at_us <= origin_us), default=0)
    for entry in entries:
        later = entry.at_us >= origin_us if isinstance(entry, journal.Foreign) else entry.sequence >= first
        if later:
            journal.append(run.journal, entry)
    if stack.references.exists():
        try:
            run.references.write_bytes(stack.references.read_bytes())
        except OSError as error:
            raise RecordsError(f"{run.references}: cannot be written: {error.strerror}; free space.") from error
