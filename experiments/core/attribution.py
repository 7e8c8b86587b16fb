"""Output + references → the arm that gave it, or unattributed with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from experiments.core.answers import Vector, distance

NOISE_FACTOR = 10.0
"""A match may be this many times further away than an arm's own answers are from one another."""

SEPARATION_FRACTION = 0.01
"""… or this fraction of the distance between the arms, whichever is larger."""

MAX_RADIUS_FRACTION = 0.25
"""A radius above this fraction of the separation would let the arms' neighbourhoods come near each other."""


@dataclass(frozen=True)
class Reference:
    """What an arm answers to one payload: its output, and how far its own repeated answers lie from it."""

    output: Vector
    noise: float = 0.0


@dataclass(frozen=True)
class Attribution:
    """The arm that an output came from; without one, the reason why none is named."""

    arm: str | None
    reason: str
    distances: Mapping[str, float]


def separation(references: Mapping[str, Reference]) -> float:
    """The smallest distance between the references of two arms; infinity for fewer than two arms."""
    outputs = [reference.output for reference in references.values()]
    gaps = [distance(a, b) for index, a in enumerate(outputs) for b in outputs[index + 1 :]]
    return min(gaps, default=float("inf"))


def match_radius(references: Mapping[str, Reference]) -> float:
    """The larger of 10 × the arms' noise and 1 % of their separation."""
    gap = separation(references)
    noise = max((reference.noise for reference in references.values()), default=0.0)
    return max(NOISE_FACTOR * noise, SEPARATION_FRACTION * min(gap, 1.0))


def tells_apart(references: Mapping[str, Reference]) -> bool:
    """Whether a payload's references lie far enough apart, against their noise, to name an arm."""
    gap = separation(references)
    return gap > 0 and match_radius(references) <= MAX_RADIUS_FRACTION * gap


def attribute(output: Vector, references: Mapping[str, Reference]) -> Attribution:
    """The arm whose reference lies within the match radius, if exactly one does.

    >>> refs = {"a": Reference(np.array([1.0, 0.0])), "b": Reference(np.array([0.0, 1.0]))}
    >>> attribute(np.array([1.0, 0.0]), refs).arm, attribute(np.array([0.5, 0.5]), refs).reason
    ('a', 'near no reference')
    """
    distances = {arm: distance(output, reference.output) for arm, reference in references.items()}
    if not references:
        return Attribution(None, "no reference for this payload", distances)
    if not np.isfinite(output).all():
        return Attribution(None, "not finite", distances)
    radius = match_radius(references)
    near = [arm for arm, gap in distances.items() if gap <= radius]
    if len(near) == 1:
        return Attribution(near[0], "", distances)
    return Attribution(None, "near two references" if near else "near no reference", distances)
