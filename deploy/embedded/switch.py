"""Change the routing of a running stack, and see that it is in force before anybody is told so."""

from typing import Any

import msgspec

from deploy.asking import ask
from deploy.embedded.admin import loaded_version, wait_for
from deploy.embedded.gateway import VERSION_HOST, Configuration, translate, with_clusters_of
from deploy.embedded.state import StateDir, write_atomically
from deploy.manifests import manifests
from deploy.phases import Edit, loaded_of, now_us
from experiments.core import journal
from experiments.core.children import last_lines
from experiments.core.errors import StackError
from experiments.core.spec import Phase
from experiments.core.stack import StackInfo

PROBES = 5
"""Consecutive fresh connections that must see a routing before it counts as effective."""

_TAKEN_WITHIN_S = 10.0


def change(stack: StackInfo, state: StateDir, phase: Phase, edit: Edit | None, by: str) -> journal.Change:
    """Put the routing of a phase in force.

    The journal's `applied` is before Envoy could know of it; `effective` is after the last of the probes was answered,
    so that no later request can have been routed the old way. A probe asks the gateway for the version of its routes:
    it needs no prediction, and sees a VirtualService without our route header as well.

    Raises:
        StackError: a manifest that the gateway does not honour; Envoy refuses it or does not answer.
    """
    experiment = loaded_of(stack)
    objects = manifests(experiment, phase)
    objects = edit(objects) if edit else objects
    new = translate(objects, endpoints(stack))
    http = next(manifest for manifest in objects if manifest["kind"] == "VirtualService")["spec"]["http"]
    arms = list(experiment.experiment.deployed(phase))
    sequence = 1 + max((each.sequence for each in _changes(state)), default=0)
    applied_us = now_us()
    journal.append(state.shared.journal, journal.Applied(sequence, phase.name, applied_us, by, http, arms))
    _hand_over(stack, state, new)
    _await_effective(stack, state, new.routes["version_info"])
    effective = journal.Effective(sequence, now_us(), PROBES)
    journal.append(state.shared.journal, effective)
    _write_if_new(stack, state, new.clusters)
    return journal.Change(sequence, phase.name, applied_us, effective.at_us, by, http, arms)


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


def _write_if_new(stack: StackInfo, state: StateDir, clusters: dict[str, Any]) -> None:
    old = msgspec.json.decode(state.envoy.clusters.read_bytes())
    if old["version_info"] == clusters["version_info"]:
        return
    write_atomically(state.envoy.clusters, clusters)
    if not wait_for(lambda: loaded_version(stack.admin_url) == clusters["version_info"], _TAKEN_WITHIN_S):
        raise _not_taken(state, "clusters")


def _await_effective(stack: StackInfo, state: StateDir, version: str) -> None:
    """Probe until so many in a row, each on a connection of its own, were answered by the new routes."""
    if not wait_for(lambda: all(sees(stack, version) for _ in range(PROBES)), _TAKEN_WITHIN_S):
        raise _not_taken(state, "routes")


def sees(stack: StackInfo, version: str) -> bool:
    """Whether a fresh connection meets the routes of this version."""
    answer = ask(f"{stack.gateway_url}/", headers={"Host": VERSION_HOST})
    return answer is not None and answer.body == version.encode()


def _not_taken(state: StateDir, what: str) -> StackError:
    last = last_lines(state.log("envoy")) or "it said nothing"
    return StackError(f"Envoy did not take the new {what} within {_TAKEN_WITHIN_S:.0f} s; its last line: {last}")
