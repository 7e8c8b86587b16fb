"""The objects that rules look at, and what they are to each other (pure)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

KINDS = (
    ("v1", "Namespace"),
    ("v1", "ConfigMap"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("networking.istio.io/v1", "Gateway"),
    ("networking.istio.io/v1", "DestinationRule"),
    ("networking.istio.io/v1", "VirtualService"),
)
"""What the rules read. Of a live cluster they need those of the experiment's namespace, and every Pod of a gateway."""

DOMAIN = "svc.cluster.local"
MESH = "mesh"
"""The gateway that stands for all sidecars."""

_OWNERS = frozenset({"Deployment", "StatefulSet", "DaemonSet"})


@dataclass(frozen=True)
class World:
    """Everything that is known; `in_mesh_clients` says that pods of the mesh are to be routed too."""

    objects: Sequence[Json]
    in_mesh_clients: bool = False


@dataclass(frozen=True)
class Workload:
    """Pods, by what makes them or by themselves."""

    owner: Json
    namespace: str
    labels: Mapping[str, str]
    pod: Json
    replicas: int


def of(world: World, kind: str) -> list[Json]:
    """The objects of a kind, of Istio's or Kubernetes' own groups."""
    return [each for each in world.objects if each.get("kind") == kind and not _is_of_gateway_api(each)]


def _is_of_gateway_api(manifest: Json) -> bool:
    """Kubernetes' Gateway API has a kind `Gateway` too."""
    return str(manifest.get("apiVersion")).startswith("gateway.networking.k8s.io/")


def meta(manifest: Json) -> Json:
    """The metadata, empty where there is none."""
    found: Json = manifest.get("metadata") or {}
    return found


def labels_of(manifest: Json) -> dict[str, str]:
    """The labels of an object."""
    return dict(meta(manifest).get("labels") or {})


def spec(manifest: Json) -> Json:
    """The spec, empty where there is none."""
    found: Json = manifest.get("spec") or {}
    return found


def namespace(manifest: Json) -> str:
    """The namespace, which is `default` where none is named."""
    return str(meta(manifest).get("namespace") or "default")


def named(manifest: Json) -> str:
    """`Kind namespace/name`."""
    name = meta(manifest).get("name", "?")
    return f"{manifest['kind']} {name if manifest['kind'] == 'Namespace' else f'{namespace(manifest)}/{name}'}"


def host(name: str, inside: str) -> str:
    """A host as Istio reads it: a name without a dot is a Service of the object's own namespace.

    >>> host("image-classifier", "tf-serving"), host("*", "tf-serving")
    ('image-classifier.tf-serving.svc.cluster.local', '*')
    """
    return name if "." in name or "*" in name else f"{name}.{inside}.{DOMAIN}"


def services(world: World) -> dict[str, Json]:
    """Each Service by its full name."""
    return {host(str(meta(each).get("name")), namespace(each)): each for each in of(world, "Service")}


def rules_of(world: World, service: str) -> list[Json]:
    """The DestinationRules of a host."""
    return [
        each for each in of(world, "DestinationRule") if host(str(spec(each).get("host")), namespace(each)) == service
    ]


def http(virtual: Json) -> list[Json]:
    """The routes of a VirtualService."""
    return [route for route in spec(virtual).get("http") or [] if isinstance(route, dict)]


def destinations(virtual: Json) -> Iterator[tuple[str, Json, int]]:
    """Each destination with its path and the weight that it really has: the only one of a route gets everything."""
    for index, route in enumerate(http(virtual)):
        entries = route.get("route") or []
        for place, entry in enumerate(entries):
            weight = 100 if len(entries) == 1 else int(entry.get("weight") or 0)
            yield f"spec.http[{index}].route[{place}]", entry.get("destination") or {}, weight


def workloads(world: World) -> list[Workload]:
    """What makes pods, and pods; a Deployment that is scaled to 0 makes none."""
    found = []
    for each in world.objects:
        if each.get("kind") in _OWNERS:
            template = spec(each).get("template") or {}
            replicas = int(spec(each).get("replicas", 1))
            found.append(Workload(each, namespace(each), labels_of(template), template.get("spec") or {}, replicas))
        elif each.get("kind") == "Pod" and (each.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}:
            found.append(Workload(each, namespace(each), labels_of(each), spec(each), 1))
    return found


def behind(world: World, service: Json, more: Mapping[str, str] | None = None) -> list[Workload]:
    """The workloads that a Service selects, and of these the ones with more labels."""
    wanted = {**(spec(service).get("selector") or {}), **(more or {})}
    return [
        each
        for each in workloads(world)
        if wanted and each.namespace == namespace(service) and wanted.items() <= each.labels.items()
    ]


def gateways_of(virtual: Json) -> list[str]:
    """The gateways of a VirtualService as `namespace/name`, or `mesh`."""
    given = spec(virtual).get("gateways") or [MESH]
    return [name if name == MESH or "/" in name else f"{namespace(virtual)}/{name}" for name in given]


def overlap(one: str, other: str) -> bool:
    """Whether any host is meant by both of two names, of which each may begin with `*`.

    >>> overlap("*", "a.example"), overlap("*.example", "a.example"), overlap("a.example", "b.example")
    (True, True, False)
    """
    if one.startswith("*") and other.startswith("*"):
        return one[1:].endswith(other[1:]) or other[1:].endswith(one[1:])
    for wide, narrow in ((one, other), (other, one)):
        if wide.startswith("*"):
            return narrow.endswith(wide[1:])
    return one == other
