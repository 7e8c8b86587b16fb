"""What is ours: applied in order of dependency with our labels, compared, and removed without touching what is not."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from deploy.cluster.client import Cluster, Json
from deploy.cluster.objects import MANAGER, apply, delete, get, listed, name_of, serves
from deploy.form import MANAGED_BY
from experiments.core.errors import StackError
from experiments.core.journal import ROUTING_KINDS
from experiments.core.spec import Experiment

Progress = Callable[[str], None]

KINDS: tuple[tuple[str, str], ...] = (
    ("networking.istio.io/v1", "VirtualService"),
    ("networking.istio.io/v1", "DestinationRule"),
    ("networking.istio.io/v1", "Gateway"),
    ("security.istio.io/v1", "AuthorizationPolicy"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("v1", "ConfigMap"),
)
"""Everything that we ever apply, in the order in which it is removed: routes first, then what they lead to."""

_GONE_WITHIN_S = 120.0


def labels_of(experiment: Experiment) -> dict[str, str]:
    """The labels by which an experiment's objects are known to be ours."""
    return {**MANAGED_BY, "app.kubernetes.io/part-of": experiment.name}


def is_ours(found: Mapping[str, Any], experiment: Experiment) -> bool:
    """Whether an object carries our labels."""
    return labels_of(experiment).items() <= (found["metadata"].get("labels") or {}).items()


