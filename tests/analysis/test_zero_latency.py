"""Latencies of 0 µs, as a coarse clock has them: a defined answer, or that there is none."""

from pathlib import Path

import pytest

from analysis.findings import SHOWN, VOID
from analysis.judge import judge
from tests.analysis.synthetic import Truth, write_run


@pytest.mark.parametrize(("new", "old", "state"), [(0.0, 0.0, VOID), (20.0, 0.0, VOID), (0.0, 20.0, SHOWN)])
def test_a_multiple_of_nothing_is_not_judged(tmp_path: Path, new: float, old: float, state: str) -> None:
    report = judge(write_run(tmp_path, truth=Truth(median_ms={"old": old, "new": new})))
    found = [claim for claim in report.claims if claim.kind == "latency"]
    assert {claim.state for claim in found} == {state}
    assert all(("is 0: nothing is a multiple" in claim.sentence) == (state == VOID) for claim in found)
