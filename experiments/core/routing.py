"""VirtualService + request → the share of traffic that each arm should get (pure; nothing is sent).

The semantics are Istio's: routes are tried in order, blocks of a `match` list are alternatives, fields of one block
must all hold, header names ignore case and values do not, a regex must match the whole value, weights are relative to
their sum (istio.io, VirtualService reference; observed translation in pilot/pkg/networking/core/route/route.go).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.core.errors import ExperimentError
from experiments.core.spec import Experiment, Phase, Route, Rule, TextMatch, When

ROUTE_HEADER = "x-splitproof-route"
"""The response header in which our VirtualServices name the phase and the arm that a request was routed to."""

SERVICE_PORT = 8501
"""TensorFlow Serving's REST port, which the Service exposes as `tf-serving-http`."""


@dataclass(frozen=True)
class Request:
    """What a router may look at."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Expectation:
    """The share that each arm should get, or the reason why none is configured."""

    shares: Mapping[str, float] | None
    reason: str = ""


def predict_path(model: str) -> str:
    """The URL path of a prediction in TensorFlow Serving's REST API."""
    return f"/v1/models/{model}:predict"


def route_value(phase: str, arm: str | None) -> str:
    """The route header's value: `PHASE/ARM`, or `PHASE/*` where no subset is named.

    >>> route_value("split", "resnet101")
    'split/resnet101'
    """
    return f"{phase}/{arm or '*'}"


def routed_arm(value: str | None) -> str | None:
    """The arm that a route header names, if it names one.

    >>> routed_arm("split/resnet101"), routed_arm("canary/*"), routed_arm(None)
    ('resnet101', None, None)
    """
    arm = (value or "").partition("/")[2]
    return arm if arm and arm != "*" else None


def routed_phase(value: str | None) -> str | None:
    """The phase that a route header names, if it names one."""
    return (value or "").partition("/")[0] or None


def http_routes(experiment: Experiment, phase: Phase, *, header: bool = True) -> list[dict[str, Any]]:
    """The `spec.http` of the VirtualService of a phase.

    Args:
        experiment: Names the Service.
        phase: Its `route` is rules or the plain Service; a route that is a file has no generated form.
        header: Add the route header to each destination's responses.

    Raises:
        ExperimentError: the route is somebody's own VirtualService.
    """
    if phase.route.virtual_service is not None:
        raise ExperimentError(f"phase {phase.name!r}: its route is the file {phase.route.virtual_service}.")
    if phase.route.service:
        return [{"route": [_destination(experiment, phase, None, header=header)]}]
    return [_http_route(experiment, phase, rule, header=header) for rule in phase.route.rules]


def _http_route(experiment: Experiment, phase: Phase, rule: Rule, *, header: bool) -> dict[str, Any]:
    destinations = []
    for arm, weight in rule.to.items():
        destination = _destination(experiment, phase, arm, header=header)
        if len(rule.to) > 1:
            destination["weight"] = weight
        destinations.append(destination)
    match = [_match_block(when) for when in rule.when]
    return {"match": match, "route": destinations} if match else {"route": destinations}


def _destination(experiment: Experiment, phase: Phase, arm: str | None, *, header: bool) -> dict[str, Any]:
    destination: dict[str, Any] = {"host": experiment.service, "port": {"number": SERVICE_PORT}}
    if arm is not None:
        destination["subset"] = arm
    entry: dict[str, Any] = {"destination": destination}
    if header:
        entry["headers"] = {"response": {"set": {ROUTE_HEADER: route_value(phase.name, arm)}}}
    return entry


def _match_block(when: When) -> dict[str, Any]:
    block: dict[str, Any] = {}
    if when.headers:
        block["headers"] = {name: _string_match(match) for name, match in when.headers.items()}
    if when.without_headers:
        block["withoutHeaders"] = {name: _string_match(match) for name, match in when.without_headers.items()}
    if when.uri is not None:
        block["uri"] = _string_match(when.uri)
    return block


def _string_match(match: TextMatch) -> dict[str, str]:
    return match.model_dump(exclude_none=True)


def expected_shares(
    http: Sequence[Mapping[str, Any]], request: Request, subsets: Mapping[str, str], endpoints: Sequence[str]
) -> Expectation:
    """The share that each arm should get of requests like this one.

    Args:
        http: `spec.http` of a VirtualService.
        request: What the router sees.
        subsets: Subset name to arm.
        endpoints: The arms that have endpoints behind the Service.

    Returns:
        Shares over all arms of `subsets`, summing to 1; or none, with the reason: no route matches, or the Service
        balances over the endpoints of several arms, or something matches on what this request does not determine.
    """
    for route in http:
        matched = _matches(route, request)
        if matched is None:
            return Expectation(None, "the route matches on something that this request does not determine")
        if matched:
            return _shares(route, subsets, endpoints)
    return Expectation(None, "no route matches: the gateway answers 404")


def matching_route(http: Sequence[Mapping[str, Any]], request: Request) -> int | None:
    """The place of the first route that takes a request like this one; None where none does or it cannot be told."""
    for place, route in enumerate(http):
        matched = _matches(route, request)
        if matched is not False:
            return place if matched else None
    return None


