"""Gateway and VirtualService → the virtual hosts of Envoy's routes, as Istio's route.go makes them (pure)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deploy.embedded.clusters import DOMAIN, cluster_name
from deploy.embedded.honoured import Json, named, only
from experiments.core.errors import StackError
from experiments.core.routing import SERVICE_PORT

_TYPE = "type.googleapis.com/envoy"
_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"


def virtual_hosts(gateway: Json, virtual: Json, service: Json) -> list[Json]:
    """One virtual host for each host that both the Gateway and the VirtualService name, with the routes in order.

    Raises:
        StackError: something is asked for that this gateway does not do, or does not make sense; the message names it.
    """
    where = named(virtual)
    spec = only(virtual.get("spec"), {"hosts", "gateways", "http"}, f"{where}: spec")
    hosts = _hosts(gateway, virtual, spec)
    if not hosts:
        return [blackhole()]
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
            f"{named(virtual)}: spec.gateways must name {gateway['metadata']['name']!r}, else no request from outside "
            "reaches it; add it."
        )
    return [host for host in spec.get("hosts") or [] if "*" in gateway_hosts or host in gateway_hosts]


def _gateway_hosts(gateway: Json) -> set[str]:
    where = named(gateway)
    spec = only(gateway.get("spec"), {"selector", "servers"}, f"{where}: spec")
    found: set[str] = set()
    for index, server in enumerate(spec.get("servers") or []):
        place = f"{where}: spec.servers[{index}]"
        only(server, {"port", "hosts"}, place)
        port = only(server["port"], {"number", "name", "protocol"}, f"{place}.port")
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
        only(route, {"name", "match", "route", "timeout", "retries", "headers"}, place)
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
    only(entry, {"destination", "weight", "headers"}, where)
    place = f"{where}.destination"
    destination = only(entry.get("destination"), {"host", "subset", "port"}, place)
    known = service["metadata"]["name"]
    namespace = service["metadata"]["namespace"]
    if destination.get("host") not in {known, f"{known}.{namespace}", f"{known}.{namespace}.{DOMAIN}"}:
        raise StackError(f"{place}.host == {destination.get('host')!r}, must be {known!r}; there is no other Service.")
    port = (destination.get("port") or {}).get("number")
    if port != SERVICE_PORT:
        raise StackError(f"{place}.port.number == {port}, must be {SERVICE_PORT} in the embedded gateway; change it.")
    return cluster_name(service, destination.get("subset", ""))


def _headers(operations: Any, where: str) -> Json:
    """VirtualService header operations as Envoy's."""
    found: Json = {}
    for side, changes in only(operations, {"request", "response"}, where).items():
        only(changes, {"set", "add", "remove"}, f"{where}.{side}")
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
    only(retries, {"attempts", "perTryTimeout", "retryOn"}, f"{where}.retries")
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


def _match(block: Json | None, where: str) -> Json:
    """A match block as Envoy's route match; all of its conditions must hold."""
    if block is None:
        return {"prefix": "/"}
    only(block, {"name", "headers", "withoutHeaders", "uri", "ignoreUriCase"}, where)
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
    only(match, {"exact", "prefix", "regex"}, where)
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


def blackhole() -> Json:
    """A virtual host that knows no route: every request gets 404."""
    return {"name": "blackhole:80", "domains": ["*"], "routes": []}
