"""The rules of an experiment that no single field can check, on values as they stand in the file.

They work on raw values, so that one reading reports these mistakes and the malformed fields together.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.core.quantities import RATE, SECONDS

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
    yield from _load(raw.get("load"))
    yield from _gates(raw)
    yield from _max_rate(raw)
    yield from _mean_limits(raw)
    yield from _secret_matches(raw)
    for index, phase in enumerate(_sequence(raw.get("phases"))):
        if isinstance(phase, Mapping):
            yield from _phase(phase, ("phases", index), arms, [str(c) for c in _mapping(raw.get("cohorts"))])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _arm_sources(raw: Mapping[str, Any]) -> Iterator[Problem]:
    arms = _mapping(raw.get("arms"))
    if raw.get("attach") is True and all(not _sources(arm) for arm in arms.values()):
        return
    for name, arm in arms.items():
        given = _sources(arm)
        if isinstance(arm, Mapping) and len(given) != 1:
            yield Problem(("arms", name), f"must name exactly one of {', '.join(_SOURCES)}; it names {len(given)}.")


def _sources(arm: Any) -> list[str]:
    return [source for source in _SOURCES if _mapping(arm).get(source) is not None]


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


def _secret_matches(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """No route depends on a value that the experiment does not state: its expectation could not be worked out."""
    matched = {str(name).lower() for phase in _sequence(raw.get("phases")) for name in _matched(_mapping(phase))}
    for cohort, settings in _mapping(raw.get("cohorts")).items():
        for name, value in _mapping(_mapping(settings).get("headers")).items():
            if "${" in str(value) and str(name).lower() in matched:
                yield Problem(
                    ("cohorts", cohort, "headers", name),
                    "holds a variable, and a route matches on this header: what to expect is not known; write it out.",
                )


def _matched(phase: Mapping[str, Any]) -> Iterator[str]:
    """The headers that the rules of a phase look at, in any of the forms in which they are written."""
    route = phase.get("route")
    for rule in _sequence(_mapping(route).get("rules", route)):
        when = _mapping(rule).get("when")
        for block in [when] if isinstance(when, Mapping) else _sequence(when):
            inner = _mapping(block)
            yield from _mapping(inner.get("headers", inner))
            yield from _mapping(inner.get("without_headers"))


_ENDS_AT_ZERO = re.compile(r"(?:.*\.\.)?\s*0+(?:\.0*)?\s*/\s*\w+\s*")


def _load(load: Any) -> Iterator[Problem]:
    """Steps follow one another: each but the last needs its length, and the last must go on with something."""
    place, steps = _steps(load)
    if place == ("load", "steps") and _mapping(load).get("arrivals") is not None and steps:
        yield Problem(place, "there is load.arrivals too; give one of the two.")
    if place != ("load", "arrivals") and not steps:
        yield Problem(place, "has no step; add one such as {arrivals: 5/s, for: 30s}.")
    for index, step in enumerate(steps[:-1]):
        if isinstance(step, Mapping) and step.get("for") is None:
            yield Problem(
                (*place, index), "has no `for` and would never end; only the last step may have none; add it."
            )
    last = _mapping(steps[-1]).get("arrivals") if steps else None
    if isinstance(last, str) and _ENDS_AT_ZERO.fullmatch(last):
        at = place if place == ("load", "arrivals") else (*place, len(steps) - 1, "arrivals")
        yield Problem(at, "the load would end at rate 0; its last rate holds until the end: add a step that goes on.")


def _steps(load: Any) -> tuple[tuple[int | str, ...], Sequence[Any]]:
    """The steps of a load as they stand in the file, and where they stand."""
    if isinstance(load, (list, tuple)):
        return ("load",), load
    settings = _mapping(load)
    if settings.get("steps"):
        return ("load", "steps"), _sequence(settings["steps"])
    ramp = ".." in str(settings.get("arrivals"))
    return ("load", "arrivals"), [settings] if ramp else []


def _max_rate(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """No rate of the load, at its steepest, is above the brake."""
    most = _rates(raw.get("max_rate"))
    place, steps = _steps(raw.get("load"))
    given = [step.get("arrivals") for step in steps if isinstance(step, Mapping)]
    given = given or [_mapping(raw.get("load")).get("arrivals")]
    for arrivals in given:
        above = [rate for rate in _rates(arrivals) if most and rate > most[0] * (1 + 1e-9)]
        if above:
            yield Problem(
                place if steps else ("load", "arrivals"),
                f"{arrivals} is above max_rate {raw.get('max_rate')}; lower the one, or raise the other.",
            )


def _rates(value: Any) -> list[float]:
    """The rates per second in a text such as `5/s..50/s`; none where the field's own check will complain."""
    found = [re.fullmatch(RATE, part.strip()) for part in value.split("..")] if isinstance(value, str) else []
    return [float(each[1]) / SECONDS[each[2]] for each in found if each]


