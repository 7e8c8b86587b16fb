"""Change the routing of a running stack, and see that it is in force before anybody is told so."""

import time
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from deploy.asking import ask
from deploy.embedded.admin import loaded, wait_for
from deploy.embedded.gateway import Configuration, translate, with_clusters_of
from deploy.embedded.state import StateDir, write_atomically
from deploy.manifests import manifests
from experiments.core import journal
from experiments.core.children import last_lines
from experiments.core.errors import StackError
from experiments.core.reading import Loaded, from_mapping
from experiments.core.routing import ROUTE_HEADER, routed_phase
from experiments.core.spec import Phase
from experiments.core.stack import StackInfo

Edit = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]

PROBES = 5
"""Consecutive fresh connections that must see a routing before it counts as effective."""

_LOADED_WITHIN_S = 5.0
_SEEN_WITHIN_S = 2.0
_UNSEEN_WAIT_S = 0.1


def change(stack: StackInfo, state: StateDir, phase_name: str, edit: Edit | None, by: str) -> journal.Change:
    """Put the routing of a phase in force.

    The journal's `applied` is before Envoy could know of it; `effective` is after the last of the probes was answered,
    so that no later request can have been routed the old way.

    Raises:
        StackError: no such phase; a manifest that the gateway does not honour; Envoy refuses it or does not answer.
    """
    experiment = loaded_of(stack)
    phase = find_phase(experiment, phase_name)
    objects = manifests(experiment, phase)
    objects = edit(objects) if edit else objects
    new = translate(objects, endpoints(stack))
    http = next(manifest for manifest in objects if manifest["kind"] == "VirtualService")["spec"]["http"]
    arms = list(experiment.experiment.deployed(phase))
    sequence = 1 + max((each.sequence for each in _changes(state)), default=0)
    applied_us = now_us()
    journal.append(state.shared.journal, journal.Applied(sequence, phase.name, applied_us, by, http, arms))
    _hand_over(stack, state, new)
    effective = _await_effective(stack, phase, http, sequence)
    journal.append(state.shared.journal, effective)
    _write_if_new(stack, state, new.clusters)
    return journal.Change(sequence, phase.name, applied_us, effective.at_us, by, http, arms)


def now_us() -> int:
    """The wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


def loaded_of(stack: StackInfo) -> Loaded:
    """The experiment that a stack was put up for, as it was then."""
    path = Path(stack.experiment_path)
    return Loaded(from_mapping(stack.experiment, str(path)), path.parent, path)


def find_phase(loaded_experiment: Loaded, name: str) -> Phase:
    """The phase called `name`.

    Raises:
        StackError: there is none; the message lists what there is.
    """
    known = {phase.name: phase for phase in loaded_experiment.experiment.phases}
    if name not in known:
        close = get_close_matches(name, list(known), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise StackError(
            f"{loaded_experiment.experiment.name}: has no phase {name!r}; {hint}there are: {', '.join(known)}."
        )
    return known[name]


def endpoints(stack: StackInfo) -> dict[str, list[str]]:
    """Arm → `host:port` of each of its pods."""
    found: dict[str, list[str]] = {}
    for pod in stack.pods:
        found.setdefault(pod.arm, []).append(pod.url.removeprefix("http://"))
    return found


def _changes(state: StateDir) -> list[journal.Change]:
    return journal.changes(journal.read(state.shared.journal))


def _hand_over(stack: StackInfo, state: StateDir, new: Configuration) -> None:
    """Clusters first, beside the old ones, then routes: no request ever meets a route without its cluster."""
    old = msgspec.json.decode(state.envoy.clusters.read_bytes())
    _write_if_new(stack, state, with_clusters_of(new, old))
    write_atomically(state.envoy.routes, new.routes)
    _await_version(stack, state, "routes", new.routes)


def _write_if_new(stack: StackInfo, state: StateDir, clusters: dict[str, Any]) -> None:
    old = msgspec.json.decode(state.envoy.clusters.read_bytes())
    if old["version_info"] != clusters["version_info"]:
        write_atomically(state.envoy.clusters, clusters)
        _await_version(stack, state, "clusters", clusters)


def _await_version(stack: StackInfo, state: StateDir, what: str, response: dict[str, Any]) -> None:
    def reached() -> bool:
        found = loaded(stack.admin_url)
        return found is not None and getattr(found, what) == response["version_info"]

    if not wait_for(reached, _LOADED_WITHIN_S):
        last = last_lines(state.log("envoy")) or "it said nothing"
        raise StackError(f"Envoy did not take the new {what} within {_LOADED_WITHIN_S:.0f} s; its last line: {last}")


def _await_effective(
    stack: StackInfo, phase: Phase, http: Sequence[dict[str, Any]], sequence: int
) -> journal.Effective:
    """Probe until the route header names the phase; without one, wait a bounded time and say that nobody saw it."""
    if _names_phase(http, phase):
        requests = [("/v1/models/" + loaded_of(stack).experiment.model, {}), *_probe_requests(http)]
        until = time.monotonic() + _SEEN_WITHIN_S
        while time.monotonic() < until:
            for path, headers in requests:
                if _all_see(stack, phase, path, headers):
                    return journal.Effective(sequence, now_us(), PROBES)
            time.sleep(0.002)
    time.sleep(_UNSEEN_WAIT_S)
    return journal.Effective(sequence, now_us(), 0, seen=False)


def _all_see(stack: StackInfo, phase: Phase, path: str, headers: dict[str, str]) -> bool:
    """Whether so many probes in a row, each on a connection of its own, were routed by this phase."""
    for _ in range(PROBES):
        answer = ask(f"{stack.gateway_url}{path}", headers=headers)
        if answer is None or routed_phase(answer.headers.get(ROUTE_HEADER)) != phase.name:
            return False
    return True


def _names_phase(http: Sequence[dict[str, Any]], phase: Phase) -> bool:
    """Whether these routes tell their phase in the route header."""
    for route in http:
        for entry in route.get("route") or []:
            headers = ((entry.get("headers") or {}).get("response") or {}).get("set") or {}
            if routed_phase(headers.get(ROUTE_HEADER)) == phase.name:
                return True
    return False


def _probe_requests(http: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, str]]]:
    """For each match block a request that may match it: where no route takes everything, a plain probe finds none."""
    for route in http:
        for block in route.get("match") or []:
            uri = block.get("uri") or {}
            headers = {name: _text(match) for name, match in (block.get("headers") or {}).items()}
            yield uri.get("exact") or uri.get("prefix") or "/", headers


def _text(match: dict[str, str] | None) -> str:
    return next(iter((match or {}).values()), "any")
