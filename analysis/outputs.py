"""Do the arms name the same class for the same payload, and how often is each right? Described, not judged."""

from collections.abc import Iterator

from analysis.findings import Outputs
from experiments.core.records import PayloadReference, References


def describe(references: References | None, baseline: str) -> list[Outputs]:
    """Every other arm against the baseline, over the distinct payloads that both have a reference for."""
    if references is None:
        return []
    arms = sorted({arm for payload in references.payloads.values() for arm in payload.arms} - {baseline})
    return list(_compared(references, arms, baseline))


def _compared(references: References, arms: list[str], baseline: str) -> Iterator[Outputs]:
    for arm in arms:
        both = [known for known in references.payloads.values() if {arm, baseline} <= set(known.arms)]
        labelled = [known for known in both if known.label is not None]
        ours = [top(known, arm) == known.label for known in labelled]
        theirs = [top(known, baseline) == known.label for known in labelled]
        yield Outputs(
            arm=arm,
            baseline=baseline,
            payloads=len(both),
            agreeing=sum(top(known, arm) == top(known, baseline) for known in both),
            labelled=len(labelled),
            right=sum(ours),
            baseline_right=sum(theirs),
            only_arm_right=sum(a and not b for a, b in zip(ours, theirs, strict=True)),
            only_baseline_right=sum(b and not a for a, b in zip(ours, theirs, strict=True)),
        )


def top(payload: PayloadReference, arm: str) -> int:
    """The class that an arm names first; of equals the lowest.

    >>> from experiments.core.records import ArmReference
    >>> top(PayloadReference({"a": ArmReference([0.1, 0.9], 0.0)}), "a")
    1
    """
    values = payload.arms[arm].output
    return max(range(len(values)), key=lambda index: (values[index], -index)) if values else -1
