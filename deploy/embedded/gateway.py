"""Manifests and endpoints → Envoy configuration, in the shape of Istio's own translation (pure).

After pilot/pkg/networking/core/route/route.go of Istio 1.31: names, order, weights, matchers, retries and headers are
the same. What differs, and why:

- Clusters carry their endpoints (STATIC) instead of EDS: one file is replaced at once, and nothing warms.
- The client's `x-request-id` is kept. Istio's gateway overwrites it for clients from outside (`use_remote_address`
  without `preserve_external_request_id`), but here it joins our rows with the access log.
- A virtual host of our own, `VERSION_HOST`, answers with the version of the routes that it came with. Whoever sees it
  has met a worker that routes by that version, without a prediction and whatever the VirtualService says.
- The deprecated `max_grpc_timeout` is left out; there are no telemetry filters.

What a manifest asks for and this gateway would not do is refused by name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import xxhash

from experiments.core.errors import StackError
from experiments.core.routing import SERVICE_PORT

Json = dict[str, Any]
Endpoints = Mapping[str, Sequence[str]]
"""Arm (the pods' label `version`) → `host:port` of each of its pods."""

ROUTES = "http.80"
"""The name of the route configuration: the Gateway's port 80, wherever we really listen."""

VERSION_HOST = "version.splitproof.invalid"
"""The Host header to which the gateway answers with the version of its routes; no real host has this name."""

_DOMAIN = "svc.cluster.local"
_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
_TYPE = "type.googleapis.com/envoy"
_UNLIMITED = 4294967295
_BALANCERS = {
    "UNSPECIFIED": "LEAST_REQUEST",
    "LEAST_REQUEST": "LEAST_REQUEST",
    "LEAST_CONN": "LEAST_REQUEST",
    "ROUND_ROBIN": "ROUND_ROBIN",
    "RANDOM": "RANDOM",
}
_BESIDE_ROUTING = frozenset({"Namespace", "ConfigMap", "Deployment"})
_ROUTING = frozenset({"Service", "Gateway", "DestinationRule", "VirtualService"})


@dataclass(frozen=True)
class Configuration:
    """What Envoy reads while it runs: discovery responses, each with a version that is a hash of its content."""

    routes: Json
    clusters: Json


def translate(manifests: Sequence[Json], endpoints: Endpoints) -> Configuration:
    """The Envoy configuration that these manifests mean.

    Args:
        manifests: One Service, one Gateway, one VirtualService, at most one DestinationRule, and Deployments.
        endpoints: Addresses of each arm's pods; an arm without a Deployment here has none.

    Raises:
        StackError: a manifest asks for something that this gateway does not do; the message names it.
    """
    _refuse_other_kinds(manifests)
    service = _one(manifests, "Service")
    vhosts = _virtual_hosts(_one(manifests, "Gateway"), _one(manifests, "VirtualService"), service)
    return Configuration(_routes_response(vhosts), discovery(list(_clusters(manifests, service, endpoints))))


def discovery(resources: list[Json]) -> Json:
    """A discovery response; its version is a hash of its resources."""
    return {"version_info": _version(resources), "resources": resources}


def _version(content: Any) -> str:
    return xxhash.xxh3_64_hexdigest(msgspec.json.encode(content, order="deterministic"))


def _routes_response(vhosts: list[Json]) -> Json:
    """The routes of these virtual hosts, and the one that tells their version."""
    version = _version(vhosts)
    tell = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": version}}}
    routes = {
        "@type": f"{_TYPE}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "virtual_hosts": [*vhosts, {"name": "version:80", "domains": [VERSION_HOST], "routes": [tell]}],
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
    }
    return {"version_info": version, "resources": [routes]}


def nothing_yet() -> Configuration:
    """A gateway before its first route: every request gets 404, as Istio's does without a VirtualService."""
    return Configuration(_routes_response([_blackhole()]), discovery([]))


def _blackhole() -> Json:
    return {"name": "blackhole:80", "domains": ["*"], "routes": []}


def with_clusters_of(new: Configuration, old: Json) -> Json:
    """The clusters of `new`, and those of the old response that it lacks: no route may outlive its cluster."""
    names = {cluster["name"] for cluster in new.clusters["resources"]}
    return discovery(
        [*new.clusters["resources"], *(cluster for cluster in old["resources"] if cluster["name"] not in names)]
    )


def _refuse_other_kinds(manifests: Sequence[Json]) -> None:
    for manifest in manifests:
        if manifest["kind"] not in _ROUTING | _BESIDE_ROUTING:
            raise StackError(
                f"{_name(manifest)}: the embedded gateway does not honour a {manifest['kind']}; "
                "leave it out, or use a cluster."
            )


def _one(manifests: Sequence[Json], kind: str) -> Json:
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    if len(found) != 1:
        raise StackError(f"the manifests hold {len(found)} objects of kind {kind}; must be 1; mend the experiment.")
    return found[0]


def _name(manifest: Json) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def _only(value: Any, known: set[str], where: str) -> Json:
    """The mapping, if it has only keys that are honoured."""
    for key in value or {}:
        if key not in known:
            raise StackError(
                f"{where}.{key}: the embedded gateway does not honour it; honoured there: {', '.join(sorted(known))}; "
                "leave it out, or use a cluster."
            )
    return dict(value or {})


# Virtual hosts and routes


def _virtual_hosts(gateway: Json, virtual: Json, service: Json) -> list[Json]:
    where = _name(virtual)
    spec = _only(virtual.get("spec"), {"hosts", "gateways", "http"}, f"{where}: spec")
    hosts = _hosts(gateway, virtual, spec)
    if not hosts:
        return [_blackhole()]
    routes = list(_routes(spec.get("http") or [], service, f"{where}: spec.http"))
    return [
        {"name": f"{host}:80", "domains": [host], "routes": routes, "include_request_attempt_count": True}
        for host in hosts
    ]


def _hosts(gateway: Json, virtual: Json, spec: Json) -> list[str]:
    """Hosts that both the Gateway and the VirtualService name."""
    gateway_hosts = _gateway_hosts(gateway)
    bound = {name.rpartition("/")[2] for name in spec.get("gateways") or ["mesh"]}
    if gateway["metadata"]["name"] not in bound:
        raise StackError(
            f"{_name(virtual)}: spec.gateways must name {gateway['metadata']['name']!r}, else no request from outside "
            "reaches it; add it."
        )
    return [host for host in spec.get("hosts") or [] if "*" in gateway_hosts or host in gateway_hosts]


def _gateway_hosts(gateway: Json) -> set[str]:
    where = _name(gateway)
    spec = _only(gateway.get("spec"), {"selector", "servers"}, f"{where}: spec")
    found: set[str] = set()
    for index, server in enumerate(spec.get("servers") or []):
        place = f"{where}: spec.servers[{index}]"
        _only(server, {"port", "hosts"}, place)
        port = _only(server["port"], {"number", "name", "protocol"}, f"{place}.port")
        if port.get("protocol") != "HTTP":
            raise StackError(
                f"{place}.port.protocol: must be HTTP in the embedded gateway; change it or use a cluster."
            )
        found |= {host.rpartition("/")[2] for host in server["hosts"]}
    return found


def _routes(http: Sequence[Json], service: Json, where: str) -> Iterator[Json]:
    """Routes in their order; nothing follows a catch-all, since nothing could match after it."""
    for index, route in enumerate(http):
        place = f"{where}[{index}]"
        _only(route, {"name", "match", "route", "timeout", "retries", "headers"}, place)
        for number, block in enumerate(route.get("match") or [None]):
            match = _match(block, f"{place}.match[{number}]")
            yield _route(route, block, match, service, place)
            if set(match) <= {"prefix", "case_sensitive"} and match.get("prefix") == "/":
                return


def _route(route: Json, block: Json | None, match: Json, service: Json, where: str) -> Json:
    names = [name for name in (route.get("name"), (block or {}).get("name")) if name]
    found: Json = {"match": match, **_headers(route.get("headers"), f"{where}.headers")}
    if names:
        found["name"] = ".".join(names)
    action: Json = {
        "timeout": _duration(route.get("timeout", "0s"), f"{where}.timeout"),
        "retry_policy": _retries(route.get("retries"), where),
    }
    destinations = route.get("route") or []
    if len(destinations) == 1:
        action["cluster"] = _cluster_of(destinations[0], service, f"{where}.route[0]")
        for key, value in _headers(destinations[0].get("headers"), f"{where}.route[0].headers").items():
            found[key] = found.get(key, []) + value
    else:
        action["weighted_clusters"] = {"clusters": _weighted(destinations, service, f"{where}.route")}
    if not action["retry_policy"]:
        del action["retry_policy"]
    return {**found, "route": action}


def _weighted(destinations: Sequence[Json], service: Json, where: str) -> list[Json]:
    found = []
    for index, entry in enumerate(destinations):
        name = _cluster_of(entry, service, f"{where}[{index}]")
        weight = entry.get("weight", 0)
        if weight < 0:
            raise StackError(f"{where}[{index}].weight == {weight}, must be 0 or more; change it.")
        if weight:
            headers = _headers(entry.get("headers"), f"{where}[{index}].headers")
            found.append({"name": name, "weight": weight, **headers})
    if not found:
        raise StackError(f"{where}: total destination weight == 0, must be positive; change the weights.")
    return found


def _cluster_of(entry: Json, service: Json, where: str) -> str:
    """Istio's name of the cluster that a destination means."""
    _only(entry, {"destination", "weight", "headers"}, where)
    place = f"{where}.destination"
    destination = _only(entry.get("destination"), {"host", "subset", "port"}, place)
    known = service["metadata"]["name"]
    namespace = service["metadata"]["namespace"]
    if destination.get("host") not in {known, f"{known}.{namespace}", f"{known}.{namespace}.{_DOMAIN}"}:
        raise StackError(f"{place}.host == {destination.get('host')!r}, must be {known!r}; there is no other Service.")
    port = (destination.get("port") or {}).get("number")
    if port != SERVICE_PORT:
        raise StackError(f"{place}.port.number == {port}, must be {SERVICE_PORT} in the embedded gateway; change it.")
    return cluster_name(service, destination.get("subset", ""))


def cluster_name(service: Json, subset: str) -> str:
    """`outbound|PORT|SUBSET|HOST`, as Istio names clusters; without a subset the Service itself.

    >>> cluster_name({"metadata": {"name": "image-classifier", "namespace": "tf-serving"}}, "resnet50")
    'outbound|8501|resnet50|image-classifier.tf-serving.svc.cluster.local'
    """
    metadata = service["metadata"]
    return f"outbound|{SERVICE_PORT}|{subset}|{metadata['name']}.{metadata['namespace']}.{_DOMAIN}"


def _headers(operations: Any, where: str) -> Json:
    """VirtualService header operations as Envoy's."""
    found: Json = {}
    for side, changes in _only(operations, {"request", "response"}, where).items():
        _only(changes, {"set", "add", "remove"}, f"{where}.{side}")
        added = [_header(name, value, "OVERWRITE_IF_EXISTS_OR_ADD") for name, value in _sorted(changes.get("set"))]
        added += [_header(name, value, "APPEND_IF_EXISTS_OR_ADD") for name, value in _sorted(changes.get("add"))]
        if added:
            found[f"{side}_headers_to_add"] = added
        if changes.get("remove"):
            found[f"{side}_headers_to_remove"] = list(changes["remove"])
    return found


def _sorted(headers: Mapping[str, str] | None) -> list[tuple[str, str]]:
    return sorted((headers or {}).items())


def _header(name: str, value: str, action: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": action}


def _retries(retries: Json | None, where: str) -> Json:
    """Istio's default since 1.24, or what the route says; empty where retries are off."""
    policy = {
        "retry_on": _RETRY_ON,
        "num_retries": 2,
        "host_selection_retry_max_attempts": "5",
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{_TYPE}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
    }
    if retries is None:
        return policy
    _only(retries, {"attempts", "perTryTimeout", "retryOn"}, f"{where}.retries")
    attempts = retries.get("attempts", 0)
    if not attempts:
        return {}
    policy["num_retries"] = attempts
    if "perTryTimeout" in retries:
        policy["per_try_timeout"] = _duration(retries["perTryTimeout"], f"{where}.retries.perTryTimeout")
    return {**policy, **_retry_on(retries.get("retryOn"))}


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


def _duration(text: Any, where: str) -> str:
    """A duration as Istio writes it (`1h3m`, `500ms`) in the seconds that Envoy reads.

    >>> _duration("1m0.5s", "timeout"), _duration("500ms", "timeout")
    ('60.5s', '0.5s')
    """
    parts = _DURATION.findall(str(text))
    if "".join(number + unit for number, unit in parts) != text or not parts:
        raise StackError(f"{where} == {text!r}, must be a duration such as 10s or 500ms; change it.")
    return f"{round(sum(float(number) * _SECONDS[unit] for number, unit in parts), 6):g}s"


def _retry_on(text: str | None) -> Json:
    """Conditions by name, and status codes, which Envoy takes apart."""
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    codes = [int(part) for part in parts if part.isdigit()]
    found: Json = {}
    if parts:
        names = [part for part in parts if not part.isdigit()]
        found["retry_on"] = ",".join([*names, *(["retriable-status-codes"] if codes else [])])
    return {**found, "retriable_status_codes": codes} if codes else found


# Matches


def _match(block: Json | None, where: str) -> Json:
    """A match block as Envoy's route match; all of its conditions must hold."""
    if block is None:
        return {"prefix": "/"}
    _only(block, {"name", "headers", "withoutHeaders", "uri", "ignoreUriCase"}, where)
    found = {**_uri(block.get("uri"), f"{where}.uri"), "case_sensitive": not block.get("ignoreUriCase", False)}
    headers = [_header_match(name, match, where) for name, match in (block.get("headers") or {}).items()]
    headers += [_without(name, match, where) for name, match in (block.get("withoutHeaders") or {}).items()]
    if headers:
        found["headers"] = sorted(headers, key=lambda header: str(header["name"]))
    return found


def _uri(match: Json | None, where: str) -> Json:
    if not match:
        return {"prefix": "/"}
    kind, value = _text_match(match, where)
    matches: Mapping[str, Json] = {
        "exact": {"path": value},
        "prefix": {"prefix": value},
        "regex": {"safe_regex": {"regex": value}},
    }
    return matches[kind]


def _text_match(match: Json, where: str) -> tuple[str, str]:
    _only(match, {"exact", "prefix", "regex"}, where)
    if len(match) != 1:
        raise StackError(f"{where}: must be exactly one of exact, prefix and regex; it has {len(match)}; mend it.")
    return next(iter(match.items()))


def _header_match(name: str, match: Json | None, where: str) -> Json:
    if not match or match == {"regex": "*"}:
        return {"name": name, "present_match": True}
    kind, value = _text_match(match, f"{where}.headers.{name}")
    return {"name": name, "string_match": {"safe_regex": {"regex": value}} if kind == "regex" else {kind: value}}


def _without(name: str, match: Json | None, where: str) -> Json:
    found = {**_header_match(name, match, where), "invert_match": True}
    return found if "present_match" in found else {**found, "treat_missing_header_as_empty": True}


# Clusters


def _clusters(manifests: Sequence[Json], service: Json, endpoints: Endpoints) -> Iterator[Json]:
    """One cluster for the Service, one for each subset of its DestinationRule."""
    rules = [manifest for manifest in manifests if manifest["kind"] == "DestinationRule"]
    if len(rules) > 1:
        raise StackError(
            f"the manifests hold {len(rules)} objects of kind DestinationRule; must be at most 1; merge them."
        )
    spec: Json = {}
    for rule in rules:
        spec = _only(rule.get("spec"), {"host", "subsets", "trafficPolicy"}, f"{_name(rule)}: spec")
    policy = _balancer(spec.get("trafficPolicy"), "DestinationRule: spec.trafficPolicy")
    selector = service["spec"]["selector"]
    yield _cluster(cluster_name(service, ""), policy, _addresses(manifests, selector, endpoints))
    for index, subset in enumerate(spec.get("subsets") or []):
        where = f"DestinationRule: spec.subsets[{index}]"
        _only(subset, {"name", "labels", "trafficPolicy"}, where)
        own = _balancer(subset["trafficPolicy"], f"{where}.trafficPolicy") if "trafficPolicy" in subset else policy
        labels = {**selector, **(subset.get("labels") or {})}
        yield _cluster(cluster_name(service, subset["name"]), own, _addresses(manifests, labels, endpoints))


def _balancer(policy: Json | None, where: str) -> str:
    balancer = _only(policy, {"loadBalancer"}, where).get("loadBalancer")
    simple = _only(balancer, {"simple"}, f"{where}.loadBalancer").get("simple", "UNSPECIFIED")
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
