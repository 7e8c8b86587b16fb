"""Outputs that are no answer at all: they are failures, whatever the status said."""

import pytest

from analysis.answers import NOT_FINITE, WRONG_SHAPE, Attributor
from analysis.failures import KINDS, kind_of
from experiments.core.records import ArmReference, Output, PayloadReference, References

REFERENCES = References(
    1, "export", {"p": PayloadReference({"old": ArmReference([0.9, 0.1], 0.0), "new": ArmReference([0.2, 0.8], 0.0)})}
)


@pytest.mark.parametrize(
    ("values", "arm", "reason"),
    [
        ([0.9, 0.1], "old", ""),
        ([0.2, 0.8], "new", ""),
        ([0.9, None], "", NOT_FINITE),
        ([0.9, 0.05, 0.05], "", WRONG_SHAPE),
        ([], "", WRONG_SHAPE),
    ],
)
def test_what_is_wrong_with_the_numbers_goes_before_what_they_are_near_to(values, arm, reason):
    attributor = Attributor(REFERENCES)
    attributor.learn(Output("s", "p", values))
    (found,) = attributor.answers
    assert (found.arm, found.reason) == (arm, reason)


@pytest.mark.parametrize("name", ["timeout", "refused", "http-404", "http-503", WRONG_SHAPE, NOT_FINITE, "anything"])
def test_every_failure_has_a_kind(name):
    assert kind_of(name) in KINDS
