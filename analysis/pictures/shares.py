"""The share of each arm as the run went on, with its confidence sequence, and the evidence against each claim."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from analysis import draws, failures, split
from analysis.judge import Examined
from analysis.pictures.slots import MOST_SLOTS, Slots, slots
from analysis.split import Counts
from analysis.validity import lost_requests
from experiments.core.hypotheses import SplitHypothesis

_MOST_POINTS = 2400
_FEWEST_SLOTS = 12
_CERTAIN = 60.0
"""Where a chart puts an infinite ln e."""

Row = dict[str, Any]


def share_rows(examined: Examined) -> tuple[list[Row], list[Row]]:
    """Shares over time, and the evidence over requests, of every phase and cohort with a configured share.

    A row of the first has `cohort`, `arm`, `phase`, `at` and `until` (seconds), `seen` (the share of that slot alone),
    `share`, `low` and `high` (of the phase so far), `expected`, `from` and `to` (the tolerance), `n`. A row of the
    second has `claim`, `n` and `ln_e`.
    """
    registered = examined.evidence.registered
    arms = examined.report.subject.arms
    cohorts = examined.experiment.cohorts
    most = max(min(MOST_SLOTS, _MOST_POINTS // (len(arms) * len(cohorts))), _FEWEST_SLOTS)
    fitted = slots(examined.report.periods, registered.batch_seconds, most)
    points: list[Row] = []
    evidence: list[Row] = []
    lost = lost_requests(examined.evidence.rows)
    claims = [(hypothesis, cohort) for hypothesis in registered.split for cohort in hypothesis.cohorts]
    for hypothesis, cohort in claims:
        drawn = split.place(examined.evidence.tally, hypothesis, [cohort], (registered, lost)).draws
        for counts, slot, alone in _so_far(examined, fitted, hypothesis.phase, cohort, lost):
            judged = split.judge_draws(counts, drawn, hypothesis, registered)
            points += _points(hypothesis, cohort, (counts, judged.intervals), slot, alone)
            told = _of_needed(judged.log_e, len(claims), registered.alpha_split)
            evidence.append({"claim": f"{hypothesis.phase}, {cohort}", "n": round(counts.requests), **told})
    return points, evidence


def _of_needed(log_e: float, claims: int, alpha: float) -> dict[str, float]:
    """The log of e, and what part it is of what the strictest step of Holm's procedure over so many claims asks for."""
    shown = max(min(log_e, _CERTAIN), -_CERTAIN)
    return {"ln_e": round(shown, 4), "part": round(shown / math.log(max(claims, 1) / alpha), 4)}


def _so_far(
    examined: Examined, fitted: Slots, phase: str, cohort: str, lost: float
) -> Iterator[tuple[Counts, tuple[float, float], Counts]]:
    """After each slot: all counts of the phase until then, the slot's span, and the slot's own counts."""
    arms = examined.report.subject.arms
    cells = examined.evidence.tally.in_phase(phase)
    cells = draws.with_arm(fitted.place(cells[cells["cohort"] == cohort]))
    sums: dict[tuple[int, int], dict[str, float]] = {}
    for (period, slot, arm), n in cells.groupby(["period", "slot", "arm"])["n"].sum().items():
        sums.setdefault((period, slot), {})[arm] = float(n)
    known: dict[int, list[float]] = {}
    unknown: dict[int, float] = {}
    for (period, slot), here in sums.items():
        own = [here.get(arm, 0.0) for arm in arms]
        other = math.fsum(here.values()) - math.fsum(own)
        known[period] = [a + b for a, b in zip(known.get(period, [0.0] * len(arms)), own, strict=True)]
        unknown[period] = unknown.get(period, 0.0) + other
        others = list(unknown.values())
        whole = Counts(tuple(arms), tuple(map(tuple, known.values())), (*others[:-1], others[-1] + lost))
        yield whole, fitted.span(period, slot), Counts(tuple(arms), (tuple(own),), (other,))


def _points(
    hypothesis: SplitHypothesis,
    cohort: str,
    found: tuple[Counts, Sequence[tuple[float, float]]],
    span: tuple[float, float],
    alone: Counts,
) -> Iterator[Row]:
    counts, intervals = found
    n, own = math.fsum(counts.totals), math.fsum(alone.totals)
    for place, arm in enumerate(counts.arms):
        expected = hypothesis.shares[arm]
        yield {
            "cohort": cohort,
            "arm": arm,
            "phase": hypothesis.phase,
            "at": span[0],
            "until": span[1],
            "seen": round(alone.totals[place] / own, 4) if own else None,
            "share": round(counts.totals[place] / n, 5) if n else None,
            "low": round(intervals[place][0], 5),
            "high": round(intervals[place][1], 5),
            "expected": round(expected, 5),
            "from": round(max(expected - hypothesis.tolerance, 0.0), 5),
            "to": round(min(expected + hypothesis.tolerance, 1.0), 5),
            "n": round(counts.requests),
        }


def harm_rows(examined: Examined, most: int = 40) -> list[Row]:
    """The evidence that each canary fails more often than its margin allows, over the requests of its phase."""
    evidence = examined.evidence
    fitted = slots(examined.report.periods, evidence.registered.batch_seconds, most)
    rows: list[Row] = []
    for hypothesis in evidence.registered.errors:
        if hypothesis.phase is None:
            continue
        cells = failures.with_arm(fitted.place(evidence.tally.in_phase(hypothesis.phase)))
        cells = cells.assign(failed=cells["n"].where(cells["outcome"] != "ok", 0))
        by_slot = cells.groupby(["period", "slot", "arm"])[["n", "failed"]].sum()
        seen: dict[str, failures.Arm] = {}
        for (_, _), own in by_slot.groupby(level=["period", "slot"]):
            for (_, _, arm), row in own.iterrows():
                seen[arm] = seen.get(arm, failures.Arm()).plus(failures.Arm(float(row["n"]), float(row["failed"])))
            names = hypothesis.canary, evidence.registered.baseline, ""
            canary, baseline, unknown = (seen.get(arm, failures.Arm()) for arm in names)
            found = failures.Pair(canary, baseline, unknown)
            log_e = failures.log_e_harm(found, hypothesis.max_increase)
            told = _of_needed(log_e, len(evidence.registered.errors), evidence.registered.alpha_errors)
            rows.append({"claim": f"failures of {hypothesis.canary}", "n": round(found.requests), **told})
    return rows
