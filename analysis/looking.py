"""Look after look at one run: what may be decided at which, and what was decided stays so.

Split and failures may be decided at any look. Latency is decided at its registered looks only: in between, its claims
are undecided whatever the numbers are.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from analysis import latency, validity, words
from analysis.findings import BROKEN, SHOWN, Claim
from analysis.following import Following, Seen
from analysis.gates import gates
from analysis.judge import conclude, judge, remarks_on
from analysis.look import ENDED, LIVE, WAITING, Look, Point
from analysis.report import Report
from analysis.verdict import decide
from experiments.core.hypotheses import Hypotheses, LatencyHypothesis
from experiments.core.hypotheses import Look as RegisteredLook
from experiments.core.records import RunDir

MOST_POINTS = 240
"""Looks kept for pictures over time; beyond it every other one is forgotten."""


def now_us() -> int:
    """The wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


@dataclass
class Looking:
    """The looks at one run so far."""

    following: Following
    number: int = 0
    history: list[Point] = field(default_factory=list)
    decided: dict[str, Claim] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)

    @property
    def run(self) -> RunDir:
        """What is looked at."""
        return self.following.run

    def look(self) -> Look:
        """Look again.

        Raises:
            RecordsError: what is there is damaged, foreign or of a newer schema, or was taken away.
            ExperimentError: the experiment in it breaks rules.
        """
        self.number += 1
        seen = self.following.look()
        if self.following.closed:
            return self._final()
        if isinstance(seen, str):
            return Look(self.number, WAITING, str(self.run.path), now_us(), seen)
        return self._live(seen)

    def _final(self) -> Look:
        """The report as `analysis report` gives it: all evidence is there."""
        report = judge(self.run)
        phase = report.periods[-1].phase if report.periods else None
        return Look(
            self.number,
            ENDED,
            str(self.run.path),
            now_us(),
            phase=phase,
            report=report,
            history=list(self.history),
        )

    def _live(self, seen: Seen) -> Look:
        registered = seen.evidence.registered
        due = [one for one in registered.latency if _is_due(one, registered, seen, self.taken.get(one.id, 0))]
        found = self._report(seen, due)
        latencies = self._latency_claims(seen, found.claims, due)
        claims = [*(claim for claim in found.claims if claim.kind != "latency"), *latencies]
        report = msgspec.structs.replace(found, claims=claims, verdict=decide(claims))
        self._remember(report, seen)
        return Look(
            look=self.number,
            state=LIVE,
            run=str(self.run.path),
            at_us=now_us(),
            message=f"no longer waited for: {', '.join(seen.silent)}" if seen.silent else "",
            watermark_us=seen.watermark_us,
            phase=seen.phase,
            phase_s=seen.phase_s,
            gates=gates((claims, report.checks), seen, set(self.decided)),
            report=report,
            history=list(self.history),
        )

    def _report(self, seen: Seen, due: Sequence[LatencyHypothesis]) -> Report:
        """The report with no latency claims but those that are due, each at the alpha of its own look."""
        by_look: dict[int, list[LatencyHypothesis]] = {}
        for one in due:
            by_look.setdefault(self.taken.get(one.id, 0), []).append(one)
        first, *others = [_at_look(seen, ones, look) for look, ones in sorted(by_look.items())] or [
            _at_look(seen, [], 0)
        ]
        checks, secondary = list(first.checks), list(first.secondary)
        for other in others:
            checks += [check for check in other.checks if check not in checks]
            secondary += [one for one in other.secondary if one not in secondary]
        more = [claim for other in others for claim in other.claims if claim.kind == "latency"]
        return msgspec.structs.replace(first, claims=[*first.claims, *more], checks=checks, secondary=secondary)

    def _latency_claims(self, seen: Seen, claims: Sequence[Claim], due: Sequence[LatencyHypothesis]) -> list[Claim]:
        """Those that are due as they were found, those that were decided as they were then, the others undecided."""
        registered = seen.evidence.registered
        found = {claim.id: claim for claim in claims if claim.kind == "latency"}
        for one in due:
            self.taken[one.id] = self.taken.get(one.id, 0) + 1
            if found[one.id].state in (SHOWN, BROKEN) or self.taken[one.id] == len(registered.looks):
                self.decided.setdefault(one.id, found[one.id])
        return [self.decided.get(one.id) or _withheld(one, registered, self.taken) for one in registered.latency]

    def _remember(self, report: Report, seen: Seen) -> None:
        origin = seen.origin_us or seen.watermark_us
        shares = [
            (", ".join(one.cohorts), one.arm, one.share.estimate, one.share.low, one.share.high)
            for one in report.shares
            if one.phase == seen.phase
        ]
        here = [one for one in report.latencies if one.phase == seen.phase]
        latencies = {one.arm: one.quantiles_us["p50"] for one in here if "p50" in one.quantiles_us}
        point = Point((seen.watermark_us - origin) / 1e6, seen.phase or "", report.verdict.word, shares, latencies)
        self.history.append(point)
        if len(self.history) > MOST_POINTS:
            del self.history[::2]


def _at_look(seen: Seen, due: Sequence[LatencyHypothesis], number: int) -> Report:
    """The report with the latency claims of one registered look."""
    registered = seen.evidence.registered
    look = registered.looks[number]
    # As Holm would take the smallest p-value of all that are registered: the others' looks come at other times.
    part = look.alpha * len(due) / max(len(registered.latency), 1)
    now = msgspec.structs.replace(registered, latency=list(due), looks=[RegisteredLook(look.fraction, part)])
    evidence = replace(seen.evidence, registered=now)
    remarks = remarks_on(evidence.info, seen.experiment)
    return conclude(seen.experiment, evidence, validity.checks(evidence), remarks)


def _is_due(one: LatencyHypothesis, registered: Hypotheses, seen: Seen, taken: int) -> bool:
    """Whether the next registered look of a hypothesis has come: its phase is so old, or over."""
    if one.phase is None or taken >= len(registered.looks):
        return False
    age_s = seen.ages_s.get(one.phase)
    if age_s is None:
        return False
    planned_s = seen.experiment.phase(one.phase).duration
    return age_s >= registered.looks[taken].fraction * planned_s or one.phase in seen.over


def _withheld(one: LatencyHypothesis, registered: Hypotheses, taken: Mapping[str, int]) -> Claim:
    if one.phase is None:
        sentence = f"{one.canary} and {registered.baseline} are never compared."
    else:
        fraction = registered.looks[min(taken.get(one.id, 0), len(registered.looks) - 1)].fraction
        when = "at its end" if fraction >= 1 else f"after {words.percent(fraction, 0)} of it"
        sentence = f"phase {one.phase}: {latency.measure_of(one)} of {one.canary} is looked at {when}."
    return latency.unlooked(one, registered, sentence)
