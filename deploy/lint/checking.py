"""All rules over all objects (pure)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from deploy.lint.findings import Finding, Untold
from deploy.lint.gateways import bindings, in_mesh, selectors
from deploy.lint.models import models
from deploy.lint.ports import protocols
from deploy.lint.routes import overlapping, retries, stickiness, unreachable
from deploy.lint.sidecars import sidecars
from deploy.lint.subsets import empty, undefined
from deploy.lint.weights import weights
from deploy.lint.world import Json, World

Rule = Callable[[World], Iterable[Finding | Untold]]

CODES: Mapping[str, str] = {
    "SP101": "weights that sum to 0",
    "SP102": "weights that do not sum to 100",
    "SP103": "a route to a subset that no DestinationRule defines",
    "SP104": "a route with a weight to a subset without pods",
    "SP105": "labels of a subset that differ from those of the Deployment that it means",
    "SP106": "a Gateway's selector that no gateway's pods have",
    "SP107": "a VirtualService's host that none of its Gateways has",
    "SP108": "a VirtualService bound to a Gateway that is not there",
    "SP109": "a route behind one that takes everything",
    "SP110": "a port whose name gives the wrong protocol",
    "SP111": "two arms with different MODEL_NAME",
    "SP112": "two arms on one model path",
    "SP113": "the gateway `mesh` is missing where clients in the mesh are meant",
    "SP114": "pods without a sidecar although injection is on",
    "SP115": "a consistent hash behind weights",
    "SP116": "retries that repeat inference",
    "SP117": "VirtualServices that overlap on a host",
}
"""What each code means."""

_RULES: Sequence[Rule] = (
    weights, undefined, empty, selectors, bindings, unreachable, protocols, models, in_mesh, sidecars, stickiness,
    retries, overlapping,
)  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """What was found, errors first, and what could not be told."""

    findings: Sequence[Finding]
    untold: Sequence[Untold]

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.level == "error" for finding in self.findings)


def check(objects: Iterable[Json], *, in_mesh_clients: bool = False) -> Checked:
    """Every finding about these objects, once.

    Args:
        objects: Decoded manifests, or live objects; the kinds that are read are `deploy.lint.world.KINDS`.
        in_mesh_clients: Pods of the mesh are to be routed too, not only what comes through the gateway.
    """
    said = list(dict.fromkeys(_said(World(tuple(objects), in_mesh_clients))))
    findings = [each for each in said if isinstance(each, Finding)]
    untold = [each for each in said if isinstance(each, Untold)]
    return Checked(sorted(findings, key=lambda each: (each.level, each.code)), untold)


def _said(world: World) -> Iterator[Finding | Untold]:
    for rule in _RULES:
        yield from rule(world)
