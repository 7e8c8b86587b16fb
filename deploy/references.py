"""Each pod of each arm asked directly, past the gateway: does it answer as the artefact that its arm names?

The references come from the artefacts (see `deploy.models.reference_outputs`). What the pods answer gives the noise
within an arm, and tells when another model sits behind an arm's name.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np

from deploy.asking import Answer, kept
from experiments.core.answers import UndecodableAnswerError, Vector, distance, output_vector
from experiments.core.attribution import MAX_RADIUS_FRACTION, Reference, match_radius, separation, tells_apart
from experiments.core.errors import StackError
from experiments.core.records import SCHEMA, ArmReference, DirectAnswer, PayloadReference, References
from experiments.core.routing import predict_path
from experiments.core.spec import Experiment
from experiments.core.stack import Pod, StackInfo

ASKED = 3
"""How often each pod is asked about each payload …"""

BUDGET_S = 30.0
"""… unless that would take a pod longer than this: then fewer times, but at least once."""

_ATTEMPTS = 8
_TIMEOUT_S = 60.0
_ROUNDING = 1e-4
"""Float arithmetic alone puts answers of one model this far apart at most (1.5e-6 was seen between batch sizes)."""


@dataclass(frozen=True)
class _Asked:
    """What one pod answered: payload → outputs; a payload that it never answered has none, and a last reason."""

    pod: Pod
    outputs: Mapping[str, Sequence[Vector]]
    reasons: Mapping[str, str]


def check(
    stack: StackInfo,
    references: References,
    bodies: Mapping[str, bytes],
    progress: Callable[[str], None] = lambda _: None,
) -> References:
    """The references with what the pods say of them: noise, direct answers, and problems in one sentence each.

    Args:
        stack: Its pods are asked, its experiment says whether outputs must tell the arms apart.
        references: Outputs by payload and arm.
        bodies: Request body of each payload.
        progress: Told what is going on.
    """
    return _judged(stack, references, _ask_all(stack, bodies, progress))


def learn(
    stack: StackInfo, bodies: Mapping[str, bytes], progress: Callable[[str], None] = lambda _: None
) -> References:
    """References from the pods' own answers, for arms of which no artefact is named.

    An arm's reference for a payload is that of its answers which lies nearest to all the others. That the right model
    is behind an arm's name is not proven by this; that its pods agree, and that the arms differ, is.

    Raises:
        StackError: an arm has no pod that answers every payload.
    """
    asked = _ask_all(stack, bodies, progress)
    arms = [str(arm) for arm in stack.experiment["arms"]]
    payloads = {
        name: PayloadReference({arm: ArmReference(_medoid(_answers(asked, arm, name)), 0.0) for arm in arms})
        for name in bodies
    }
    return _judged(stack, References(SCHEMA, "direct", payloads), asked)


def _answers(asked: Sequence["_Asked"], arm: str, payload: str) -> list[Vector]:
    own = [each for each in asked if each.pod.arm == arm]
    found = [output for each in own for output in each.outputs.get(payload, ())]
    if not found:
        why = next((each.reasons[payload] for each in own if payload in each.reasons), "it has no ready pod")
        raise StackError(
            f"arm {arm!r}: no pod of it answers payload {payload} ({why}), and no artefact is named: nothing tells its "
            "answers; mend its pods, or name its model."
        )
    return found


def _medoid(answers: Sequence[Vector]) -> list[float]:
    """The answer with the least distance to all the others."""
    best = min(answers, key=lambda one: sum(distance(one, other) for other in answers))
    return [float(value) for value in best]


def _ask_all(stack: StackInfo, bodies: Mapping[str, bytes], progress: Callable[[str], None]) -> list["_Asked"]:
    progress(f"asking {len(stack.pods)} pods about {len(bodies)} payloads, past the gateway")
    path = predict_path(str(stack.experiment["model"]))
    with ThreadPoolExecutor(max(len(stack.pods), 1)) as pool:
        return list(pool.map(lambda pod: _ask_pod(pod, path, bodies), stack.pods))


def _judged(stack: StackInfo, references: References, asked: Sequence["_Asked"]) -> References:
    payloads = {name: _compared(name, payload, asked) for name, payload in references.payloads.items()}
    problems = [sentence for each in asked for sentence in _pod_problems(each, references)]
    if stack.experiment.get("attribution") != "route-header":
        problems += _in_one(indistinguishable(payloads))
    return msgspec.structs.replace(
        references, payloads=payloads, checked_us=time.time_ns() // 1000, problems=[*references.problems, *problems]
    )


def refuse_indistinguishable(experiment: Experiment, references: References) -> None:
    """Raise if outputs must tell the arms apart and, by their artefacts, cannot.

    Raises:
        StackError: with the figures of the first such payload.
    """
    found = indistinguishable(references.payloads) if experiment.attribution == "output" else []
    for sentence in _in_one(found):
        raise StackError(f"{experiment.name}: {sentence}")


def indistinguishable(payloads: Mapping[str, PayloadReference]) -> list[str]:
    """A sentence for each payload whose outputs lie too near each other, against their noise, to name an arm."""
    found = []
    for name, payload in payloads.items():
        arms = _references(payload)
        if not tells_apart(arms):
            found.append(
                f"payload {name} cannot tell the arms apart: their outputs are {separation(arms):.3g} apart, a match "
                f"needs {match_radius(arms):.3g}, which must be at most {MAX_RADIUS_FRACTION:.0%} of that; use another "
                "payload, or say attribution: route-header."
            )
    return found


def _in_one(sentences: Sequence[str]) -> list[str]:
    """The first of many sentences that differ in their figures only, and how many there are; none of none."""
    more = f" (and {len(sentences) - 1} more payloads)" if len(sentences) > 1 else ""
    return [f"{sentence}{more}" for sentence in sentences[:1]]


def _references(payload: PayloadReference) -> dict[str, Reference]:
    return {arm: Reference(np.asarray(each.output), each.noise) for arm, each in payload.arms.items()}


# Asking


def _ask_pod(pod: Pod, path: str, bodies: Mapping[str, bytes]) -> _Asked:
    outputs: dict[str, list[Vector]] = {name: [] for name in bodies}
    reasons: dict[str, str] = {}
    began = time.monotonic()
    with kept(pod.url, _TIMEOUT_S) as post:
        for done in range(ASKED):
            for name, body in bodies.items():
                output, reason = _ask_once(partial(post, path, body))
                if output is None:
                    reasons[name] = reason
                else:
                    outputs[name].append(output)
            spent = time.monotonic() - began
            if spent / (done + 1) * (done + 2) > BUDGET_S:
                break
    return _Asked(pod, outputs, {name: reason for name, reason in reasons.items() if not outputs[name]})


def _ask_once(ask: Callable[[], Answer | None]) -> tuple[Vector | None, str]:
    """An output; a pod may fail now and then (that is for the failures claim to judge), so it is asked again."""
    reason = "it was not asked"
    for _ in range(_ATTEMPTS):
        answer = ask()
        try:
            if answer is not None and answer.status == 200:  # noqa: PLR2004
                return output_vector(answer.body), ""
            reason = _reason(answer)
        except UndecodableAnswerError as error:
            reason = str(error)
    return None, reason


def _reason(answer: Answer | None) -> str:
    if answer is None:
        return "no answer"
    return f"status {answer.status}: {' '.join(answer.body[:120].decode(errors='replace').split())}"


# Comparing


def _compared(name: str, payload: PayloadReference, asked: Sequence[_Asked]) -> PayloadReference:
    arms: dict[str, ArmReference] = {}
    for arm, reference in payload.arms.items():
        expected = np.asarray(reference.output)
        limit = own_limit(payload)
        noise, direct = reference.noise, []
        for each in asked:
            if each.pod.arm == arm and each.outputs.get(name):
                gaps = [distance(output, expected) for output in each.outputs[name]]
                # What lies further away is no noise: another model answered.
                noise = max([noise, *(gap for gap in gaps if gap <= limit)])
                direct.append(DirectAnswer(each.pod.name, max(gaps), max(gaps) <= limit))
        arms[arm] = msgspec.structs.replace(reference, noise=noise, direct=direct)
    return msgspec.structs.replace(payload, arms=arms)


def own_limit(payload: PayloadReference) -> float:
    """The distance up to which an answer is an arm's own: a quarter of the way between arms, or rounding."""
    return max(MAX_RADIUS_FRACTION * min(separation(_references(payload)), 1.0), _ROUNDING)


