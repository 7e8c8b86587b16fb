"""The self-test's faults: each breaks a real stack in one way, beside a twin that is healthy or harmlessly different.

A fault must be caught by the claim or check that is there for it; its twin must not be blamed.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from deploy.embedded.faults import Faults
from experiments.conductor import Options, Outcome, conduct
from experiments.core import reading
from experiments.core.errors import SplitproofError
from experiments.progress import Narrator
from experiments.targets import Manifests, Tampering

EXPERIMENT = "digits"


@dataclass(frozen=True)
class Sabotage:
    """One fault, what it must be called, and its harmless twin."""

    name: str
    what: str
    fault: Tampering
    twin: Tampering
    verdict: str
    named_by: str


@dataclass(frozen=True)
class Trial:
    """How a sabotage or its twin was judged."""

    name: str
    passed: bool
    sentence: str


def _edit_http(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Manifests], Manifests]:
    """An edit of the VirtualService's weighted routes, on a copy."""

    def edit(manifests: Manifests) -> Manifests:
        edited = copy.deepcopy(manifests)
        for manifest in edited:
            if manifest["kind"] == "VirtualService":
                for route in manifest["spec"]["http"]:
                    if len(route["route"]) > 1:
                        change(route["route"])
        return edited

    return edit


def _swap(destinations: list[dict[str, Any]]) -> None:
    """Give every destination the weight of its mirror image, and its own name still."""
    weights = [destination["weight"] for destination in destinations]
    for destination, weight in zip(destinations, reversed(weights), strict=True):
        destination["weight"] = weight


def _leak(destinations: list[dict[str, Any]]) -> None:
    """Let 1 % through where the weight is 0."""
    if not any(destination["weight"] == 0 for destination in destinations):
        return
    for destination in destinations:
        destination["weight"] = 1 if destination["weight"] == 0 else destination["weight"] - 1


HEALTHY = Tampering()


def sabotages(baseline: str, canary: str) -> tuple[Sabotage, ...]:
    """The faults of the self-test for an experiment with these two arms."""
    # Less than half of what a client waits for is the server's own time: 2.0 x of it was 44 % more for the client.
    slower = Tampering(Faults(slowdown={canary: 2.2}))
    failing = Tampering(Faults(failure_rate={canary: 0.05}))
    impostor = Tampering(Faults(serves={canary: baseline}))
    return (
        Sabotage("swapped", "weights swapped", Tampering(edit=_edit_http(_swap)), HEALTHY, "roll back", "split"),
        Sabotage("leak", "1 % leaks at weight 0", Tampering(edit=_edit_http(_leak)), HEALTHY, "roll back", "split"),
        Sabotage("impostor", "the canary's name serves the baseline's model", impostor, HEALTHY, "invalid", "serves"),
        Sabotage("slower", "the canary is about 50 % slower for its clients", slower, HEALTHY, "roll back", "latency"),
        Sabotage("failing", "the canary fails 5 %", failing, HEALTHY, "roll back", "errors"),
    )


def try_fault(sabotage: Sabotage, options: Options, narrator: Narrator) -> Trial:
    """Run with the fault; passed if the verdict is the fault's and names it."""
    narrator.say(f"sabotage {sabotage.name}: {sabotage.what}")
    outcome = _run(sabotage.fault, options, narrator)
    sentence = outcome.report.verdict.sentence
    caught = outcome.report.verdict.word == sabotage.verdict and sabotage.named_by in sentence
    return Trial(sabotage.name, caught, sentence)


def try_twin(name: str, twin: Tampering, options: Options, narrator: Narrator) -> Trial:
    """Run the harmless twin; passed if nothing is blamed and the canary is promoted."""
    narrator.say(f"twin of {name}")
    outcome = _run(twin, options, narrator)
    return Trial(f"twin of {name}", outcome.report.verdict.word == "promote", outcome.report.verdict.sentence)


def _run(tampering: Tampering, options: Options, narrator: Narrator) -> Outcome:
    loaded = reading.load(EXPERIMENT)
    return conduct(loaded, replace(options, tampering=tampering), narrator)


def selftest(only: str | None, options: Options, narrator: Narrator) -> list[Trial]:
    """Every sabotage, or one, and then the twins.

    Raises:
        SplitproofError: there is no sabotage called `only`.
    """
    experiment = reading.load(EXPERIMENT).experiment
    known = sabotages(experiment.baseline, experiment.canaries[0])
    chosen = [each for each in known if only in (None, each.name)]
    if not chosen:
        raise SplitproofError(f"--only {only}: must be one of {', '.join(each.name for each in known)}; name one.")
    trials = [try_fault(each, options, narrator) for each in chosen]
    # Twins that are equal are one run.
    twins = {id(each.twin): each for each in chosen}
    return trials + [try_twin(each.name, each.twin, options, narrator) for each in twins.values()]
