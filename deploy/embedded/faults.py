"""What a self-test breaks in the serving processes, behind the experiment's back."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Faults:
    """Faults by arm; an arm that is not named is healthy.

    `slowdown`: each prediction takes this multiple of its natural time. `failure_rate`: this share of the predictions
    answers 503. `serves`: the pod of that arm serves the model of the other one.
    """

    slowdown: Mapping[str, float] = field(default_factory=dict)
    failure_rate: Mapping[str, float] = field(default_factory=dict)
    serves: Mapping[str, str] = field(default_factory=dict)


NO_FAULTS = Faults()
