"""SP110: a Service's port whose name gives the wrong protocol."""

from collections.abc import Iterator

from deploy.lint.findings import Finding
from deploy.lint.world import Json, World, named, of, spec

_HTTP2 = frozenset({"grpc", "grpc-web", "http2", "kubernetes.io/h2c"})
_KNOWN = frozenset({*_HTTP2, "http", "https", "tcp", "tls", "mongo", "mysql", "redis", "udp", "kubernetes.io/ws"})
_GRPC_PORT, _REST_PORT = 8500, 8501


def protocols(world: World) -> Iterator[Finding]:
    """A port of gRPC that is not said to be gRPC, or one of REST that is."""
    for service in of(world, "Service"):
        for index, port in enumerate(spec(service).get("ports") or []):
            meant, said = _meant(port), _said(port)
            name = port.get("name", "")
            if meant == "grpc" and said not in _HTTP2:
                yield Finding(
                    "SP110", "error", named(service), f"spec.ports[{index}].name",
                    f"port {port.get('port')} {name!r} means gRPC; Istio takes it for {said or 'no protocol it knows'}",
                    "the protocol is appProtocol, or else the name up to its first '-': the gateway speaks HTTP/1.1 to "
                    "the gRPC server, and every call fails (UNAVAILABLE, protocol error)",
                    "add appProtocol: grpc, or let the name begin with grpc-",
                )  # fmt: skip
            elif meant == "http" and said in {*_HTTP2, "tcp", "tls"}:
                yield Finding(
                    "SP110", "error", named(service), f"spec.ports[{index}].name",
                    f"port {port.get('port')} {name!r} means REST; Istio takes it for {said}",
                    "TensorFlow Serving's REST server speaks HTTP/1.1 only: the gateway speaks HTTP/2 to it, or "
                    "sidecars do not route it",
                    "add appProtocol: http, or let the name begin with http-",
                )  # fmt: skip


def _meant(port: Json) -> str | None:
    """What the port's words and numbers speak of; None where they speak of nothing that we know."""
    words = str(port.get("name", "")).split("-")
    target = port.get("targetPort", port.get("port"))
    if "grpc" in words or (target == _GRPC_PORT and "http" not in words):
        return "grpc"
    return "http" if {"http", "rest"} & set(words) or target == _REST_PORT else None


def _said(port: Json) -> str | None:
    """The protocol that Istio takes it for; None where it has to guess."""
    said = str(port.get("appProtocol") or str(port.get("name", "")).partition("-")[0]).lower()
    return said if said in _KNOWN else None
