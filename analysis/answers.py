"""Every distinct output of a run → the arm that gave it, or the reason why none is named."""

from dataclasses import dataclass

import numpy as np

from experiments.core.attribution import Reference, attribute
from experiments.core.records import References, RunDir, read_outputs


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
    known = _references(references)
    found: dict[tuple[str, str], Answer] = {}
    for path in run.outputs():
        for output in read_outputs(path):
            key = (output.payload, output.signature)
            if key not in found:
                vector = np.array([np.nan if value is None else value for value in output.values], dtype=np.float64)
                outcome = attribute(vector, known.get(output.payload, {}))
                found[key] = Answer(*key, outcome.arm or "", "" if outcome.arm else outcome.reason)
    return [found[key] for key in sorted(found)]


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
