"""What Envoy's admin page tells: where it listens, and which versions of routes and clusters it works with."""

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Loaded:
    """The versions of routes and clusters that Envoy works with, and how many it refused."""

    routes: str
    clusters: str
    refused: int


def loaded(admin_url: str) -> Loaded | None:
    """What Envoy has loaded; None where it does not answer."""
    answer = ask(f"{admin_url}/stats?filter=(version_text|update_rejected)$&format=json")
    if answer is None or answer.status != http.client.OK:
        return None
    values: dict[str, Any] = {}
    for stat in msgspec.json.decode(answer.body)["stats"]:
        if "name" in stat:
            values[stat["name"]] = stat["value"]
    refused = sum(value for name, value in values.items() if name.endswith("update_rejected"))
    return Loaded(
        routes=next((text for name, text in values.items() if name.endswith("rds.http.80.version_text")), ""),
        clusters=values.get("cluster_manager.cds.version_text", ""),
        refused=refused,
    )


def wait_for(reached: Callable[[], bool], timeout_s: float, every_s: float = 0.002) -> bool:
    """Whether something comes true within a time."""
    until = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > until:
            return False
        time.sleep(every_s)
    return True
