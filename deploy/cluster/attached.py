"""A stack that somebody else has put up: what of it an experiment needs, and what it lacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.cluster.client import Cluster, Json
from deploy.cluster.objects import get, name_of
from experiments.core.errors import StackError
from experiments.core.spec import Experiment

_INGRESS = {"istio": "ingressgateway"}


@dataclass(frozen=True)
class Attached:
    """What is there: the routes before us, the labels of each arm's pods, and those of the gateway's."""

    routes: Sequence[Json]
    arms: Mapping[str, Mapping[str, str]]
    gateway: Mapping[str, str]


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
    return Attached((virtual.get("spec") or {}).get("http") or [], arms, _gateway(cluster, experiment, api, virtual))


def _needed(cluster: Cluster, experiment: Experiment, version: str, kind: str) -> Json:
    metadata = {"name": experiment.service, "namespace": experiment.namespace}
    found = get(cluster, {"apiVersion": version, "kind": kind, "metadata": metadata})
    if found is None:
        raise StackError(
            f"{cluster}: there is no {kind} {experiment.service} in namespace {experiment.namespace} to attach to; "
            "its name is the experiment's `model` in lower case with dashes."
        )
    return {**found, "apiVersion": version, "kind": kind}


def _gateway(cluster: Cluster, experiment: Experiment, api: str, virtual: Json) -> Mapping[str, str]:
    """The labels of the pods behind the first Gateway that a VirtualService names."""
    for named in (virtual.get("spec") or {}).get("gateways") or ():
        space, _, name = str(named).rpartition("/")
        metadata = {"name": name, "namespace": space or experiment.namespace}
        found = get(cluster, {"apiVersion": api, "kind": "Gateway", "metadata": metadata})
        if found is not None:
            return found["spec"].get("selector") or _INGRESS
    return _INGRESS