def _gates(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """A gate needs a way back: one phase with `rollback`, the last, which sends everything to the baseline."""
    phases = [_mapping(phase) for phase in _sequence(raw.get("phases"))]
    ways_back = [index for index, phase in enumerate(phases) if phase.get("rollback")]
    gated = [index for index, phase in enumerate(phases) if phase.get("gate")]
    if gated and not ways_back:
        yield Problem(
            ("phases", gated[0], "gate"),
            "a gate needs a way back; add a last phase with rollback: true that sends everything to the baseline.",
        )
    for index in ways_back:
        place = ("phases", index, "rollback")
        if not gated:
            yield Problem(place, "no phase has a gate that could lead here; give one gate: true, or drop this phase.")
        if index != len(phases) - 1 or index == 0:
            yield Problem(place, "must be the last phase, after at least one other; move it.")
        if phases[index].get("gate"):
            yield Problem(place, "a phase is a gate or the way back, never both; drop one.")
        baseline = next(iter(_mapping(raw.get("arms"))), None)
        for _place, weights in _weightings(phases[index].get("route"), ("phases", index, "route")):
            if any(weight for arm, weight in weights.items() if arm != baseline):
                yield Problem(place, f"must send everything to the baseline, {baseline!r}; change its route.")


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
    yield from _patterns(phase.get("route"), (*loc, "route"))
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


_NOT_IN_RE2 = re.compile(r"\(\?(?:=|!|<=|<!|P=|>)|\\[1-9]")


def _patterns(value: Any, loc: tuple[int | str, ...]) -> Iterator[Problem]:
    """Every `regex` below a place that Envoy's RE2 would refuse."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key == "regex" and isinstance(each, str):
                yield from _pattern(each, (*loc, key))
            else:
                yield from _patterns(each, (*loc, key))
    for index, each in enumerate(_sequence(value)):
        yield from _patterns(each, (*loc, index))


def _pattern(pattern: str, loc: tuple[int | str, ...]) -> Iterator[Problem]:
    found = _NOT_IN_RE2.search(pattern)
    if found:
        yield Problem(loc, f"{pattern!r}: {found[0]!r} is not known to RE2, Envoy's regular expressions; do without.")
        return
    try:
        re.compile("" if pattern == "*" else pattern)  # for Istio, * alone asks whether a header is there
    except (re.error, RecursionError, OverflowError) as error:
        yield Problem(loc, f"{pattern!r}: is no regular expression: {error}; mend it.")


def _expectations(
    phase: Mapping[str, Any], loc: tuple[int | str, ...], arms: list[str], cohorts: list[str]
) -> Iterator[Problem]:
    expect = _mapping(phase.get("expect"))
    yield from _unknown([str(cohort) for cohort in expect], cohorts, (*loc, "expect"), "cohort")
    for cohort, shares in expect.items():
        place = (*loc, "expect", cohort)
        yield from _unknown([str(arm) for arm in _mapping(shares)], arms, place, "arm")
        yield from _shares_problem(place, [_percent(share) for share in _mapping(shares).values()])
