"""Service, DestinationRule and Deployments → Envoy's clusters, named and balanced as Istio's (pure)."""

from collections.abc import Iterator, Mapping, Sequence

from deploy.embedded.honoured import Json, named, only
from experiments.core.errors import StackError
from experiments.core.routing import SERVICE_PORT

Endpoints = Mapping[str, Sequence[str]]
"""Arm (the pods' label `version`) → `host:port` of each of its pods."""

DOMAIN = "svc.cluster.local"
"""The domain of a cluster's Services."""

_TYPE = "type.googleapis.com/envoy"
_UNLIMITED = 4294967295
_BALANCERS = {
    "UNSPECIFIED": "LEAST_REQUEST",
    "LEAST_REQUEST": "LEAST_REQUEST",
    "LEAST_CONN": "LEAST_REQUEST",
    "ROUND_ROBIN": "ROUND_ROBIN",
    "RANDOM": "RANDOM",
}


def clusters_of(manifests: Sequence[Json], service: Json, endpoints: Endpoints) -> Iterator[Json]:
    """One cluster for the Service, one for each subset of its DestinationRule."""
    rules = [manifest for manifest in manifests if manifest["kind"] == "DestinationRule"]
    if len(rules) > 1:
        raise StackError(
            f"the manifests hold {len(rules)} objects of kind DestinationRule; must be at most 1; merge them."
        )
    spec: Json = {}
    for rule in rules:
        spec = only(rule.get("spec"), {"host", "subsets", "trafficPolicy"}, f"{named(rule)}: spec")
    policy = _balancer(spec.get("trafficPolicy"), "DestinationRule: spec.trafficPolicy")
    selector = service["spec"]["selector"]
    yield _cluster(cluster_name(service, ""), policy, _addresses(manifests, selector, endpoints))
    for index, subset in enumerate(spec.get("subsets") or []):
        where = f"DestinationRule: spec.subsets[{index}]"
        only(subset, {"name", "labels", "trafficPolicy"}, where)
        own = _balancer(subset["trafficPolicy"], f"{where}.trafficPolicy") if "trafficPolicy" in subset else policy
        labels = {**selector, **(subset.get("labels") or {})}
        yield _cluster(cluster_name(service, subset["name"]), own, _addresses(manifests, labels, endpoints))


def _balancer(policy: Json | None, where: str) -> str:
    balancer = only(policy, {"loadBalancer"}, where).get("loadBalancer")
    simple = only(balancer, {"simple"}, f"{where}.loadBalancer").get("simple", "UNSPECIFIED")
    if simple not in _BALANCERS:
        raise StackError(
            f"{where}.loadBalancer.simple == {simple!r}, must be one of {', '.join(_BALANCERS)}; change it."
        )
    return _BALANCERS[simple]


def _addresses(manifests: Sequence[Json], labels: Mapping[str, str], endpoints: Endpoints) -> list[str]:
    """The pods of every Deployment whose pod labels include these."""
    found: list[str] = []
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            own = manifest["spec"]["template"]["metadata"]["labels"]
            if labels.items() <= own.items():
                found.extend(endpoints.get(own.get("version", ""), ()))
    return found


def _cluster(name: str, balancer: str, addresses: Sequence[str]) -> Json:
    thresholds = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), _UNLIMITED)
    return {
        "@type": f"{_TYPE}.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "lb_policy": balancer,
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [thresholds]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(address) for address in addresses]}],
        },
    }


def _endpoint(address: str) -> Json:
    host, _, port = address.rpartition(":")
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}


def cluster_name(service: Json, subset: str) -> str:
    """`outbound|PORT|SUBSET|HOST`, as Istio names clusters; without a subset the Service itself.

    >>> cluster_name({"metadata": {"name": "image-classifier", "namespace": "tf-serving"}}, "resnet50")
    'outbound|8501|resnet50|image-classifier.tf-serving.svc.cluster.local'
    """
    metadata = service["metadata"]
    return f"outbound|{SERVICE_PORT}|{subset}|{metadata['name']}.{metadata['namespace']}.{DOMAIN}"