def _pod_problems(asked: _Asked, references: References) -> Iterator[str]:
    """One sentence for a pod that answers like another arm, like none, or not at all."""
    strangers: dict[str | None, list[str]] = {}
    for name, payload in references.payloads.items():
        for output in asked.outputs.get(name, ()):
            like = _like(output, payload, asked.pod.arm)
            if like != asked.pod.arm:
                strangers.setdefault(like, []).append(name)
    of = f"pod {asked.pod.name} is deployed as {asked.pod.arm!r}"
    for like, names in strangers.items():
        share = f"{len(set(names))} of {len(references.payloads)} payloads"
        if like is None:
            yield f"{of}, but its answers to {share} are no model's of this experiment; deploy it anew."
        else:
            yield f"{of}, but serves {like!r}: so it answered {share}; point its model path at {asked.pod.arm!r}."
    for name, reason in list(asked.reasons.items())[:1]:
        yield f"{of}, but did not answer {len(asked.reasons)} payloads; of {name}: {reason}; mend the pod."


def _like(output: Vector, payload: PayloadReference, own: str) -> str | None:
    """The arm whose reference an output is near, its own first; None where it is near none."""
    limit = own_limit(payload)
    gaps = {arm: distance(output, np.asarray(each.output)) for arm, each in payload.arms.items()}
    near = [arm for arm, gap in gaps.items() if gap <= limit]
    if own in near or not near:
        return own if own in near else None
    return min(near, key=lambda arm: gaps[arm])


def notes(experiment: Experiment, checked: References) -> list[str]:
    """What a reader must know: where references come from, and that the route header is relied upon."""
    return [*_learned(checked), *_relied(experiment, checked)]


def _learned(checked: References) -> list[str]:
    if checked.source != "direct":
        return []
    told = "each arm is known by what its own pods answered before the load"
    return [f"no artefact is named: {told}; nothing proves that the right model is behind its name."]


def _relied(experiment: Experiment, checked: References) -> list[str]:
    if experiment.attribution != "route-header":
        return []
    found = indistinguishable(checked.payloads)
    if not found:
        return ["attribution is by the route header alone, as the experiment says."]
    share = f"{len(found)} of {len(checked.payloads)} payloads have outputs that cannot tell the arms apart"
    return [f"attribution is by the route header alone, as the experiment says: {share}."]
