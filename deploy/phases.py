"""The phases of an experiment as a stack knows them, on whatever target it stands."""

import time
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from experiments.core.errors import StackError
from experiments.core.reading import Loaded, from_mapping
from experiments.core.spec import Phase
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
