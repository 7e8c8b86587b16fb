"""SP109, SP115, SP116, SP117: routes that do something else than they seem to."""

from collections.abc import Iterator
from itertools import combinations

from deploy.lint.findings import Finding
from deploy.lint.world import (
    Json,
    World,
    gateways_of,
    host,
    http,
    named,
    namespace,
    of,
    overlap,
    rules_of,
    spec,
)

_REPEATING = frozenset({"5xx", "gateway-error", "reset", "retriable-4xx"})
"""Conditions of a retry that a model's server may meet after it has computed, or while it does."""


def unreachable(world: World) -> Iterator[Finding]:
    """A route behind one that takes everything."""
    for virtual in of(world, "VirtualService"):
        routes = http(virtual)
        for index, route in enumerate(routes[:-1]):
            if _takes_all(route):
                yield Finding(
                    "SP109", "error", named(virtual), f"spec.http[{index + 1}]",
                    f"spec.http[{index}] has no condition and takes every request",
                    "routes are tried in their order: what stands behind it never matches, so a header rule there "
                    "sends nobody to the canary",
                    f"move spec.http[{index}] to the end",
                )  # fmt: skip
                break


def _takes_all(route: Json) -> bool:
    blocks = route.get("match")
    return not blocks or any(
        set(block) <= {"name", "uri", "ignoreUriCase"}
        and block.get("uri", {"prefix": "/"}) in ({"prefix": "/"}, {"regex": ".*"})
        for block in blocks
    )


def stickiness(world: World) -> Iterator[Finding]:
    """A consistent hash behind weights."""
    for virtual in of(world, "VirtualService"):
        for rule in (rule for service in _split(virtual) for rule in rules_of(world, service)):
            for path in _hashes(rule):
                yield Finding(
                    "SP115", "warning", named(rule), path,
                    f"a consistent hash behind the weights of {named(virtual)}",
                    "the weights are drawn anew for each request; the hash chooses a pod inside the subset only: "
                    "one user meets both models",
                    "route users by a header that they keep, or do without the hash",
                )  # fmt: skip


def _split(virtual: Json) -> list[str]:
    """The hosts between whose subsets a route of it draws."""
    found = set()
    for route in http(virtual):
        drawn = [entry.get("destination") or {} for entry in route.get("route") or [] if entry.get("weight")]
        if len(drawn) > 1:
            found |= {host(str(to.get("host")), namespace(virtual)) for to in drawn}
    return sorted(found)


def _hashes(rule: Json) -> Iterator[str]:
    policies = [("spec.trafficPolicy", spec(rule).get("trafficPolicy"))]
    for index, subset in enumerate(spec(rule).get("subsets") or []):
        policies.append((f"spec.subsets[{index}].trafficPolicy", subset.get("trafficPolicy")))
    for path, policy in policies:
        if ((policy or {}).get("loadBalancer") or {}).get("consistentHash"):
            yield f"{path}.loadBalancer.consistentHash"


def retries(world: World) -> Iterator[Finding]:
    """Retries on conditions under which the model may have computed already."""
    for virtual in of(world, "VirtualService"):
        for index, route in enumerate(http(virtual)):
            given = route.get("retries") or {}
            conditions = [part.strip() for part in str(given.get("retryOn") or "").split(",")]
            bad = [part for part in conditions if part in _REPEATING or part.isdigit()]
            if bad and int(given.get("attempts") or 0) > 0:
                yield Finding(
                    "SP116", "warning", named(virtual), f"spec.http[{index}].retries.retryOn",
                    f"up to {given['attempts']} retries on {', '.join(bad)}",
                    "each repeats the inference on a server that is in trouble, hides failures of the canary, and "
                    "counts as one slow request",
                    "leave retries out (Istio then retries only what was not served), or set attempts: 0",
                )  # fmt: skip


def overlapping(world: World) -> Iterator[Finding]:
    """Two VirtualServices for the same host at the same gateway."""
    for one, other in combinations(of(world, "VirtualService"), 2):
        shared = set(gateways_of(one)) & set(gateways_of(other))
        hosts = [name for name in _hosts(one) if any(overlap(name, another) for another in _hosts(other))]
        if shared and hosts and named(one) != named(other):
            yield Finding(
                "SP117", "error", named(other), "spec.hosts",
                f"{', '.join(hosts)} at {', '.join(sorted(shared))} is routed by {named(one)} too",
                "Istio puts their routes together, the older object's first: which of the two decides rests on their "
                "age, and changes when one is deleted and applied again",
                "put the routes into one VirtualService, or give each hosts of its own",
            )  # fmt: skip


def _hosts(virtual: Json) -> list[str]:
    return [host(str(name), namespace(virtual)) for name in spec(virtual).get("hosts") or []]