def phase_expectations(
    experiment: Experiment, phase: Phase, http: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Expectation]:
    """What each cohort should get in a phase; a stated `expect` goes before what the route says.

    Args:
        experiment: Cohorts, their headers, and the arms.
        phase: Its route is used unless `http` is given.
        http: `spec.http` of the phase's own VirtualService file, where it names one.
    """
    stated = phase.expect or {}
    routes = http_routes(experiment, phase) if http is None else http
    subsets = {arm: arm for arm in experiment.arms}
    path = predict_path(experiment.model)
    found: dict[str, Expectation] = {}
    for name, cohort in experiment.cohorts.items():
        if name in stated:
            found[name] = Expectation({arm: stated[name].get(arm, 0.0) for arm in experiment.arms})
        else:
            request = Request(path, cohort.headers)
            found[name] = expected_shares(routes, request, subsets, experiment.deployed(phase))
    return found


def _shares(route: Mapping[str, Any], subsets: Mapping[str, str], endpoints: Sequence[str]) -> Expectation:
    destinations = route.get("route")
    if not destinations:
        return Expectation(None, "the route answers by itself and sends nothing to an arm")
    # Whole weights are added before the division: shares of one arm then never sum to more than 1 by rounding.
    sums = dict.fromkeys(subsets.values(), 0)
    # The only destination gets everything, whatever its weight says.
    weights = [100 if len(destinations) == 1 else entry.get("weight", 0) for entry in destinations]
    total = sum(weights)
    if total <= 0:
        return Expectation(None, "the route's weights sum to 0")
    for entry, weight in zip(destinations, weights, strict=True):
        arm = _arm_of(entry["destination"], subsets, endpoints)
        if arm is None and weight:
            return Expectation(None, _no_arm(entry["destination"]))
        if arm is not None:
            sums[arm] += weight
    return Expectation({arm: weight / total for arm, weight in sums.items()})


def _arm_of(destination: Mapping[str, Any], subsets: Mapping[str, str], endpoints: Sequence[str]) -> str | None:
    """A subset's arm; without a subset the only arm that has endpoints."""
    subset = destination.get("subset")
    if subset is not None:
        return subsets.get(subset)
    return endpoints[0] if len(endpoints) == 1 else None


def _no_arm(destination: Mapping[str, Any]) -> str:
    if "subset" in destination:
        return f"subset {destination['subset']!r} is no arm of this experiment"
    return "the Service balances over the endpoints of several arms; no share is configured"


def _full_match(pattern: str, value: str) -> bool:
    try:
        return re.fullmatch(pattern, value) is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise ExperimentError(f"regex {pattern!r}: is no regular expression: {error}; mend it in the route.") from error


_TEXT: dict[str, Callable[[str, str], bool]] = {
    "exact": lambda pattern, value: value == pattern,
    "prefix": lambda pattern, value: value.startswith(pattern),
    "regex": _full_match,
}
_READ = {"headers", "withoutHeaders", "uri", "ignoreUriCase", "name"}
_PRESENCE: Mapping[str, str] = {"regex": "*"}
"""Istio's other way to ask whether a header is there at all."""

_SET_ON_THE_WAY = frozenset(
    {"accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type"}
    | {"host", "user-agent", "x-request-id"}
)
"""Headers that clients set by themselves; Envoy adds those that begin with `x-forwarded-` and `x-envoy-`."""


def _matches(route: Mapping[str, Any], request: Request) -> bool | None:
    """Does any block match? None where one that could decide looks at what we do not know."""
    blocks = route.get("match") or [{}]
    answers = [_block_matches(block, request) for block in blocks]
    if any(answers):
        return True
    return None if None in answers else False


def _block_matches(block: Mapping[str, Any], request: Request) -> bool | None:
    """Whether all of its conditions hold; None where none fails, but one cannot be told from the request."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    conditions = [_header_holds(name, matcher, headers) for name, matcher in _items(block, "headers")]
    conditions += [_is_without(name, matcher, headers) for name, matcher in _items(block, "withoutHeaders")]
    conditions.append(_uri_matches(block, request.path))
    if False in conditions:
        return False
    return None if None in conditions or set(block) - _READ else True


def _items(block: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, str]]]:
    return [(name.lower(), matcher or {}) for name, matcher in (block.get(key) or {}).items()]


def _header_holds(name: str, matcher: Mapping[str, str], headers: Mapping[str, str]) -> bool | None:
    return None if _unknown(name, headers) else _header_matches(matcher, headers.get(name))


def _is_without(name: str, matcher: Mapping[str, str], headers: Mapping[str, str]) -> bool | None:
    """Istio lets a matcher that looks at text see a missing header as an empty one."""
    if _unknown(name, headers):
        return None
    value = headers.get(name) if matcher in ({}, _PRESENCE) else headers.get(name, "")
    return not _header_matches(matcher, value)


def _unknown(name: str, headers: Mapping[str, str]) -> bool:
    """Whether a header may be there though the sender does not name it."""
    set_for_it = name in _SET_ON_THE_WAY or name.startswith((":", "x-forwarded-", "x-envoy-"))
    return set_for_it and name not in headers


def _header_matches(matcher: Mapping[str, str], value: str | None) -> bool:
    """An empty matcher asks for presence only."""
    if value is None:
        return False
    return matcher == _PRESENCE or all(_TEXT[kind](pattern, value) for kind, pattern in matcher.items())


def _uri_matches(block: Mapping[str, Any], path: str) -> bool:
    """`ignoreUriCase` is for exact and prefix: Envoy passes it over for a regex."""
    fold = str.lower if block.get("ignoreUriCase") else str
    uri: Mapping[str, str] = block.get("uri") or {}
    return all(
        _TEXT[kind](pattern, path) if kind == "regex" else _TEXT[kind](fold(pattern), fold(path))
        for kind, pattern in uri.items()
    )


def route_is_generated(route: Route) -> bool:
    """Whether the VirtualService of a route is ours, and so carries the route header."""
    return route.virtual_service is None
