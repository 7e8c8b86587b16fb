"""SP103, SP104, SP105: routes to subsets that are not defined, or behind which there is nothing."""

from collections.abc import Iterator

from deploy.lint.findings import Finding, Untold
from deploy.lint.world import (
    Json,
    Workload,
    World,
    behind,
    destinations,
    host,
    labels_of,
    named,
    namespace,
    of,
    rules_of,
    services,
    spec,
    workloads,
)

_EMPTY = "every request that is routed there gets 503"


def undefined(world: World) -> Iterator[Finding | Untold]:
    """A route names a subset that no DestinationRule of the host defines."""
    for virtual in of(world, "VirtualService"):
        for path, destination, _ in destinations(virtual):
            subset, service = destination.get("subset"), _host(virtual, destination)
            if subset is None or subset in _subsets(world, service):
                continue
            if not rules_of(world, service) and service not in services(world):
                yield Untold("SP103", f"neither the Service nor a DestinationRule of {service} is there")
                continue
            known = ", ".join(_subsets(world, service)) or "none"
            yield Finding(
                "SP103", "error", named(virtual), f"{path}.destination.subset",
                f"subset {subset!r} is in no DestinationRule of {service} (defined: {known})",
                f"Envoy knows no such cluster: {_EMPTY}, also where the weight is small",
                f"define it in the DestinationRule, or name one of those: {known}",
            )  # fmt: skip


def empty(world: World) -> Iterator[Finding | Untold]:
    """A route with a weight goes to a subset whose labels no pod behind the Service has."""
    for virtual in of(world, "VirtualService"):
        for _, destination, weight in destinations(virtual):
            service, name = _host(virtual, destination), str(destination.get("subset"))
            found = _subsets(world, service).get(name)
            if found is None or weight <= 0:
                continue
            known = services(world).get(service)
            if known is None or not any(each.namespace == namespace(known) for each in workloads(world)):
                yield Untold("SP104", f"the Service {service}, or whatever makes its pods, is not there")
            elif not any(each.replicas for each in behind(world, known, found[1].get("labels") or {})):
                yield _nothing_behind(world, known, name, found)


def _host(virtual: Json, destination: Json) -> str:
    return host(str(destination.get("host")), namespace(virtual))


def _subsets(world: World, service: str) -> dict[str, tuple[Json, Json, int]]:
    """By name: the DestinationRule, the subset, its place."""
    return {
        str(subset.get("name")): (rule, subset, index)
        for rule in rules_of(world, service)
        for index, subset in enumerate(spec(rule).get("subsets") or [])
    }


def _nothing_behind(world: World, service: Json, name: str, found: tuple[Json, Json, int]) -> Finding:
    rule, subset, index = found
    wanted = dict(subset.get("labels") or {})
    where = (named(rule), f"spec.subsets[{index}].labels")
    meant = _meant(world, service, wanted)
    if meant is None:
        return Finding(
            "SP104", "error", *where, f"no pod behind {named(service)} has {wanted}, the labels of subset {name!r}",
            f"the subset has no endpoint: {_EMPTY} (no healthy upstream)",
            "deploy the arm, or scale it up, before it gets a weight",
        )  # fmt: skip
    return Finding(
        "SP105", "error", *where,
        f"subset {name!r} asks for {wanted}, and the pods of {named(meant.owner)} have {dict(meant.labels)}",
        f"labels of the pod template count, not those of the Deployment; the subset has no endpoint: {_EMPTY}",
        "write the same labels in spec.template.metadata.labels and in the subset",
    )  # fmt: skip


def _meant(world: World, service: Json, wanted: dict[str, str]) -> Workload | None:
    """The workload that the subset seems to mean: it bears its labels in the wrong place, or no subset has it."""
    near = [each for each in workloads(world) if each.namespace == namespace(service) and each.replicas]
    for each in near:
        if wanted and wanted.items() <= labels_of(each.owner).items():
            return each
    full = host(str(service["metadata"]["name"]), namespace(service))
    taken = [dict(subset.get("labels") or {}) for _, subset, _ in _subsets(world, full).values()]
    selected = behind(world, service)
    for each in near:
        if each in selected and not any(labels.items() <= each.labels.items() for labels in taken):
            return each
    return None