def notice(experiment: Experiment) -> Json:
    """What names the ConfigMap that tells other machines what is up; it is all that we create beside others' stacks."""
    name, labels = f"splitproof-{experiment.name}", labels_of(experiment)
    metadata = {"name": name, "namespace": experiment.namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def refuse_shared(cluster: Cluster, found: Mapping[str, Any], experiment: Experiment) -> None:
    """Raise if an object is that of another experiment's stack: of two that share one, neither could be taken down.

    Raises:
        StackError: naming the object and the experiment.
    """
    labels = found["metadata"].get("labels") or {}
    whose = str(labels.get("app.kubernetes.io/part-of", ""))
    if found["kind"] == "Namespace" or not MANAGED_BY.items() <= labels.items() or whose == experiment.name:
        return
    raise StackError(
        f"{cluster}: {name_of(found)} in namespace {experiment.namespace} belongs to the stack of experiment "
        f"{whose or '(unnamed)'}, and no two share one; take that down (python -m deploy down {whose} --target "
        "kubernetes), or give this one another `namespace` or `model`."
    )


def apply_all(
    cluster: Cluster, experiment: Experiment, manifests: Sequence[Json], progress: Progress, *, force: bool = False
) -> list[Json]:
    """Apply manifests in their order; what was there before us is shared, and never gets our labels.

    Raises:
        ApiError: the first that is refused, with the owner of a field in conflict.
        StackError: one is that of another experiment's stack.
    """
    applied = []
    for manifest in manifests:
        before = get(cluster, manifest)
        if before is not None:
            refuse_shared(cluster, before, experiment)
        theirs = before is not None and not is_ours(before, experiment)
        ours = manifest["kind"] != "Namespace" and not theirs
        after = apply(cluster, _labelled(manifest, experiment) if ours else _unlabelled(manifest), force=force)
        if before is None or before["metadata"].get("generation") != after["metadata"].get("generation"):
            state = "applied over somebody else's, which stays theirs" if theirs and ours is False else "applied"
            progress(f"{name_of(manifest)}: {'created' if before is None else state}")
        applied.append(after)
    return applied


def _labelled(manifest: Json, experiment: Experiment) -> Json:
    labels = {**(manifest["metadata"].get("labels") or {}), **labels_of(experiment)}
    return {**manifest, "metadata": {**manifest["metadata"], "labels": labels}}


def _unlabelled(manifest: Json) -> Json:
    """The manifest without the labels of ownership."""
    own = {*MANAGED_BY, "app.kubernetes.io/part-of"}
    labels = {name: value for name, value in (manifest["metadata"].get("labels") or {}).items() if name not in own}
    bare = {name: value for name, value in manifest["metadata"].items() if name != "labels"}
    return {**manifest, "metadata": {**bare, **({"labels": labels} if labels else {})}}


def refused_beforehand(
    cluster: Cluster, experiment: Experiment, manifests: Sequence[Json], *, force: bool
) -> list[Json]:
    """What the API server would make of manifests, without changing anything.

    Objects of a namespace that is not there yet cannot be tried: the server has nowhere to try them.

    Raises:
        ApiError: the first that it would refuse.
        StackError: one is that of another experiment's stack.
    """
    there = {each["metadata"]["name"] for each in manifests if each["kind"] == "Namespace" and get(cluster, each)}
    tried = [each for each in manifests if each["kind"] == "Namespace" or each["metadata"]["namespace"] in there]
    for found in filter(None, (get(cluster, each) for each in tried)):
        refuse_shared(cluster, found, experiment)
    return [apply(cluster, each, force=force, dry=True) for each in tried]


def drift(cluster: Cluster, manifests: Sequence[Json], *, whole: bool = True) -> Iterator[str]:
    """A sentence for each object that is missing, or of which somebody has changed a field that we state.

    Of the kinds that route, to which the server adds nothing, fields that somebody has added are told too.

    Args:
        cluster: Where they are.
        manifests: As they should be.
        whole: The specifications are stated whole; otherwise what is beside their fields is others' business.
    """
    for manifest in manifests:
        found = get(cluster, manifest)
        if found is None:
            yield f"{name_of(manifest)} is missing"
            continue
        fields = list(_differences(_stated(manifest), found))
        added = (
            list(_added(manifest["spec"], found.get("spec") or {}, "spec", whole=whole)) if _routes(manifest) else []
        )
        told = [(", ".join(each[:3]), word) for each, word in ((fields, "changed"), (added, "added")) if each]
        if told:
            whom = last_editor(found)
            sentence = "; ".join(f"{names} {word}" for names, word in told)
            yield f"{name_of(manifest)}: {sentence}{f' by {whom}' if whom else ''}"


def _routes(manifest: Json) -> bool:
    return manifest["kind"] in ROUTING_KINDS


def _added(wanted: Any, found: Any, path: str, *, whole: bool = True) -> Iterator[str]:
    """The paths of what is there and was not stated, such as a fault in a route."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name, value in found.items():
            if name in wanted:
                yield from _added(wanted[name], value, f"{path}.{name}")
            elif whole and value not in ({}, [], None):
                yield f"{path}.{name}"
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, value in enumerate(found):
            yield from _added(wanted[index], value, f"{path}[{index}]")


def differs(cluster: Cluster, manifest: Json) -> bool:
    """Whether an object is missing, or lacks something that its manifest states."""
    found = get(cluster, manifest)
    return found is None or any(_differences(_stated(manifest), found))


def _stated(manifest: Json) -> Json:
    return {name: value for name, value in manifest.items() if name in {"spec", "data"}}


def _differences(wanted: Any, found: Any, path: str = "") -> Iterator[str]:
    """The paths at which what is there lacks what is wanted; what the server has filled in besides is no difference."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name, value in wanted.items():
            yield from _differences(value, found.get(name), f"{path}.{name}" if path else name)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, value in enumerate(wanted):
            yield from _differences(value, found[index], f"{path}[{index}]")
    elif wanted != found and not (found is None and wanted in ({}, [], 0, "", False)):
        yield path


def last_editor(found: Mapping[str, Any]) -> str:
    """The field manager, other than us, that wrote to the specification last; empty where none did."""
    entries = [
        entry
        for entry in found["metadata"].get("managedFields") or ()
        if entry.get("manager") != MANAGER and entry.get("subresource") is None and _writes(entry)
    ]
    return str(max(entries, key=lambda entry: entry.get("time", ""))["manager"]) if entries else ""


def _writes(entry: Mapping[str, Any]) -> bool:
    fields = entry.get("fieldsV1") or {}
    return "f:spec" in fields or "f:data" in fields


def remove(cluster: Cluster, experiment: Experiment, progress: Progress) -> list[str]:
    """Delete what carries our labels in the experiment's namespace, and wait until it is gone; its objects by name.

    Raises:
        StackError: something is not gone in time, such as an object with a finalizer.
    """
    doomed = ours(cluster, experiment)
    for found in doomed:
        delete(cluster, found)
        progress(f"{name_of(found)}: deleted")
    _await_gone(cluster, doomed)
    return [name_of(found) for found in doomed]


def ours(cluster: Cluster, experiment: Experiment) -> list[Json]:
    """What carries an experiment's labels in its namespace, in the order in which it is removed."""
    if experiment.attach:  # the rest is somebody else's, and nothing that we need be allowed to list
        found = get(cluster, notice(experiment))
        return [found] if found is not None and is_ours(found, experiment) else []
    labels = ",".join(f"{name}={value}" for name, value in labels_of(experiment).items())
    known = [next((each for each in versions(version) if serves(cluster, each, kind)), "") for version, kind in KINDS]
    return [
        each
        for version, (_, kind) in zip(known, KINDS, strict=True)
        if version
        for each in listed(cluster, version, kind, experiment.namespace, labels)
    ]


def versions(version: str) -> tuple[str, ...]:
    """Istio's older versions of an API go for the newest where that is not served."""
    group, _, last = version.rpartition("/")
    return (
        (version, f"{group}/v1beta1", f"{group}/v1alpha3")
        if group.endswith("istio.io") and last == "v1"
        else (version,)
    )


def _await_gone(cluster: Cluster, doomed: Sequence[Json]) -> None:
    end = time.monotonic() + _GONE_WITHIN_S
    left = list(doomed)
    while left := [each for each in left if _still_there(cluster, each)]:
        if time.monotonic() > end:
            raise StackError(
                f"{cluster}: {name_of(left[0])} is deleted and not gone after {_GONE_WITHIN_S:.0f} s; what holds it is "
                "in its metadata.finalizers."
            )
        time.sleep(0.2)


def _still_there(cluster: Cluster, doomed: Json) -> bool:
    found = get(cluster, doomed)
    return found is not None and found["metadata"]["uid"] == doomed["metadata"]["uid"]
