"""The ports that Locust will listen on: asked for before it starts, since it ends in a traceback where one is taken."""

import argparse
import socket
from collections.abc import Iterator

from experiments.core.errors import StackError

_MASTERS_PORT = 5557
"""Locust's own default; `peek` gives None for what was not said."""

_PORTS = 2**16


def check_ports(options: argparse.Namespace) -> None:
    """Refuse a load whose ports cannot be listened on.

    Args:
        options: As `peek` gives them.

    Raises:
        StackError: somebody else listens there, it may not be listened on, or there is no such address or port.
    """
    for option, host, port in _wanted(options):
        reason = _refused(host, port)
        if reason:
            raise StackError(
                f"{option} {port}: cannot be listened on at {host or 'any address'}: {reason}; "
                f"end what listens there (another Locust?), or give another {option}."
            )


def _wanted(options: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Option, host and port, for each that this process will listen on."""
    if options.worker:
        return
    said = any(getattr(options, name) is not None for name in ("master_bind_host", "master_bind_port", "master_port"))
    if options.master or (options.processes and said):
        yield "--master-bind-port", _any(options.master_bind_host), options.master_bind_port or _MASTERS_PORT
    if not options.headless:
        yield "--web-port", _any(options.web_host), options.web_port


def _any(host: str | None) -> str:
    """Locust writes `*` for every address."""
    return "" if host in (None, "*") else str(host)


def _refused(host: str, port: int) -> str:
    """Why it cannot be listened on; empty if it can."""
    if not 0 <= port < _PORTS:
        return "ports are 0 to 65535"
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)[0]  # noqa: S104 - asked, not served
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ZeroMQ and gevent do
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""
