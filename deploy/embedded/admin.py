"""What Envoy's admin page tells: where it listens, and which versions of routes and clusters it works with."""

import http.client
import time
from collections.abc import Callable

import msgspec

from deploy.asking import ask


def listening_port(admin_url: str) -> int | None:
    """The port that Envoy's one listener has; None while it does not listen."""
    ready = ask(f"{admin_url}/ready")
    listeners = ask(f"{admin_url}/listeners?format=json")
    if ready is None or ready.status != http.client.OK or listeners is None:
        return None
    try:
        statuses = msgspec.json.decode(listeners.body)["listener_statuses"]
        return int(statuses[0]["local_address"]["socket_address"]["port_value"])
    except (msgspec.MsgspecError, LookupError):
        return None


def loaded_version(admin_url: str, stat: str = "cluster_manager.cds.version_text") -> str | None:
    """The version of the clusters (or of another discovery) that Envoy works with; None where it does not answer."""
    answer = ask(f"{admin_url}/stats?filter=^{stat}$&format=json")
    if answer is None or answer.status != http.client.OK:
        return None
    found = [each["value"] for each in msgspec.json.decode(answer.body)["stats"] if each.get("name") == stat]
    return str(found[0]) if found else None


def wait_for(reached: Callable[[], bool], timeout_s: float, every_s: float = 0.002) -> bool:
    """Whether something comes true within a time."""
    until = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > until:
            return False
        time.sleep(every_s)
    return True
