"""For every code the smallest change to a sound stack that triggers it: what tests prove and the reference shows."""

from collections.abc import Callable, Mapping
from typing import Any

from deploy.lint.world import Json
from deploy.manifests import manifests
from experiments.core import reading

Example = Callable[[], list[Json]]


def sound(phase: str = "split") -> list[Json]:
    """The objects of a phase of `quickstart`, about which no rule says anything."""
    loaded = reading.load("quickstart")
    return manifests(loaded, loaded.experiment.phase(phase))


def one(objects: list[Json], kind: str, name: str | None = None) -> Any:
    """The only object of a kind, or the one whose name ends so."""
    found = [each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(name or "")]
    (the_one,) = found
    return the_one


def _routes(objects: list[Json]) -> Any:
    return one(objects, "VirtualService")["spec"]["http"]


def _weighted(*weights: int) -> list[Json]:
    objects = sound()
    for entry, weight in zip(_routes(objects)[0]["route"], weights, strict=True):
        entry["weight"] = weight
    return objects


def _undefined_subset() -> list[Json]:
    objects = sound()
    _routes(objects)[0]["route"][1]["destination"]["subset"] = "resnet152"
    return objects


def _without_pods() -> list[Json]:
    objects = sound()
    objects.remove(one(objects, "Deployment", "-resnet101"))
    return objects


def _other_labels() -> list[Json]:
    objects = sound()
    spec = one(objects, "Deployment", "-resnet101")["spec"]
    for labels in (spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]):
        labels["version"] = "resnet-101"
    return objects


def _no_such_proxy() -> list[Json]:
    objects = sound()
    one(objects, "Gateway")["spec"]["selector"] = {"istio": "ingress-gateway"}
    return objects


def _strange_host() -> list[Json]:
    objects = sound()
    one(objects, "Gateway")["spec"]["servers"][0]["hosts"] = ["models.example.com"]
    one(objects, "VirtualService")["spec"]["hosts"] = ["model.example.com"]
    return objects


def _no_such_gateway() -> list[Json]:
    objects = sound()
    one(objects, "VirtualService")["spec"]["gateways"] = ["image-classifier"]
    return objects


def _header_rule_last() -> list[Json]:
    objects = sound("focused")
    _routes(objects).reverse()
    return objects


def _grpc_port() -> list[Json]:
    objects = sound()
    del one(objects, "Service")["spec"]["ports"][0]["appProtocol"]
    return objects


def _other_name() -> list[Json]:
    objects = sound()
    one(objects, "ConfigMap", "resnet101-configs")["data"]["MODEL_NAME"] = "classifier"
    return objects


def _same_model() -> list[Json]:
    objects = sound()
    volumes = [one(objects, "Deployment", arm)["spec"]["template"]["spec"]["volumes"] for arm in ("50", "101")]
    volumes[1][0]["hostPath"]["path"] = volumes[0][0]["hostPath"]["path"]
    return objects


def _without_mesh() -> list[Json]:
    objects = sound()
    one(objects, "VirtualService")["spec"]["hosts"] = ["image-classifier"]
    return objects


def _bare_pod() -> list[Json]:
    objects = sound()
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "old", "namespace": "tf-serving"}}
    return [*objects, {**pod, "spec": {"containers": [{"name": "client", "image": "client"}]}}]


def _hash() -> list[Json]:
    objects = sound()
    policy = {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}}}
    one(objects, "DestinationRule")["spec"]["trafficPolicy"] = policy
    return objects


def _retries() -> list[Json]:
    objects = sound()
    _routes(objects)[0]["retries"] = {"attempts": 3, "retryOn": "5xx"}
    return objects


def _second() -> list[Json]:
    objects = sound()
    virtual = one(objects, "VirtualService")
    everything = [{"route": [_routes(objects)[0]["route"][1] | {"weight": 100}]}]
    second = {**virtual, "metadata": {**virtual["metadata"], "name": "second"}}
    return [*objects, {**second, "spec": {**virtual["spec"], "http": everything}}]


EXAMPLES: Mapping[str, Example] = {
    "SP101": lambda: _weighted(0, 0),
    "SP102": lambda: _weighted(60, 60),
    "SP103": _undefined_subset,
    "SP104": _without_pods,
    "SP105": _other_labels,
    "SP106": _no_such_proxy,
    "SP107": _strange_host,
    "SP108": _no_such_gateway,
    "SP109": _header_rule_last,
    "SP110": _grpc_port,
    "SP111": _other_name,
    "SP112": _same_model,
    "SP113": _without_mesh,
    "SP114": _bare_pod,
    "SP115": _hash,
    "SP116": _retries,
    "SP117": _second,
}
"""The objects that trigger each code, and no other."""
