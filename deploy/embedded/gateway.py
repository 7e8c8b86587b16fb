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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import xxhash

from deploy.embedded.clusters import Endpoints, clusters_of
from deploy.embedded.honoured import Json, named
from deploy.embedded.routes import blackhole, virtual_hosts
from experiments.core.errors import StackError

ROUTES = "http.80"
"""The name of the route configuration: the Gateway's port 80, wherever we really listen."""

VERSION_HOST = "version.splitproof.invalid"
"""The Host header to which the gateway answers with the version of its routes; no real host has this name."""

_TYPE = "type.googleapis.com/envoy"
# Who may reach a pod, and when it may be stopped: here everything is on loopback, and we alone stop it.
_POLICIES = ("NetworkPolicy", "AuthorizationPolicy", "PodDisruptionBudget")
_BESIDE_ROUTING = frozenset({"Namespace", "ConfigMap", "Deployment", *_POLICIES})
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
    vhosts = virtual_hosts(_one(manifests, "Gateway"), _one(manifests, "VirtualService"), service)
    return Configuration(_routes_response(vhosts), discovery(list(clusters_of(manifests, service, endpoints))))


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
    return Configuration(_routes_response([blackhole()]), discovery([]))


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
                f"{named(manifest)}: the embedded gateway does not honour a {manifest['kind']}; "
                "leave it out, or use a cluster."
            )


def _one(manifests: Sequence[Json], kind: str) -> Json:
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    if len(found) != 1:
        raise StackError(f"the manifests hold {len(found)} objects of kind {kind}; must be 1; mend the experiment.")
    return found[0]
