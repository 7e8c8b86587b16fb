"""What a rule says: a mistake, or that it cannot tell."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """A mistake.

    Attributes:
        code: `SP101` and so on; it never changes its meaning.
        level: `error`: requests fail or go to the wrong model. `warning`: they may, or the figures mislead.
        object: Kind, namespace and name.
        field: The path inside the object.
        what: What is there.
        why: Why it bites.
        fix: What to do.
    """

    code: str
    level: Level
    object: str
    field: str
    what: str
    why: str
    fix: str


@dataclass(frozen=True)
class Untold:
    """A rule that could not tell, and what it lacked."""

    code: str
    why: str
