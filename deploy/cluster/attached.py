"""A stack that somebody else has put up: what of it an experiment needs, and what it lacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.cluster.client import Cluster, Json
from deploy.cluster.objects import get, name_of
from experiments.core.errors import StackError
from experiments.core.spec import Experiment
from experiments.core.stack import PLAIN, Front

_INGRESS = {"istio": "ingressgateway"}
_PLAIN = ("HTTP", "HTTP2", "GRPC")


@dataclass(frozen=True)
class Attached:
    """What is there: the routes before us, the labels of each arm's pods, those of the gateway's, its port."""

    routes: Sequence[Json]
    arms: Mapping[str, Mapping[str, str]]
    gateway: Mapping[str, str]
    front: Front


def examine(cluster: Cluster, experiment: Experiment, api: str) -> Attached:
    """The stack that an experiment attaches to.

    Raises:
        StackError: its Service, DestinationRule or VirtualService is missing, or an arm has no subset.
    """
    service = _needed(cluster, experiment, "v1", "Service")
    rule = _needed(cluster, experiment, api, "DestinationRule")
    virtual = _needed(cluster, experiment, api, "VirtualService")
    subsets = {str(each["name"]): each.get("labels") or {} for each in rule["spec"].get("subsets") or ()}
    missing = [arm for arm in experiment.arms if arm not in subsets]
    if missing:
        raise StackError(
            f"{cluster}: {name_of(rule)} has no subset {missing[0]!r}; it has {', '.join(subsets) or 'none'}; name the "
            "arms as its subsets are named."
        )
    selector = service["spec"].get("selector") or {}
    arms = {arm: {**selector, **subsets[arm]} for arm in experiment.arms}
    gateway = (_gateway(cluster, experiment, api, virtual) or {}).get("spec") or {}
    routes = (virtual.get("spec") or {}).get("http") or []
    return Attached(routes, arms, gateway.get("selector") or _INGRESS, front_of(gateway.get("servers") or ()))


def front_of(servers: Sequence[Json]) -> Front:
    """Where a Gateway takes requests in: its first server for HTTP that does not send on to https, else one for HTTPS.

    >>> redirect = {"port": {"number": 80, "protocol": "HTTP"}, "tls": {"httpsRedirect": True}}
    >>> front_of([redirect, {"port": {"number": 443, "protocol": "HTTPS"}, "tls": {"mode": "SIMPLE"}}])
    Front(port=443, tls=True, target=None)
    """
    for protocols, tls in ((_PLAIN, False), (("HTTPS",), True)):
        for each in servers:
            port, redirects = each.get("port") or {}, bool((each.get("tls") or {}).get("httpsRedirect"))
            if str(port.get("protocol", "")).upper() in protocols and not redirects:
                return Front(int(port["number"]), tls)
    return PLAIN


def _needed(cluster: Cluster, experiment: Experiment, version: str, kind: str) -> Json:
    metadata = {"name": experiment.service, "namespace": experiment.namespace}
    found = get(cluster, {"apiVersion": version, "kind": kind, "metadata": metadata})
    if found is None:
        raise StackError(
            f"{cluster}: there is no {kind} {experiment.service} in namespace {experiment.namespace} to attach to; "
            "its name is the experiment's `model` in lower case with dashes."
        )
    return {**found, "apiVersion": version, "kind": kind}


def _gateway(cluster: Cluster, experiment: Experiment, api: str, virtual: Json) -> Json | None:
    """The first Gateway that a VirtualService names."""
    for space, name in gateways_of(virtual, experiment.namespace):
        metadata = {"name": name, "namespace": space}
        found = get(cluster, {"apiVersion": api, "kind": "Gateway", "metadata": metadata})
        if found is not None:
            return found
    return None


def gateway_spaces(virtual: Mapping[str, Any], namespace: str) -> list[str]:
    """The namespaces other than its own of the Gateways that a VirtualService names.

    >>> gateway_spaces({"spec": {"gateways": ["mesh", "own", "istio-system/public"]}}, "shop")
    ['istio-system']
    """
    spaces = (space for space, _ in gateways_of(virtual, namespace))
    return list(dict.fromkeys(space for space in spaces if space != namespace))


def gateways_of(virtual: Mapping[str, Any], namespace: str) -> list[tuple[str, str]]:
    """The Gateways that a VirtualService in a namespace names, by namespace and name.

    >>> gateways_of({"spec": {"gateways": ["mesh", "own", "istio-system/public"]}}, "shop")
    [('shop', 'own'), ('istio-system', 'public')]
    """
    named = [str(each).rpartition("/") for each in (virtual.get("spec") or {}).get("gateways") or ()]
    return [(space if space not in {"", "."} else namespace, name) for space, _, name in named if name != "mesh"]
