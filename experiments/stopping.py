"""May a phase end at this look, and what comes then? From a look alone (pure).

A phase with a gate ends when its gate opens; a run that is to end once it is decided lets each phase end when no
required claim waits for it. A broken claim ends both at once: the verdict is roll back, whatever comes.
"""

from dataclasses import dataclass

from analysis import words
from analysis.findings import BROKEN, SHOWN
from analysis.gates import OPEN
from analysis.look import LIVE, Look
from experiments.core.spec import Experiment, Phase

NEXT, FINISH, ROLL_BACK = "next", "finish", "roll back"

UNTIL_DECIDED = (
    "Each phase may end as soon as every required claim on it is decided, and the run as soon as all are, or any claim "
    "is broken: split and failures at any look, latency at its registered looks."
)
GATED = (
    "Each gated phase ends when the evidence so far allows the next one, and goes to {way_back} as soon as a claim is "
    "broken: split and failures at any look, latency at its registered looks."
)


@dataclass(frozen=True)
class Decision:
    """What a look decides: where to go, and the outcome and rule that go on record."""

    go: str
    outcome: str
    rule: str


def rules(experiment: Experiment, *, until_decided: bool) -> str | None:
    """The rules by which phases may end before their time, fixed before the load; None if there is none."""
    way_back = experiment.rollback
    found = [GATED.format(way_back=way_back.name)] if way_back else []
    found += [UNTIL_DECIDED] if until_decided else []
    return " ".join(found) or None


def decide(look: Look, experiment: Experiment, phase: Phase, *, until_decided: bool) -> Decision | None:
    """What this look decides about the phase in force; None if nothing yet, or if it is about an earlier phase."""
    if look.state != LIVE or look.report is None or look.phase != phase.name:
        return None
    broken = [claim for claim in look.report.claims if claim.state == BROKEN]
    if broken and (phase.gate or until_decided):
        go = ROLL_BACK if phase.gate else FINISH
        return Decision(go, "broken", f"{broken[0].id} is broken")
    if phase.gate:
        return _at_gate(look, phase)
    return _decided(look, experiment, phase) if until_decided else None


def _at_gate(look: Look, phase: Phase) -> Decision | None:
    own = [gate for gate in look.gates if gate.phase == phase.name]
    if own and own[0].state == OPEN:
        return Decision(NEXT, "passed", "the gate opened: nothing is broken, and what the next phase needs is shown")
    return None


def _decided(look: Look, experiment: Experiment, phase: Phase) -> Decision | None:
    if look.report is None:
        return None
    required = [claim for claim in look.report.claims if claim.required]
    open_ones = [claim for claim in required if claim.state != SHOWN]
    if required and not open_ones:
        return Decision(FINISH, "decided", f"all {len(required)} required claims are decided")
    of_phase = [claim.id for claim in required if claim.phase == phase.name]
    if of_phase and not any(claim.phase == phase.name for claim in open_ones):
        last = phase.name == experiment.planned[-1].name
        return Decision(FINISH if last else NEXT, "decided", f"{words.listed(of_phase)} decided: nothing waits for it")
    return None


def out_of_time(look: Look | None, phase: Phase) -> Decision | None:
    """What becomes of a gated phase whose time is up: without the evidence for the next one, the run ends there."""
    if not phase.gate:
        return None
    own = [gate for gate in look.gates if gate.phase == phase.name] if look else []
    lacking = f"not enough for {words.listed(own[0].lacking)}" if own and own[0].lacking else "no look at it"
    return Decision(FINISH, "held", f"its time was up with {lacking}")
