"""What somebody else changes while a run is under way: each change becomes a journal entry that names its author."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.cluster.client import Cluster, Json
from deploy.cluster.objects import MANAGER, listing, name_of, watched
from deploy.cluster.ownership import last_editor
from experiments.core.errors import StackError
from experiments.core.journal import ROUTING_KINDS, Foreign

Told = Callable[[Foreign], None]

_WATCH_S = 60
_PAUSE_S = 1.0
_BLIND_US = 10_000_000
"""How long nothing may be seen of a kind before that is told; what is seen in time again is caught up with."""


@dataclass
class Watch:
    """What is known of the objects that decide the routing, and which of their changes are ours.

    Ours are known by generation: whoever changes something through us holds `lock` and then says what it became.
    `routed` has the VirtualServices that we change, and so put right with the next phase, and when we did so last, in
    microseconds; `removed` the Deployments that we took away, whose pods follow them.
    """

    cluster: Cluster
    namespace: str
    told: Told
    known: dict[tuple[str, str], int] = field(default_factory=dict)
    routed: dict[str, int] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    pods: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    ended: threading.Event = field(default_factory=threading.Event)
    troubles: list[str] = field(default_factory=list)

    def ours(self, applied: Mapping[str, Any]) -> None:
        """Remember what an object became by our own hand; call it holding the lock."""
        self.known[applied["kind"], applied["metadata"]["name"]] = int(applied["metadata"].get("generation") or 0)
        if applied["kind"] == "VirtualService":
            self.routed[applied["metadata"]["name"]] = _now_us()
        if applied["kind"] == "Deployment":
            self.removed.discard(applied["metadata"]["name"])

    def gone(self, kind: str, name: str) -> None:
        """Remember that we have deleted an object; call it holding the lock."""
        self.known.pop((kind, name), None)
        if kind == "Deployment":
            self.removed.add(name)


def _now_us() -> int:
    return time.time_ns() // 1000


@contextlib.contextmanager
def watching(cluster: Cluster, namespace: str, istio_api: str, told: Told) -> Iterator[Watch]:
    """Tell of every change that is not ours, for as long as the block.

    Raises:
        ApiError: what is there now cannot be listed.
    """
    watch = Watch(cluster, namespace, told)
    kinds = [*((istio_api, kind) for kind in ROUTING_KINDS), ("apps/v1", "Deployment"), ("v1", "Pod")]
    since = {kind: _know(watch, version, kind) for version, kind in kinds}
    threads = [
        threading.Thread(target=_follow, args=(watch, version, kind, since[kind]), name=f"watch {kind}", daemon=True)
        for version, kind in kinds
    ]
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        watch.ended.set()  # the threads are waiting for events and end with the process, or with their next one


def _know(watch: Watch, version: str, kind: str) -> str:
    """Take what is there now for known; where a watch can go on from."""
    items, since = listing(watch.cluster, version, kind, watch.namespace)
    with watch.lock:
        for item in items:
            _remember(watch, item)
    return since


def _remember(watch: Watch, item: Json) -> None:
    metadata = item["metadata"]
    if item["kind"] == "Pod":
        watch.pods[metadata["uid"]] = metadata["name"]
    else:
        watch.known[item["kind"], metadata["name"]] = int(metadata.get("generation") or 0)


def _follow(watch: Watch, version: str, kind: str, since: str) -> None:
    """Watch one kind until told to end; a watch that breaks off or is too old begins anew from a list."""
    blind_us, told = 0, False
    while not watch.ended.is_set():
        try:
            for event in watched(watch.cluster, version, kind, watch.namespace, since, _WATCH_S):
                if watch.ended.is_set():
                    return
                blind_us, told = 0, False
                since = str(event["object"]["metadata"].get("resourceVersion") or since)
                if event["type"] != "BOOKMARK":
                    _hear(watch, event["type"], {"apiVersion": version, "kind": kind, **event["object"]})
        except StackError as error:
            blind_us = blind_us or _now_us()
            watch.troubles.append(str(error))
            watch.ended.wait(_PAUSE_S)
            caught_up = _catch_up(watch, version, kind, blind_us)
            if caught_up:
                since, blind_us, told = caught_up, 0, False
            elif not told and _now_us() - blind_us > _BLIND_US:
                told = True
                watch.told(_unseen(kind, blind_us, error))


def _unseen(kind: str, blind_us: int, error: StackError) -> Foreign:
    """What nobody watches may have been changed by anybody."""
    what = f"{kind}s could not be watched any more ({error}) and may have been changed"
    return Foreign(blind_us, what, "somebody unseen", object=kind)


def _catch_up(watch: Watch, version: str, kind: str, blind_us: int) -> str | None:
    """List anew, and hear of what was missed meanwhile: it may be as old as the end of the watch."""
    try:
        items, since = listing(watch.cluster, version, kind, watch.namespace)
    except StackError as error:
        watch.troubles.append(str(error))
        return None
    there = {item["metadata"]["name"] for item in items}
    with watch.lock:
        missing = [(each, name) for each, name in watch.known if each == kind and name not in there]
    for item in items:
        _hear(watch, "MODIFIED", item, blind_us)
    for each, name in missing:
        _hear(watch, "DELETED", {"apiVersion": version, "kind": each, "metadata": {"name": name}}, blind_us)
    return since


def _hear(watch: Watch, what: str, item: Json, since_us: int | None = None) -> None:
    """Tell of a change, made now or at any time since then, unless it is ours, or none that matters."""
    name, now_us = item["metadata"]["name"], _now_us()
    with watch.lock:
        found = _pod_change(watch, what, item) if item["kind"] == "Pod" else _change(watch, what, item)
        ours_us = watch.routed.get(name) if item["kind"] == "VirtualService" else None
    if found:
        at_us = now_us if since_us is None else max(since_us, ours_us or 0)
        watch.told(Foreign(at_us, *found, object=item["kind"], lasting=ours_us is None))


def _change(watch: Watch, what: str, item: Json) -> tuple[str, str] | None:
    key, generation = (item["kind"], item["metadata"]["name"]), int(item["metadata"].get("generation") or 0)
    if what == "DELETED":
        return (f"{name_of(item)} was deleted", "an unknown hand") if watch.known.pop(key, None) is not None else None
    before = watch.known.get(key)
    if before is not None and generation <= before:
        return None
    watch.known[key] = generation
    verb = "changed" if before is not None else "created"
    return f"{name_of(item)} was {verb}{_summary(item)}", last_editor(item) or MANAGER


def _summary(item: Json) -> str:
    """The weights that a VirtualService has now, where it has any."""
    if item["kind"] != "VirtualService":
        return ""
    rules = [
        "/".join(f"{_subset(entry)} {entry['weight']}" for entry in rule.get("route") or () if "weight" in entry)
        for rule in (item.get("spec") or {}).get("http") or ()
    ]
    told = ", ".join(filter(None, rules))
    return f" (weights now {told})" if told else ""


def _subset(entry: Mapping[str, Any]) -> str:
    return str((entry.get("destination") or {}).get("subset", "?"))


def _pod_change(watch: Watch, what: str, pod: Json) -> tuple[str, str] | None:
    """Pods of the arms that come or go: an arm answers with fewer, or anew. Those of Jobs answer nobody."""
    uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
    if any(each["kind"] == "Job" for each in pod["metadata"].get("ownerReferences") or ()):
        return None
    if what == "DELETED":
        known = watch.pods.pop(uid, None) is not None and not _is_of(pod, watch.removed)
        return (f"pod {name} is gone", "an unknown hand") if known else None
    if uid in watch.pods:
        return None
    watch.pods[uid] = name
    return f"pod {name} came", "an unknown hand"


def _is_of(pod: Json, deployments: set[str]) -> bool:
    """Whether one of these Deployments has made a pod, through a ReplicaSet by its name and a hash."""
    owners = [str(each["name"]) for each in pod["metadata"].get("ownerReferences") or ()]
    return any(owner.rpartition("-")[0] in deployments for owner in owners)
