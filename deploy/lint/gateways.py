"""SP106, SP107, SP108, SP113: the way from a Gateway to a VirtualService, and from inside of the mesh."""

from collections.abc import Iterator

from deploy.lint.findings import Finding, Untold
from deploy.lint.world import (
    MESH,
    Json,
    World,
    destinations,
    gateways_of,
    host,
    meta,
    named,
    namespace,
    of,
    overlap,
    services,
    spec,
    workloads,
)

_USUAL = {"istio": "ingressgateway", "app": "istio-ingressgateway"}
"""The labels that Istio's own installation gives to its ingress gateway."""


def selectors(world: World) -> Iterator[Finding | Untold]:
    """A Gateway's selector that no gateway's pods have."""
    proxies = [each for each in workloads(world) if "istio" in each.labels and each.labels["istio"] != "pilot"]
    for gateway in of(world, "Gateway"):
        wanted = dict(spec(gateway).get("selector") or {})
        if any(wanted.items() <= each.labels.items() for each in workloads(world)):
            continue
        if not proxies and wanted.items() <= _USUAL.items():
            yield Untold("SP106", "no gateway's pods are there, and the selector is the usual one")
            continue
        known = "; ".join(str(dict(each.labels)) for each in proxies) or f"Istio's own installation gives {_USUAL}"
        yield Finding(
            "SP106", "error" if proxies else "warning", named(gateway), "spec.selector",
            f"no gateway's pods have {wanted} ({known})",
            "no proxy opens the port: connections are refused, or another Gateway's routes answer",
            "write the labels of your ingress gateway's pods: kubectl get pods -A -l istio --show-labels",
        )  # fmt: skip


def bindings(world: World) -> Iterator[Finding | Untold]:
    """A VirtualService names a Gateway that is not there, or hosts that none of its Gateways has."""
    known = {f"{namespace(each)}/{meta(each).get('name')}": each for each in of(world, "Gateway")}
    for virtual in of(world, "VirtualService"):
        names = gateways_of(virtual)
        for index, name in enumerate(names):
            if name != MESH and name not in known:
                yield _absent(virtual, index, name, known)
        bound = [known[name] for name in names if name in known]
        if bound and MESH not in names:
            yield from _strange_hosts(virtual, bound)


def _absent(virtual: Json, index: int, name: str, known: dict[str, Json]) -> Finding | Untold:
    if not known:
        return Untold("SP108", "no Gateway is there")
    return Finding(
        "SP108", "error", named(virtual), f"spec.gateways[{index}]", f"there is no Gateway {name}",
        "the VirtualService is bound to nothing: the gateway answers 404",
        f"name one of {', '.join(known)}, with its namespace where that is another",
    )  # fmt: skip


def _strange_hosts(virtual: Json, bound: list[Json]) -> Iterator[Finding]:
    offered = [name for gateway in bound for name in _hosts(gateway, namespace(virtual))]
    for index, name in enumerate(spec(virtual).get("hosts") or []):
        if not any(overlap(host(str(name), namespace(virtual)), other) for other in offered):
            yield Finding(
                "SP107", "error", named(virtual), f"spec.hosts[{index}]",
                f"{name!r} is not among the hosts of {', '.join(map(named, bound))}: {', '.join(offered) or 'none'}",
                "only what both name is routed: requests for this host get 404",
                "name the host in the Gateway, or one of the Gateway's in the VirtualService",
            )  # fmt: skip


def _hosts(gateway: Json, inside: str) -> list[str]:
    """The hosts that a Gateway offers to VirtualServices of a namespace."""
    found = []
    for server in spec(gateway).get("servers") or []:
        for text in server.get("hosts") or []:
            where, _, name = str(text).rpartition("/")
            if where in {"", "*", inside} or (where == "." and namespace(gateway) == inside):
                found.append(host(name, namespace(gateway)))
    return found


def in_mesh(world: World) -> Iterator[Finding]:
    """Clients in the mesh are meant, and the VirtualService is for the gateway alone."""
    for virtual in of(world, "VirtualService"):
        if MESH in gateways_of(virtual):
            continue
        inside = [str(name) for name in spec(virtual).get("hosts") or []]
        own = [name for name in inside if host(name, namespace(virtual)) in services(world)]
        meant = {host(str(to.get("host")), namespace(virtual)) for _, to, _ in destinations(virtual)}
        if not own and not (world.in_mesh_clients and meant & services(world).keys()):
            continue
        said = f"hosts name the Service {own[0]}" if own else "clients in the mesh are to be routed"
        yield Finding(
            "SP113", "warning", named(virtual), "spec.gateways", f"{said}, and the gateway 'mesh' is missing",
            "sidecars do not see it: clients in the mesh reach all pods of the Service, whatever the weights say",
            "add 'mesh' to spec.gateways, and the Service's name to spec.hosts ('*' is not allowed with mesh)",
        )  # fmt: skip
