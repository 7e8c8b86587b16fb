"""What Envoy reads once, at its start: listener, admin page, access log, where routes and clusters come from (pure)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.embedded.gateway import ROUTES

Json = dict[str, Any]

_TYPE = "type.googleapis.com/envoy"
_LOOPBACK = "127.0.0.1"
_LOG_FIELDS = {
    "start_time": "%START_TIME(%s.%6f)%",
    "duration_ms": "%DURATION%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "response_code": "%RESPONSE_CODE%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "response_flags": "%RESPONSE_FLAGS%",
    "route": "%RESP(X-SPLITPROOF-ROUTE)%",
    "route_name": "%ROUTE_NAME%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_host": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}


@dataclass(frozen=True)
class EnvoyFiles:
    """The files of one Envoy. Routes and clusters have a folder each: Envoy reads anew on every move into it."""

    folder: Path
    bootstrap: Path = field(init=False)
    routes: Path = field(init=False)
    clusters: Path = field(init=False)
    admin: Path = field(init=False)
    access_log: Path = field(init=False)
    access_log_before: Path = field(init=False)

    def __post_init__(self) -> None:
        for name, place in {
            "bootstrap": "bootstrap.json",
            "routes": "routes/routes.json",
            "clusters": "clusters/clusters.json",
            "admin": "admin-address",
            "access_log": "access.jsonl",
            "access_log_before": "access.1.jsonl",
        }.items():
            object.__setattr__(self, name, self.folder / place)


def bootstrap(files: EnvoyFiles, port: int) -> Json:
    """The bootstrap configuration.

    Args:
        files: Where routes, clusters and the access log lie.
        port: Where to listen on loopback; 0 takes any free port, which the admin page then tells.
    """
    return {
        "node": {"id": "router~127.0.0.1~splitproof.embedded~embedded", "cluster": "splitproof"},
        "admin": {"address": _address(0)},
        "dynamic_resources": {"cds_config": _source(files.clusters)},
        "static_resources": {"listeners": [_listener(files, port)]},
    }


def arguments(envoy: str, files: EnvoyFiles) -> list[str]:
    """The command that runs Envoy: one worker, one file for its admin address, any number of Envoys side by side."""
    return [
        envoy, "--config-path", str(files.bootstrap), "--admin-address-path", str(files.admin),
        "--concurrency", "1", "--use-dynamic-base-id", "--file-flush-interval-msec", "100",
        "--log-level", "warning", "--drain-time-s", "1", "--parent-shutdown-time-s", "2",
    ]  # fmt: skip


def _address(port: int) -> Json:
    return {"socket_address": {"address": _LOOPBACK, "port_value": port}}


def _source(path: Path) -> Json:
    """Envoy notices moves into the folder, and only those; half-written files are never read."""
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
    }


def _listener(files: EnvoyFiles, port: int) -> Json:
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": _manager(files)}
    return {
        "name": "0.0.0.0_80",
        "address": _address(port),
        # Else a second Envoy of ours could listen on a taken port and share its connections, unnoticed.
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [manager]}],
    }


def _manager(files: EnvoyFiles) -> Json:
    router = {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"}
    return {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "rds": {"route_config_name": ROUTES, "config_source": _source(files.routes)},
        "use_remote_address": True,
        "preserve_external_request_id": True,
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": "0s",
        "access_log": [_access_log(files)],
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }


def _access_log(files: EnvoyFiles) -> Json:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(files.access_log),
            "log_format": {"json_format": _LOG_FIELDS},
        },
    }
