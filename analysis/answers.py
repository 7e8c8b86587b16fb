"""Every distinct output of a run → the arm that gave it, or the reason why none is named."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from experiments.core.answers import Vector
from experiments.core.attribution import Reference, attribute
from experiments.core.records import Output, References, RunDir, read_outputs

WRONG_SHAPE, NOT_FINITE = "wrong shape", "not finite"

UNUSABLE = (WRONG_SHAPE, NOT_FINITE)
"""Reasons for which an answer with a status of success is a failure all the same."""


@dataclass(frozen=True)
class Answer:
    """One distinct output: `arm` is empty where none is named, and `reason` then says why."""

    payload: str
    signature: str
    arm: str
    reason: str


def attribute_outputs(run: RunDir, references: References | None) -> list[Answer]:
    """The distinct outputs of all load processes, each attributed once, by payload and signature.

    Raises:
        RecordsError: a file of outputs is damaged.
    """
    attributor = Attributor(references)
    for path in run.outputs():
        for output in read_outputs(path):
            attributor.learn(output)
    return attributor.answers


class Attributor:
    """Distinct outputs, each attributed once, as they come."""

    def __init__(self, references: References | None) -> None:
        self.references = references
        self._known = _references(references)
        self._found: dict[tuple[str, str], Answer] = {}

    def learn(self, output: Output) -> None:
        """Attribute an output, unless its payload and signature are known."""
        key = (output.payload, output.signature)
        if key not in self._found:
            vector = np.array([np.nan if value is None else value for value in output.values], dtype=np.float64)
            self._found[key] = _answer(key, vector, self._known.get(output.payload, {}))

    @property
    def answers(self) -> list[Answer]:
        """All of them, in an order that does not depend on that of their coming."""
        return [self._found[key] for key in sorted(self._found)]


def _answer(key: tuple[str, str], vector: Vector, known: Mapping[str, Reference]) -> Answer:
    """What is wrong with the numbers themselves goes before what they are near to."""
    if not np.isfinite(vector).all():
        return Answer(*key, "", NOT_FINITE)
    if known and all(vector.shape != reference.output.shape for reference in known.values()):
        return Answer(*key, "", WRONG_SHAPE)
    outcome = attribute(vector, known)
    return Answer(*key, outcome.arm or "", "" if outcome.arm else outcome.reason)


def _references(references: References | None) -> dict[str, dict[str, Reference]]:
    if references is None:
        return {}
    return {
        payload: {
            arm: Reference(np.asarray(reference.output, dtype=np.float64), reference.noise)
            for arm, reference in known.arms.items()
        }
        for payload, known in references.payloads.items()
    }
