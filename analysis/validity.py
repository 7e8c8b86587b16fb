"""May the claims be judged at all? Each condition voids the claims that it touches, and no others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from analysis import generator, words
from analysis.failures import with_arm
from analysis.findings import BROKEN, ROUTING, VOID, Check, Claim
from analysis.rows import Rows, ShardSummary
from analysis.tally import OK, Tally
from experiments.core import journal
from experiments.core.hypotheses import Hypotheses
from experiments.core.journal import Change, Foreign, Period
from experiments.core.records import References, RunInfo

EVERY = ["split", "errors", "latency"]

MAX_UNATTRIBUTED = 0.05
"""Share of successful answers of unknown arm above which no arm's answers are taken as a fair sample of its own."""

MIN_OVERLAP = 0.5
"""Share of time batches in which both arms must have answered, where both answered often enough to be in each."""


@dataclass(frozen=True)
class Evidence:
    """Everything that validity is read from."""

    info: RunInfo
    rows: Rows
    references: References | None
    changes: Sequence[Change]
    foreign: Sequence[Foreign]
    periods: Sequence[Period]
    tally: Tally
    registered: Hypotheses
    by_header: bool


def lost_requests(rows: Rows) -> int:
    """Requests that were sent and of which nothing is recorded: the most that there can be."""
    return sum(shard.lost for shard in rows.shards)


def checks(seen: Evidence) -> list[Check]:
    """All conditions, held or not."""
    found = [
        # A claim that several conditions void has the first one's reason. A wrong model behind a name outdoes all; a
        # change of the routing explains much of what may follow from it, down to a run that was aborted.
        _references(seen),
        _routes_unchanged(seen),
        _ended(seen),
        _complete(seen),
        _reconciled(seen),
        _routing_known(seen),
        _attributed(seen),
        _agreement(seen),
        _routes_current(seen),
        _pods_unchanged(seen),
        *generator.checks(seen.rows, seen.tally),
        *_concurrent(seen),
    ]
    return [check for check in found if check is not None]


def _ended(seen: Evidence) -> Check | None:
    """Whether the run went on to its end; what died before may be the reason for what was seen."""
    ending = seen.info.ended
    if ending is None or ending.how == "completed":
        return None
    return Check("run ended in order", ok=False, sentence=f"{ending.how}: {ending.detail}.", weakens=EVERY)


def _complete(seen: Evidence) -> Check:
    """Whether every load process closed its records in order."""
    broken = [shard for shard in seen.rows.shards if not shard.complete]
    lost = lost_requests(seen.rows)
    known = {shard.header.client for shard in seen.rows.shards}
    absent = [client for client in seen.info.load_processes if client not in known]
    if not broken and not lost and not absent:
        return Check(
            "records complete", ok=True, sentence=f"{words.requests(seen.rows.table.num_rows)} recorded, none missing."
        )
    unclosed = [_named(shard) for shard in broken if shard.trailer is None]
    parts = [f"no trailer in {words.listed(unclosed)} (killed?)"] if unclosed else []
    parts += [f"{shard.name} ends in a torn line" for shard in broken if shard.torn]
    parts += [
        f"{shard.name} holds {shard.rows} rows, its trailer counts {shard.trailer.rows}"
        for shard in broken
        if shard.trailer is not None and shard.trailer.rows != shard.rows
    ]
    parts += [f"nothing from worker {client}: copy its files into the run directory" for client in absent]
    untold = any(shard.trailer is None and shard.last_beat is None for shard in broken)
    in_flight = "an unknown number of requests" if untold else f"up to {words.requests(lost)}"
    parts.append(f"{in_flight} in flight not recorded")
    return Check("records complete", ok=False, sentence=f"incomplete: {'; '.join(parts)}.", weakens=EVERY)


def _named(shard: ShardSummary) -> str:
    """A shard, and the worker that wrote it where there were several."""
    worker = f" of worker {shard.header.client}" if shard.header.workers > 1 and shard.header.client else ""
    return f"{shard.name}{worker}"


def _reconciled(seen: Evidence) -> Check | None:
    """Whether Locust's own total and the row count agree, and no request was written twice."""
    total = seen.info.locust_requests
    counted = [shard.trailer.locust_requests for shard in seen.rows.shards if shard.trailer]
    if total is None and len(counted) == len(seen.rows.shards):
        total = sum(counted)
    repeated = sum(shard.repeated for shard in seen.rows.shards)
    rows = seen.rows.table.num_rows
    if seen.rows.shared:
        sentence = (
            f"{words.requests(seen.rows.shared)} of the schedule sent by more than one load process: "
            "a worker went on without word from its master, and others had taken its part."
        )
        return Check("records reconciled", ok=False, sentence=sentence, weakens=EVERY)
    if repeated:
        sentence = f"{words.requests(repeated)} recorded twice under the same number."
        return Check("records reconciled", ok=False, sentence=sentence, weakens=EVERY)
    if total is None:
        return None
    if total > rows:
        sentence = f"Locust counted {words.requests(total)}, the shards hold {words.count(rows)}: a shard is missing."
        return Check("records reconciled", ok=False, sentence=sentence, weakens=EVERY)
    return Check(
        "records reconciled",
        ok=True,
        sentence=f"Locust counted {words.requests(total)}, the shards hold {words.count(rows)}.",
    )


