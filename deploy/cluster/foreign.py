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
from deploy.cluster.scope import Scope, matters
from experiments.core.errors import StackError
from experiments.core.journal import ROUTING_KINDS, Foreign

Told = Callable[[Foreign], None]

Key = tuple[str, str, str]
Mark = tuple[str, int]

_WATCH_S = 60
_FIRST_PAUSE_S, _PAUSE_S = 0.1, 1.0
"""Before what a watch that broke off has missed is caught up with: soon, and not so soon where it breaks off again."""
_BLIND_US = 10_000_000
"""How long nothing may be seen of a kind before that is told; what is seen in time again is caught up with."""


@dataclass
class Watch:
    """What is known of the objects that decide the routing, and which of their changes are ours.

    Ours are known by uid and generation, under kind, namespace and name: whoever changes something through us holds
    `lock` and then says what it became. `routed` has the VirtualServices that we change, and so put right with the next
    phase, and when we did so last, in microseconds; `removed` the Deployments that we took away; their pods follow.
    """

    cluster: Cluster
    scope: Scope
    told: Told
    known: dict[Key, Mark] = field(default_factory=dict)
    routed: dict[str, int] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    pods: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    ended: threading.Event = field(default_factory=threading.Event)
    troubles: list[str] = field(default_factory=list)

    def ours(self, applied: Mapping[str, Any]) -> None:
        """Remember what an object became by our own hand; call it holding the lock."""
        self.known[_key(applied)] = _mark(applied)
        if applied["kind"] == "VirtualService":
            self.routed[applied["metadata"]["name"]] = _now_us()
        if applied["kind"] == "Deployment":
            self.removed.discard(applied["metadata"]["name"])

    def gone(self, kind: str, name: str) -> None:
        """Remember that we have deleted an object; call it holding the lock."""
        self.known.pop((kind, self.scope.namespace, name), None)
        if kind == "Deployment":
            self.removed.add(name)


def _key(item: Mapping[str, Any]) -> Key:
    return item["kind"], str(item["metadata"].get("namespace", "")), item["metadata"]["name"]


def _mark(item: Mapping[str, Any]) -> Mark:
    """What tells one state of an object from the next: one that was made anew counts its generations from 1 again."""
    return str(item["metadata"].get("uid", "")), int(item["metadata"].get("generation") or 0)


def _now_us() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True)
class _Kind:
    """What one watch is for."""

    version: str
    kind: str
    namespace: str


@contextlib.contextmanager
def watching(cluster: Cluster, scope: Scope, istio_api: str, told: Told) -> Iterator[Watch]:
    """Tell of every change that is not ours and has to do with us, for as long as the block.

    Args:
        cluster: Where.
        scope: What has to do with us; Gateways in other namespaces are watched there.
        istio_api: The API version of the routing.
        told: Told of each change.

    Raises:
        ApiError: what is there now cannot be listed.
    """
    watch = Watch(cluster, scope, told)
    kinds = [*((istio_api, kind) for kind in ROUTING_KINDS), ("apps/v1", "Deployment"), ("v1", "Pod")]
    watched_all = [_Kind(version, kind, scope.namespace) for version, kind in kinds]
    elsewhere = sorted({space for space, _ in scope.gateways if space != scope.namespace})
    watched_all += [_Kind(istio_api, "Gateway", space) for space in elsewhere]
    since = [_know(watch, each) for each in watched_all]
    threads = [
        threading.Thread(target=_follow, args=(watch, each, start), name=f"watch {each.kind}", daemon=True)
        for each, start in zip(watched_all, since, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        watch.ended.set()  # the threads are waiting for events and end with the process, or with their next one


def _know(watch: Watch, kind: _Kind) -> str:
    """Take what is there now for known; where a watch can go on from."""
    items, since = listing(watch.cluster, kind.version, kind.kind, kind.namespace)
    with watch.lock:
        for item in items:
            _remember(watch, item)
    return since


def _remember(watch: Watch, item: Json) -> None:
    metadata = item["metadata"]
    if not matters(watch.scope, item):
        return
    if item["kind"] == "Pod":
        watch.pods[metadata["uid"]] = metadata["name"]
    else:
        watch.known[_key(item)] = _mark(item)


def _follow(watch: Watch, kind: _Kind, since: str) -> None:
    """Watch one kind until told to end; a watch that breaks off or is too old begins anew from a list."""
    blind_us, told, pause_s = 0, False, _FIRST_PAUSE_S
    while not watch.ended.is_set():
        try:
            for event in watched(watch.cluster, kind.version, kind.kind, kind.namespace, since, _WATCH_S):
                if watch.ended.is_set():
                    return
                blind_us, told, pause_s = 0, False, _FIRST_PAUSE_S
                since = str(event["object"]["metadata"].get("resourceVersion") or since)
                if event["type"] != "BOOKMARK":
                    _hear(watch, event["type"], {"apiVersion": kind.version, "kind": kind.kind, **event["object"]})
        except StackError as error:
            blind_us = blind_us or _now_us()
            watch.troubles.append(str(error))
            watch.ended.wait(pause_s)
            pause_s = _PAUSE_S
            caught_up = _catch_up(watch, kind, blind_us)
            if caught_up:
                since, blind_us, told = caught_up, 0, False
            elif not told and _now_us() - blind_us > _BLIND_US:
                told = True
                watch.told(_unseen(kind.kind, blind_us, error))


def _unseen(kind: str, blind_us: int, error: StackError) -> Foreign:
    """What nobody watches may have been changed by anybody."""
    what = f"{kind}s could not be watched any more ({error}) and may have been changed"
    return Foreign(blind_us, what, "somebody unseen", object=kind)


def _catch_up(watch: Watch, kind: _Kind, blind_us: int) -> str | None:
    """List anew, and hear of what was missed meanwhile: it may be as old as the end of the watch."""
    try:
        items, since = listing(watch.cluster, kind.version, kind.kind, kind.namespace)
    except StackError as error:
        watch.troubles.append(str(error))
        return None
    there = {_key(item) for item in items}
    with watch.lock:
        known = [key for key in watch.known if key[:2] == (kind.kind, kind.namespace)]
        missing = [(key, watch.known[key][0]) for key in known if key not in there]
    for item in items:
        _hear(watch, "MODIFIED", item, blind_us)
    for (_, space, name), uid in missing:
        metadata = {"name": name, "namespace": space, "uid": uid}
        _hear(watch, "DELETED", {"apiVersion": kind.version, "kind": kind.kind, "metadata": metadata}, blind_us)
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
    key, (uid, generation) = _key(item), _mark(item)
    if key not in watch.known and not matters(watch.scope, item):
        return None
    before_uid, before = watch.known.get(key, ("", -1))
    if what == "DELETED":
        if before < 0 or uid != before_uid:  # not known, or the one before the one that is there now
            return None
        del watch.known[key]
        return f"{name_of(item)} was deleted", "an unknown hand"
    if uid == before_uid and generation <= before:
        return None
    watch.known[key] = uid, generation
    verb = "created" if before < 0 else "changed" if uid == before_uid else "deleted and created anew"
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
    if uid in watch.pods or not matters(watch.scope, pod):
        return None
    watch.pods[uid] = name
    return f"pod {name} came", "an unknown hand"


def _is_of(pod: Json, deployments: set[str]) -> bool:
    """Whether one of these Deployments has made a pod, through a ReplicaSet by its name and a hash."""
    owners = [str(each["name"]) for each in pod["metadata"].get("ownerReferences") or ()]
    return any(owner.rpartition("-")[0] in deployments for owner in owners)
