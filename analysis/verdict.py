"""Claims → promote, roll back, hold or invalid: the first that applies, with one sentence."""

from collections.abc import Sequence

import msgspec

from analysis import words
from analysis.findings import BROKEN, MODEL, ROUTING, SHOWN, UNDECIDED, VOID, Claim, Need
from experiments.core.errors import Exit

PROMOTE, ROLL_BACK, HOLD, INVALID = "promote", "roll back", "hold", "invalid"
_FINE = " The routing is at fault; the model may be fine."


class Verdict(msgspec.Struct, frozen=True):
    """The answer.

    `cause` of a roll back is `model` as soon as a model's claim is broken; `routing` means that the model may be fine.
    An invalid run has the cause `routing` where somebody else changed the routing under it.
    `need` is what a hold still lacks.
    """

    word: str
    cause: str | None
    sentence: str
    exit_code: int
    because: list[str]
    need: Need | None = None


def decide(claims: Sequence[Claim]) -> Verdict:
    """The verdict over all claims.

    Roll back if any claim is broken, required or not; else invalid if a required one is void; else promote if every
    required one is shown; else hold.
    """
    broken = [claim for claim in claims if claim.state == BROKEN]
    required = [claim for claim in claims if claim.required]
    void = [claim for claim in required if claim.state == VOID]
    if broken:
        return _roll_back(broken)
    if void:
        return _invalid(void)
    if required and all(claim.state == SHOWN for claim in required):
        return _promote(required)
    return _hold([claim for claim in required if claim.state == UNDECIDED])


def _ids(claims: Sequence[Claim]) -> list[str]:
    return [claim.id for claim in claims]


def _roll_back(broken: Sequence[Claim]) -> Verdict:
    """The model's claims come first: a pause that a routing fault asks for would leave a bad model serving."""
    models = [claim for claim in broken if claim.cause == MODEL]
    first = (models or list(broken))[0]
    more = len(broken) - 1
    others = f" {more} more claim{'s are' if more > 1 else ' is'} broken." if more else ""
    fine = "" if models else _FINE
    return Verdict(
        ROLL_BACK,
        MODEL if models else ROUTING,
        f"Roll back ({first.kind}): {first.sentence}{others}{fine}",
        int(Exit.ROLL_BACK),
        _ids([first, *(claim for claim in broken if claim is not first)]),
    )


def _invalid(void: Sequence[Claim]) -> Verdict:
    """What somebody did to the routing comes first: it may be the reason for the rest."""
    routing = [claim for claim in void if claim.void_by == ROUTING]
    first = [*routing, *(claim for claim in void if claim not in routing)]
    reasons = list(dict.fromkeys(claim.reason for claim in first))
    more = f" And {len(reasons) - 1} more." if len(reasons) > 1 else ""
    fine = _FINE if routing else ""
    sentence = f"Invalid: this run cannot be judged: {_ended(reasons[0])}{more}{fine}"
    return Verdict(INVALID, ROUTING if routing else None, sentence, int(Exit.INVALID), _ids(first))


def _ended(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _promote(required: Sequence[Claim]) -> Verdict:
    canaries = sorted({claim.arm for claim in required if claim.cause == MODEL and claim.arm})
    subject = words.listed(canaries) if canaries else "the routing"
    sentence = f"Promote {subject}: all {len(required)} required claims are shown."
    return Verdict(PROMOTE, None, sentence, int(Exit.PROMOTE), _ids(required))


def _hold(undecided: Sequence[Claim]) -> Verdict:
    if not undecided:
        return Verdict(HOLD, None, "Hold: no claim is required, so nothing says promote.", int(Exit.HOLD), [])
    need = _largest([claim.need for claim in undecided])
    sentence = f"Hold: {undecided[0].sentence}"
    if len(undecided) > 1:
        sentence += f" {len(undecided) - 1} more undecided."
    if need:
        longer = f"about {words.roughly(need.requests)} more, {words.duration(need.seconds)} of this load"
        sentence += f" Still needed: {longer}."
    elif not any(claim.requests for claim in undecided):
        sentence += " Nothing was judged: look into locust.log of the run directory, and run again."
    else:
        sentence += " More of the same data would not decide it."
    return Verdict(HOLD, None, sentence, int(Exit.HOLD), _ids(undecided), need)


def _largest(needs: Sequence[Need | None]) -> Need | None:
    """The most that any claim needs; None where one cannot be decided by more data."""
    known = [need for need in needs if need is not None]
    return max(known, key=lambda need: need.seconds) if known and len(known) == len(needs) else None
