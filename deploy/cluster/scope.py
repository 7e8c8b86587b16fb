"""Which of others' objects have to do with the traffic of a run: a namespace may be shared by many teams (pure)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.cluster.attached import gateways_of


@dataclass(frozen=True)
class Scope:
    """What a run's requests go through.

    Attributes:
        service: The name of its Service; its VirtualService has the same.
        namespace: Where both are.
        selector: The labels of the pods behind the Service.
        gateways: The Gateways, by namespace and name, that its VirtualService is bound to.
    """

    service: str
    namespace: str
    selector: Mapping[str, str] = field(default_factory=dict)
    gateways: frozenset[tuple[str, str]] = frozenset()


def matters(scope: Scope, item: Mapping[str, Any]) -> bool:
    """Whether a change of an object can be a change for the run's requests; where that is not sure, it can.

    Gateways always: two that open one port of one proxy are put together.
    """
    kind, spec = item["kind"], item.get("spec") or {}
    if kind == "Pod":
        return _has(scope.selector, item["metadata"].get("labels"))
    if kind == "Deployment":
        return _has(scope.selector, ((spec.get("template") or {}).get("metadata") or {}).get("labels"))
    if kind == "DestinationRule":
        return _names(scope, str(spec.get("host", "")))
    if kind == "VirtualService":
        bound = set(gateways_of(item, scope.namespace))
        mentioned = any(_names(scope, host) for host in _hosts(spec))
        return item["metadata"]["name"] == scope.service or bool(bound & scope.gateways) or mentioned
    return True


def _has(selector: Mapping[str, str], labels: Mapping[str, str] | None) -> bool:
    return selector.items() <= (labels or {}).items()


def _names(scope: Scope, host: str) -> bool:
    """Whether a host in an object of the same namespace means the Service, in whatever length it is written."""
    whole = f"{scope.service}.{scope.namespace}.svc."
    if host.startswith("*"):
        return f"{whole}cluster.local".endswith(host[1:])
    return host == scope.service or whole.startswith(f"{host}.") or host.startswith(whole)


def _hosts(value: Any) -> Iterator[str]:
    """Every host that a VirtualService is for, or routes or mirrors to."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "host" and isinstance(inner, str):
                yield inner
            elif name == "hosts" and isinstance(inner, list):
                yield from (str(each) for each in inner if not str(each).startswith("*"))
            else:
                yield from _hosts(inner)
    elif isinstance(value, list):
        for each in value:
            yield from _hosts(each)
