"""The rules of an experiment that no single field can check, on values as they stand in the file.

They work on raw values, so that one reading reports these mistakes and the malformed fields together.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SOURCES = ("keras", "saved_model", "digits")


@dataclass(frozen=True)
class Problem:
    """Something wrong at a place in the file: what, the rule, what to do."""

    loc: tuple[int | str, ...]
    text: str


def semantic_problems(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Every broken rule that spans several fields."""
    arms = [str(arm) for arm in _mapping(raw.get("arms"))]
    yield from _arm_sources(raw)
    yield from _cohort_shares(raw)
    yield from _phase_names(raw)
    yield from _mean_limits(raw)
    for index, phase in enumerate(_sequence(raw.get("phases"))):
        if isinstance(phase, Mapping):
            yield from _phase(phase, ("phases", index), arms, [str(c) for c in _mapping(raw.get("cohorts"))])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _arm_sources(raw: Mapping[str, Any]) -> Iterator[Problem]:
    for name, arm in _mapping(raw.get("arms")).items():
        given = [source for source in _SOURCES if _mapping(arm).get(source) is not None]
        if isinstance(arm, Mapping) and len(given) != 1:
            yield Problem(("arms", name), f"must name exactly one of {', '.join(_SOURCES)}; it names {len(given)}.")


def _percent(value: Any) -> float | None:
    """A share as a fraction, or None where the field's own check will complain."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip()) if isinstance(value, str) else None
    if found:
        return float(found[1]) / 100
    return value if isinstance(value, float) else None


def _shares_problem(loc: tuple[int | str, ...], shares: list[float | None]) -> Iterator[Problem]:
    known = [share for share in shares if share is not None]
    if known and len(known) == len(shares) and not math.isclose(sum(known), 1, abs_tol=1e-6):
        yield Problem(loc, f"shares sum to {100 * sum(known):g}%, must be 100%; change them.")


def _cohort_shares(raw: Mapping[str, Any]) -> Iterator[Problem]:
    cohorts = _mapping(raw.get("cohorts"))
    yield from _shares_problem(("cohorts",), [_percent(_mapping(cohort).get("share")) for cohort in cohorts.values()])


def _phase_names(raw: Mapping[str, Any]) -> Iterator[Problem]:
    names = [_mapping(phase).get("name") for phase in _sequence(raw.get("phases"))]
    for index, name in enumerate(names):
        if isinstance(name, str) and Counter(names)[name] > 1 and name in names[:index]:
            yield Problem(("phases", index, "name"), f"{name!r} is used before; phase names must differ; rename one.")


def _mean_limits(raw: Mapping[str, Any]) -> Iterator[Problem]:
    claim = _mapping(_mapping(raw.get("claims")).get("latency")).get("mean")
    limit = claim if isinstance(claim, str) and claim.lstrip().startswith("<") else _mapping(claim).get("limit")
    if limit is not None:
        loc = ("claims", "latency", "mean")
        yield Problem(loc, "a limit is for quantiles; give the mean a margin such as +20%, or limit p50 or p99.")


def _phase(
    phase: Mapping[str, Any], loc: tuple[int | str, ...], arms: list[str], cohorts: list[str]
) -> Iterator[Problem]:
    deployed = [str(arm) for arm in _sequence(phase.get("arms"))]
    yield from _unknown(deployed, arms, (*loc, "arms"), "arm")
    present = deployed if phase.get("arms") is not None else arms
    for place, weights in _weightings(phase.get("route"), (*loc, "route")):
        yield from _unknown(list(weights), arms, place, "arm")
        yield from _weights(weights, place)
        for arm, weight in weights.items():
            if arm in arms and arm not in present and weight:
                yield Problem(place, f"{arm!r} has weight but is not in this phase's arms; deploy it or drop it.")
    yield from _route_form(phase, loc)
    yield from _expectations(phase, loc, arms, cohorts)


def _weightings(route: Any, loc: tuple[int | str, ...]) -> Iterator[tuple[tuple[int | str, ...], Mapping[str, Any]]]:
    """Every `arm: weight` mapping of a route, with its place."""
    if isinstance(route, str) and route != "service":
        yield loc, {route: 100}
    if isinstance(route, Mapping):
        if "rules" in route:
            yield from _weightings(route["rules"], (*loc, "rules"))
        elif not set(route) & {"service", "virtual_service"}:
            yield loc, route
    for index, rule in enumerate(_sequence(route)):
        to = _mapping(rule).get("to")
        weights = {to: 100} if isinstance(to, str) else _mapping(to)
        if weights:
            yield (*loc, index, "to"), weights


def _unknown(names: list[str], known: list[str], loc: tuple[int | str, ...], what: str) -> Iterator[Problem]:
    for name in names:
        if known and name not in known:
            yield Problem(loc, f"unknown {what} {name!r}; must be one of {', '.join(known)}.")


def _weights(weights: Mapping[str, Any], loc: tuple[int | str, ...]) -> Iterator[Problem]:
    values = [w for w in weights.values() if isinstance(w, int)]
    if len(values) == len(weights) and sum(values) == 0:
        yield Problem(loc, "weights sum to 0; at least one must be positive; change them.")


def _route_form(phase: Mapping[str, Any], loc: tuple[int | str, ...]) -> Iterator[Problem]:
    route = phase.get("route")
    rules = _sequence(route) or _sequence(_mapping(route).get("rules"))
    for index, rule in enumerate(rules[:-1]):
        if isinstance(rule, Mapping) and not rule.get("when"):
            yield Problem(
                (*loc, "route", index),
                "a rule without `when` takes everything; the rules after it never match.",
            )
    if isinstance(route, (list, tuple)) and not route:
        yield Problem((*loc, "route"), "has no rule; add one.")


def _expectations(
    phase: Mapping[str, Any], loc: tuple[int | str, ...], arms: list[str], cohorts: list[str]
) -> Iterator[Problem]:
    expect = _mapping(phase.get("expect"))
    yield from _unknown([str(cohort) for cohort in expect], cohorts, (*loc, "expect"), "cohort")
    for cohort, shares in expect.items():
        place = (*loc, "expect", cohort)
        yield from _unknown([str(arm) for arm in _mapping(shares)], arms, place, "arm")
        yield from _shares_problem(place, [_percent(share) for share in _mapping(shares).values()])
