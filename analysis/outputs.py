"""Do the arms answer the same for the same payload, and how often is each right? Described, not judged."""

import math
from collections.abc import Iterator

import numpy as np

from analysis.findings import Interval, Outputs
from analysis.stats.fixed import clopper_pearson
from analysis.stats.paired import mcnemar
from experiments.core.answers import distance
from experiments.core.records import PayloadReference, References

ALPHA = 0.05
FIVE = 5


def describe(references: References | None, baseline: str) -> list[Outputs]:
    """Every other arm against the baseline, over the distinct payloads that both have a reference for.

    With labels, the null is that either arm is alone right equally often (McNemar 1947, exact); payloads that resemble
    one another break it. Accuracies with Clopper and Pearson's interval (1934). No verdict rests on them. Fractions.
    """
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
        alone = sum(a and not b for a, b in zip(ours, theirs, strict=True))
        other = sum(b and not a for a, b in zip(ours, theirs, strict=True))
        gaps = [_distance(known, arm, baseline) for known in both]
        yield Outputs(
            arm=arm,
            baseline=baseline,
            payloads=len(both),
            agreeing=sum(top(known, arm) == top(known, baseline) for known in both),
            labelled=len(labelled),
            right=sum(ours),
            baseline_right=sum(theirs),
            only_arm_right=alone,
            only_baseline_right=other,
            agreeing_top5=sum(top(known, baseline) in first(known, arm, FIVE) for known in both),
            distance_mean=math.fsum(gaps) / len(gaps) if gaps else None,
            distance_max=max(gaps, default=None),
            p_value=mcnemar(alone, other) if labelled else None,
            accuracy=[_accuracy(right) for right in (ours, theirs)] if labelled else [],
        )


def _distance(known: PayloadReference, arm: str, baseline: str) -> float:
    return distance(*(np.asarray(known.arms[name].output, dtype=np.float64) for name in (arm, baseline)))


def _accuracy(right: list[bool]) -> Interval:
    low, high = clopper_pearson(sum(right), len(right), ALPHA)
    return Interval(sum(right) / len(right), low, high, 1 - ALPHA, anytime=False)


def first(payload: PayloadReference, arm: str, number: int) -> list[int]:
    """The classes that an arm names first, the likeliest first; of equals the lowest.

    >>> from experiments.core.records import ArmReference
    >>> first(PayloadReference({"a": ArmReference([0.2, 0.5, 0.2, 0.1], 0.0)}), "a", 2)
    [1, 0]
    """
    values = payload.arms[arm].output
    return sorted(range(len(values)), key=lambda index: (-values[index], index))[:number]


def top(payload: PayloadReference, arm: str) -> int:
    """The class that an arm names first; −1 for an empty output.

    >>> from experiments.core.records import ArmReference
    >>> top(PayloadReference({"a": ArmReference([0.1, 0.9], 0.0)}), "a")
    1
    """
    return next(iter(first(payload, arm, 1)), -1)
