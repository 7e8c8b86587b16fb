"""Is what was applied ready? Rollouts finished, endpoints there; and where not, what is being waited for, and why."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from deploy.cluster.client import Cluster, Json, request
from deploy.cluster.objects import get, listed, name_of, path_of
from deploy.cluster.refusals import ApiError, Asked
from experiments.core.errors import StackError

Progress = Callable[[str], None]

_EVERY_S = 0.25
HOPELESS = frozenset({"InvalidImageName", "CreateContainerConfigError", "ErrImageNeverPull"})
"""Reasons of a waiting container that no further waiting mends."""


def await_ready(cluster: Cluster, manifests: Sequence[Json], within_s: float, progress: Progress) -> None:
    """Return once every Deployment among the manifests is rolled out and every Service has all of its endpoints.

    Raises:
        StackError: after `within_s` seconds, or as soon as waiting cannot help; the message says for what and why.
    """
    end = time.monotonic() + within_s
    told: set[str] = set()
    while waiting := list(_waiting(cluster, manifests)):
        for sentence in waiting:
            if sentence not in told:
                progress(f"waiting for {sentence}")
                told.add(sentence)
        hopeless = next((each for each in waiting if any(reason in each for reason in HOPELESS)), None)
        if hopeless:
            raise StackError(f"{cluster}: {hopeless}; waiting cannot mend it; correct it and run it again.")
        if time.monotonic() > end:
            more = f" (and {len(waiting) - 1} more)" if len(waiting) > 1 else ""
            raise StackError(
                f"{cluster}: waited {within_s:.0f} s in vain for {waiting[0]}{more}; mend it, run it again."
            )
        time.sleep(_EVERY_S)


def _waiting(cluster: Cluster, manifests: Sequence[Json]) -> Iterator[str]:
    """A sentence for everything that is not ready."""
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            yield from _rollout(cluster, manifest)
    for manifest in manifests:
        if manifest["kind"] == "Service":
            yield from _endpoints(cluster, manifest, manifests)


def _rollout(cluster: Cluster, manifest: Json) -> Iterator[str]:
    found = get(cluster, manifest)
    if found is None:
        yield f"{name_of(manifest)}: somebody has deleted it"
        return
    status, wanted = found.get("status") or {}, int(found["spec"].get("replicas", 1))
    counts = [int(status.get(name) or 0) for name in ("updatedReplicas", "availableReplicas", "replicas")]
    observed = int(status.get("observedGeneration") or 0) >= int(found["metadata"]["generation"])
    if observed and counts == [wanted, wanted, wanted]:
        return
    reasons = [_failure(status), *(pod_reason(cluster, pod) for pod in pods_of(cluster, found))]
    told = next((reason for reason in reasons if reason), "")
    yield f"{name_of(manifest)}: {min(counts[:2])} of {wanted} pods are ready{f': {told}' if told else ''}"


def _failure(status: Mapping[str, Any]) -> str:
    """Why no pod could be made, such as a quota or an admission policy."""
    for condition in status.get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return str(condition.get("message", "")).strip()
    return ""


def pods_of(cluster: Cluster, deployment: Mapping[str, Any]) -> list[Json]:
    """The pods that a Deployment selects and that are not about to go."""
    labels = ",".join(f"{name}={value}" for name, value in deployment["spec"]["selector"]["matchLabels"].items())
    found = listed(cluster, "v1", "Pod", deployment["metadata"]["namespace"], labels)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready and not about to go."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def pod_reason(cluster: Cluster, pod: Json) -> str:
    """What keeps a pod from being ready; empty where nothing is known."""
    if is_ready(pod):
        return ""
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"pod {name} cannot be scheduled: {condition.get('message', condition.get('reason', ''))}"
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason and reason not in {"PodInitializing", "ContainerCreating"}:
            last = last_line(cluster, pod, container["name"]) if reason == "CrashLoopBackOff" else ""
            told = last or " ".join(str(waiting.get("message") or "").split())
            return f"pod {name}, container {container['name']}: {reason}{f': {told}' if told else ''}"
    return _warning(cluster, pod)


def _warning(cluster: Cluster, pod: Json) -> str:
    """The last warning about a pod whose containers are only being made, such as a volume that is not there."""
    metadata = pod["metadata"]
    about = {"involvedObject.kind": "Pod", "involvedObject.name": metadata["name"], "type": "Warning"}
    fields = ",".join(f"{name}={value}" for name, value in about.items())
    try:
        found = listed(cluster, "v1", "Event", metadata["namespace"], fields=fields)
    except ApiError:  # what it would say is missed, and no reason to stop waiting
        return ""
    if not found:
        return ""
    last = max(found, key=_when)
    return f"pod {metadata['name']}: {last.get('reason', '')}: {' '.join(str(last.get('message') or '').split())}"


def _when(event: Mapping[str, Any]) -> str:
    """When an event was seen last; which field says so depends on who wrote it."""
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")


def last_line(cluster: Cluster, pod: Json, container: str, *, previous: bool = True) -> str:
    """The last line of a container that has crashed, if the API server gives it to us."""
    asked = Asked("get", "pods/log", pod["metadata"]["name"], pod["metadata"]["namespace"])
    query = {"container": container, "previous": str(previous).lower(), "tailLines": "1"}
    try:
        answer = request(cluster, asked, "GET", f"{path_of(cluster, pod)}/log", query=query)
    except ApiError:
        return ""
    return str(answer.get("text", "")).strip()


def _endpoints(cluster: Cluster, service: Json, manifests: Sequence[Json]) -> Iterator[str]:
    """Whether every pod behind a Service takes traffic."""
    metadata, selector = service["metadata"], service["spec"].get("selector") or {}
    wanted = sum(
        int(each["spec"].get("replicas", 1))
        for each in manifests
        if each["kind"] == "Deployment" and selector.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    )
    label = f"kubernetes.io/service-name={metadata['name']}"
    slices = listed(cluster, "discovery.k8s.io/v1", "EndpointSlice", metadata["namespace"], label)
    ready = sum(
        1 for each in slices for end in each.get("endpoints") or () if (end.get("conditions") or {}).get("ready", True)
    )
    if ready < wanted:
        yield f"{name_of(service)}: {ready} of {wanted} endpoints are ready"