def _routing_known(seen: Evidence) -> Check | None:
    """Whether the journal says which routing was in force, and every change was seen to take effect."""
    name = "routing journal"
    if not seen.changes:
        return Check(name, ok=False, sentence="no journal: it is not known which routing was in force.", weakens=EVERY)
    unseen = sorted({change.phase for change in seen.changes if change.effective_us is None})
    if unseen:
        sentence = f"{words.listed(unseen)} was applied, but never seen to be in force."
        return Check(name, ok=False, sentence=sentence, weakens=EVERY, phases=unseen)
    return None


def _references(seen: Evidence) -> Check | None:
    if seen.by_header:
        return None
    if seen.references is None:
        return Check("references", ok=False, sentence="no references: no output can name its arm.", voids=EVERY)
    if seen.references.problems:
        return Check("references", ok=False, sentence=" ".join(seen.references.problems), voids=EVERY)
    origin = "the exported models" if seen.references.source == "export" else "the pods themselves, asked directly"
    n = len(seen.references.payloads)
    return Check(
        "references", ok=True, sentence=f"{n} payload{'s' if n != 1 else ''}, reference outputs from {origin}."
    )


def _attributed(seen: Evidence) -> Check:
    """Whether nearly every successful answer names its arm, in each phase: claims of the others are not touched."""
    answers = seen.tally.judged
    answers = answers[answers["outcome"] == OK]
    total, unknown = int(answers["n"].sum()), int(answers[answers["answered"] == ""]["n"].sum())
    name = "answers attributed"
    if not total:
        return Check(name, ok=True, sentence="no successful answer could be judged.")
    if not unknown:
        return Check(name, ok=True, sentence=f"all {words.count(total)} successful answers name their arm.")
    by_phase = answers.groupby("phase")["n"].sum()
    unknown_in = answers[answers["answered"] == ""].groupby("phase")["n"].sum()
    hit = sorted(str(phase) for phase, n in unknown_in.items() if n > MAX_UNATTRIBUTED * by_phase[phase])
    told = answers[answers["phase"].isin(hit)] if hit else answers
    sentence = _unattributed(told, f" in {words.listed(hit)}" if hit else "")
    if not hit:
        return Check(name, ok=True, sentence=sentence)
    return Check(name, ok=False, sentence=sentence, voids=["latency"], weakens=["split"], phases=hit)


def _unattributed(answers: Any, where: str) -> str:
    """How many successful answers do not name their arm, and why."""
    nameless = answers[answers["answered"] == ""]
    why = ", ".join(f"{words.count(n)} {reason}" for reason, n in nameless.groupby("reason")["n"].sum().items())
    numbers = f"{words.count(nameless['n'].sum())} of {words.count(answers['n'].sum())}"
    return f"{numbers} successful answers{where} are of unknown arm: {why}."


def _agreement(seen: Evidence) -> Check | None:
    """Whether the route header names the arm that the output names."""
    cells = seen.tally.judged
    both = cells[(cells["answered"] != "") & (cells["routed"] != "")]
    if seen.by_header or not len(both):
        return None
    wrong = both[both["answered"] != both["routed"]]
    n = int(wrong["n"].sum())
    name = "route header agrees"
    if not n:
        return Check(name, ok=True, sentence=f"{words.count(both['n'].sum())} route headers agree with the outputs.")
    worst = wrong.groupby(["routed", "answered"])["n"].sum().sort_index().idxmax()
    sentence = (
        f"{words.count(n)} of {words.requests(both['n'].sum())} contradict their route header: "
        f"routed to {worst[0]}, answered by the model of {worst[1]}."
    )
    return Check(name, ok=False, sentence=sentence, voids=["errors"], phases=sorted(set(wrong["phase"])))


def _routes_current(seen: Evidence) -> Check | None:
    """Whether requests were routed by the phase in force."""
    cells = seen.tally.judged
    stale = cells[cells["stale"] == 1]
    if not len(stale):
        return None
    phases = sorted(set(stale["phase"]))
    sentence = f"{words.requests(stale['n'].sum())} in {words.listed(phases)} carried another phase's route header."
    return Check("routes current", ok=False, sentence=sentence, weakens=EVERY, phases=phases)


