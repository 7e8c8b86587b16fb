"""May a gated phase be left for the next one? From the claims of a look, and the failures of all gated phases so far.

The evidence on failures is one e-process through all steps of a ramp: its factors are the e-values of the phases, whose
requests are different ones, against one null, "the canary fails the margin more often". So a harmful canary passes any
gate of the ramp with at most the registered alpha (Ville's inequality).
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from analysis import words
from analysis.failures import Pair, pair
from analysis.findings import BROKEN, SHOWN, VOID, Check, Claim
from analysis.following import Seen
from analysis.look import Gate
from analysis.stats import bernoulli
from analysis.validity import lost_requests, touches
from experiments.core.hypotheses import ErrorsHypothesis

OPEN, SHUT, WAITING = "open", "shut", "waiting"


def gates(found: tuple[Sequence[Claim], Sequence[Check]], seen: Seen, looked_at: set[str]) -> list[Gate]:
    """The gate of each gated phase that has come into force, in order.

    Args:
        found: The claims as this look finds them, and the conditions under which they may be judged.
        seen: What it saw.
        looked_at: Latency claims that have had their last registered look.
    """
    gated = [phase.name for phase in seen.experiment.planned if phase.gate and phase.name in seen.ages_s]
    return [_gate(found, seen, gated[: index + 1], looked_at) for index in range(len(gated))]


def _gate(
    found: tuple[Sequence[Claim], Sequence[Check]], seen: Seen, so_far: Sequence[str], looked_at: set[str]
) -> Gate:
    (claims, conditions), phase = found, so_far[-1]
    registered = seen.evidence.registered
    needed = -math.log(registered.alpha_errors / max(len(registered.errors), 1))
    ln_e = min((value for one in registered.errors for value in _harmless(one, seen, so_far)), default=None)
    broken = [claim for claim in claims if claim.state == BROKEN]
    lacking = [claim.id for claim in claims if claim.phase == phase and _lacks(claim, looked_at)]
    void = {one.id: why for one in registered.errors if (why := _void(one, conditions, so_far))}
    if ln_e is not None and ln_e < needed:
        lacking += [one.id for one in registered.errors]
    lacking += [name for name in void if name not in lacking]
    void |= {claim.id: claim.reason for claim in claims if claim.id in lacking and claim.state == VOID}
    state = SHUT if broken else WAITING if lacking else OPEN
    return Gate(phase, state, _sentence(phase, state, broken, (lacking, void)), lacking, ln_e, needed)


def _lacks(claim: Claim, looked_at: set[str]) -> bool:
    """Whether a claim of the phase itself is still waited for: its split, and each look at its latency.

    A latency that could not be judged at its last look is waited for in vain: nothing was said for going on.
    """
    if claim.kind == "latency":
        return claim.id not in looked_at or claim.state == VOID
    return claim.kind == "split" and claim.required and claim.state != SHOWN


def _void(one: ErrorsHypothesis, conditions: Sequence[Check], so_far: Sequence[str]) -> str:
    """Why the evidence on failures so far may not be used: what voids it in any phase that it is from."""
    of = [phase for phase in so_far if phase in one.phases]
    return next(
        (check.sentence for check in conditions for phase in of if touches(check, "errors", phase, one.canary)), ""
    )


def _harmless(one: ErrorsHypothesis, seen: Seen, so_far: Sequence[str]) -> Iterator[float]:
    """The log e-value against harm over all phases so far; nothing where none of them compares the arms."""
    compared = [phase for phase in so_far if phase in one.phases]
    if not compared:
        return
    baseline = seen.evidence.registered.baseline
    # Of lost requests nobody knows the phase either: they are held against each.
    lost = lost_requests(seen.evidence.rows)
    pairs = [pair(seen.evidence.tally, phase, one.canary, baseline, lost) for phase in compared]
    yield math.fsum(_against_harm(found, one.max_increase) for found in pairs)


def _against_harm(found: Pair, margin: float) -> float:
    """The log e-value against every increase of the margin or more, by the assignment that speaks least against it."""
    return min(bernoulli.log_e_above(base.rate, canary.rate, -margin) for canary, base in found.assigned())


def _sentence(phase: str, state: str, broken: Sequence[Claim], waiting: tuple[Sequence[str], Mapping[str, str]]) -> str:
    lacking, void = waiting
    if state == SHUT:
        return f"phase {phase}: roll back: {broken[0].sentence}"
    if void:
        name, reason = next(iter(void.items()))
        return f"phase {phase}: {name} cannot be judged: {reason.removesuffix('.')}."
    if state == WAITING:
        return f"phase {phase}: not enough yet for {words.listed(lacking)}."
    return f"phase {phase}: nothing speaks against the next one, and what is required of this one is shown."
