"""A plan as people read it before a load, and as JSON."""

from collections.abc import Iterator
from typing import Any

from analysis import words
from analysis.plan.model import Design, Designs, Outlook, Plan

CERTAIN = 0.99


def lines(plan: Plan) -> list[str]:
    """One line for each claim, then what the load decides, and what would be cheaper."""
    told = [_line(one) for one in plan.outlooks]
    told.append(f"plan: {_variance(plan)}")
    told.append(_decides(plan))
    if plan.designs is not None:
        told += [f"plan: {line}" for line in _designs(plan.designs)]
    return told


def _variance(plan: Plan) -> str:
    if plan.history.startswith("no earlier run"):
        return f"{plan.history}: nothing is supposed to fail, latencies to be lognormal and alike."
    return f"failures and latencies vary as in run {plan.history}."


def _decides(plan: Plan) -> str:
    if plan.undecidable:
        names = words.listed([one.id for one in plan.undecidable])
        return f"plan: this load will probably not decide {names}: expect hold."
    return "plan: this load can decide every required claim."


def chance(one: Outlook) -> str:
    """A probability, with what simulation leaves open."""
    if one.chance >= CERTAIN:
        return "over 99%"
    error = f" ± {words.points(one.error)}" if one.error else ""
    return f"{words.percent(one.chance, 0)}{error}"


def _line(one: Outlook) -> str:
    text = f"plan: {one.id:<44} {words.count(one.requests):>8} requests, shown if healthy: {chance(one)}"
    if one.decidable:
        return text
    if one.needed is None or one.seconds is None:
        return f"{text}; no load would do: {one.assumption}"
    return f"{text}; takes {words.requests(one.needed)}, a phase of {words.duration(one.seconds)}"


def _designs(found: Designs) -> Iterator[str]:
    planned, best = found.planned, found.cheapest
    yield f"at {planned.weight}% {found.canary} in {found.phase}: {_takes(planned)}."
    if best is planned:
        yield "no other weight of the canary is clearly quicker."
    else:
        instead = f"cheapest: {best.weight}% {found.canary} instead of {planned.weight}%"
        yield f"{instead}: {_takes(best)}{_part(best, planned)}."
    for one in found.compared:
        if one.weight == best.weight and one.arrivals > planned.arrivals:
            yield f"at {one.arrivals:g}/s, if the service keeps up: {_takes(one)}."


def _takes(one: Design) -> str:
    if one.seconds is None or one.requests is None:
        return f"no length would do, because of {one.bottleneck}"
    because = f"; {one.bottleneck} takes longest" if one.bottleneck else ""
    return f"{words.duration(one.seconds)} in all, {words.requests(one.requests)}{because}"


PARTS = ((0.37, "a third"), (0.55, "half"), (0.7, "two thirds"), (0.8, "three quarters"))


def _part(best: Design, planned: Design) -> str:
    """How much of the planned time that is, in words."""
    if not (best.seconds and planned.seconds):
        return ""
    ratio = best.seconds / planned.seconds
    named = next((name for limit, name in PARTS if ratio <= limit and ratio > limit - 0.1), None)
    return f", about {named} of the time" if named else f", {words.percent(ratio, 0)} of the time"


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything that a plan says; seconds and requests, chances as fractions."""
    bottleneck = plan.bottleneck
    return {
        "schema_version": 1,
        "experiment": plan.experiment,
        "power": plan.power,
        "variance_from": plan.history,
        "decidable": not plan.undecidable,
        "bottleneck": bottleneck.id if bottleneck else None,
        "claims": [_claim(one) for one in plan.outlooks],
        "designs": _compared(plan.designs) if plan.designs else None,
    }


def _claim(one: Outlook) -> dict[str, Any]:
    return {
        "id": one.id,
        "required": one.required,
        "phase": one.phase,
        "requests": round(one.requests),
        "chance": one.chance,
        "chance_error": one.error,
        "decidable": one.decidable,
        "needed_requests": one.needed,
        "needed_seconds": one.seconds,
        "assumption": one.assumption,
    }


def _compared(found: Designs) -> dict[str, Any]:
    return {
        "phase": found.phase,
        "canary": found.canary,
        "planned": _design(found.planned),
        "cheapest": _design(found.cheapest),
        "compared": [_design(one) for one in found.compared],
    }


def _design(one: Design) -> dict[str, Any]:
    return {
        "canary_percent": one.weight,
        "arrivals_per_second": one.arrivals,
        "phase_seconds": one.phases,
        "seconds": one.seconds,
        "requests": None if one.requests is None else round(one.requests),
        "bottleneck": one.bottleneck,
    }
