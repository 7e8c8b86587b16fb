"""The phases of an experiment as a stack knows them, on whatever target it stands."""

import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from experiments.core import journal
from experiments.core.errors import StackError
from experiments.core.reading import Loaded, from_mapping
from experiments.core.routing import http_routes
from experiments.core.spec import Experiment, Phase, Route, Rule
from experiments.core.stack import StackInfo

Edit = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
"""What a self-test does to the manifests of a phase before they are applied."""


def now_us() -> int:
    """The wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


def loaded_of(stack: StackInfo) -> Loaded:
    """The experiment that a stack was put up for, as it was then."""
    path = Path(stack.experiment_path)
    return Loaded(from_mapping(stack.experiment, str(path)), path.parent, path)


def find_phase(loaded_experiment: Loaded, name: str) -> Phase:
    """The phase called `name`.

    Raises:
        StackError: there is none; the message lists what there is.
    """
    known = {phase.name: phase for phase in loaded_experiment.experiment.phases}
    if name not in known:
        close = get_close_matches(name, list(known), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise StackError(
            f"{loaded_experiment.experiment.name}: has no phase {name!r}; {hint}there are: {', '.join(known)}."
        )
    return known[name]


ON_END = "on-end"
"""The name of the routing in which a run leaves a stack that was up before it, where no phase of its own has that."""


def ending(experiment: Experiment, before: journal.Change | None) -> tuple[Phase, Edit | None, str] | None:
    """What `on_end` asks of a stack that was up before a run: a phase, a change of its manifests, and that in words.

    Args:
        experiment: Its `on_end` says what becomes of the routes.
        before: The routing before the run; where none is known there is nothing to restore.

    Returns:
        None where the routes stay as they are.
    """
    if experiment.on_end == "leave" or (experiment.on_end == "restore" and before is None):
        return None
    if experiment.on_end == "restore" and before is not None:
        return *as_it_was(experiment, before), "routes are as they were before"
    arm = experiment.baseline if experiment.on_end == "baseline" else experiment.canaries[0]
    return all_to(arm), None, f"all traffic goes to {arm} (on_end: {experiment.on_end})"


def all_to(arm: str) -> Phase:
    """A routing that is no phase of an experiment: everything to one arm, with all arms deployed."""
    return Phase(name=ON_END, route=Route(rules=(Rule(to={arm: 100}),)))


def as_it_was(experiment: Experiment, before: journal.Change) -> tuple[Phase, Edit]:
    """A routing of the journal as a phase, and the change that gives its manifests the very routes."""
    known = {phase.name: phase for phase in experiment.phases}
    return known.get(before.phase) or all_to(experiment.baseline), with_http(before.http)


def stated(experiment: Experiment, last: journal.Change) -> tuple[Phase, Edit]:
    """What should be live after a routing of the journal: a phase's own, whatever a self-test put in its stead."""
    phase, edit = as_it_was(experiment, last)
    ours = any(last.phase == each.name for each in experiment.phases)
    return phase, (lambda objects: objects) if ours else edit


def with_http(http: Sequence[dict[str, Any]]) -> Edit:
    """The change of manifests that gives their VirtualService these routes."""

    def edit(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**each, "spec": {**each["spec"], "http": list(http)}} if each["kind"] == "VirtualService" else each
            for each in objects
        ]

    return edit


def ending_http(experiment: Experiment, before: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], str] | None:
    """The same for an attached VirtualService, of which only the routes are ours to change."""
    if experiment.on_end == "restore":
        return list(before), "routes are as they were before"
    found = ending(experiment, None)
    return (http_routes(experiment, found[0]), found[2]) if found else None