def _routes_unchanged(seen: Evidence) -> Check | None:
    """Whether somebody else changed the routing: what was measured after it says nothing about the experiment's own."""
    disturbed = {
        change.phase: journal.disturbing(seen.changes, index, seen.foreign) for index, change in enumerate(seen.changes)
    }
    hit = sorted(phase for phase, entries in disturbed.items() if entries)
    if not hit:
        return None
    found = [entry for entry in seen.foreign if any(entry in entries for entries in disturbed.values())]
    sentence = f"somebody else changed the routing: {_whom(found)}."
    return Check("nobody else changed routes", ok=False, sentence=sentence, weakens=EVERY, phases=hit, cause=ROUTING)


def _pods_unchanged(seen: Evidence) -> Check | None:
    """Whether somebody else changed what stands behind the routes; a pod that died is told here too."""
    found = [entry for entry in seen.foreign if not entry.routes]
    if not found:
        return None
    hit = {_phase_at(seen.changes, entry.at_us) for entry in found}
    phases = sorted(phase for phase in hit if phase)
    return Check("nobody else changed pods", ok=False, sentence=f"{_whom(found)}.", weakens=EVERY, phases=phases)


def _phase_at(changes: Sequence[Change], at_us: int) -> str | None:
    """The phase in force at a moment; None in a transition, in which pods come and go by our own hand."""
    last = next((change for change in reversed(changes) if change.applied_us <= at_us), None)
    return last.phase if last and last.effective_us is not None and last.effective_us <= at_us else None


def _whom(entries: Sequence[Foreign]) -> str:
    return "; ".join(f"{entry.what} by {entry.by}" for entry in entries)


def _concurrent(seen: Evidence) -> Iterator[Check]:
    """Whether the compared arms were there in the same time batches, in each phase and for each canary."""
    compared = {(one.phase, one.canary) for one in seen.registered.latency if one.phase}
    compared |= {(phase, one.canary) for one in seen.registered.errors for phase in one.phases}
    for phase, canary in sorted(compared):
        cells = seen.tally.in_phase(phase)
        arms = canary, seen.registered.baseline
        # Latency compares answers, failures compare what was routed: an arm that fails from now on answers no more.
        numbers = {"latency": _together(cells, "answered", arms), "errors": _together(with_arm(cells), "arm", arms)}
        check = _overlap(numbers, arms, phase)
        if check:
            yield check


def _together(cells: Any, by: str, arms: tuple[str, str]) -> tuple[int, int] | None:
    """Time batches in which both arms are, and in which either is; None where too few are expected in each to tell."""
    table = cells.pivot_table("n", ["period", "window"], by, "sum", fill_value=0)
    if not set(arms) <= set(table.columns):
        return None
    pair = table[list(arms)]
    pair = pair[pair.sum(axis=1) > 0]
    if pair.sum().min() < 2 * len(pair):  # too few to expect both in every batch: that is little data, nothing worse
        return None
    return int((pair.min(axis=1) > 0).sum()), len(pair)


def _overlap(numbers: Mapping[str, tuple[int, int] | None], arms: tuple[str, str], phase: str) -> Check | None:
    known = {kind: number for kind, number in numbers.items() if number is not None}
    if not known:
        return None
    apart = [kind for kind, (both, either) in known.items() if both < MIN_OVERLAP * either]
    both, either = known[apart[0]] if apart else next(iter(known.values()))
    sentence = f"{arms[0]} and {arms[1]} both answered in {both} of {either} time batches."
    return Check(
        f"arms concurrent in {phase}", ok=not apart, sentence=sentence, voids=apart, phases=[phase], arms=[arms[0]]
    )


def apply(claim: Claim, conditions: Sequence[Check]) -> Claim:
    """The claim, void where a failed condition touches it: what is broken stays so unless it may not be judged."""
    for check in conditions:
        if not touches(check, claim.kind, claim.phase, claim.arm):
            continue
        if claim.kind in check.voids or claim.state != BROKEN:
            return msgspec.structs.replace(
                claim,
                state=VOID,
                reason=check.sentence,
                void_by=check.cause,
                sentence=f"{claim.id}: not judged: {check.sentence}",
                need=None,
            )
    return claim


def touches(check: Check, kind: str, phase: str | None, arm: str | None) -> bool:
    """Whether a condition failed, and makes claims of a kind, phase and arm such that they cannot be shown."""
    here = check.phases is None or phase in check.phases
    ours = check.arms is None or arm in check.arms
    return not check.ok and here and ours and kind in [*check.voids, *check.weakens]
