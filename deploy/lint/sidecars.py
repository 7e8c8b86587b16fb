"""SP114: pods without a sidecar in a namespace that injects them."""

from collections.abc import Iterator

from deploy.lint.findings import Finding
from deploy.lint.world import Json, Workload, World, labels_of, meta, named, of, workloads

_INJECT = "sidecar.istio.io/inject"
_PROXY = "istio-proxy"


def sidecars(world: World) -> Iterator[Finding]:
    """Pods that are older than the namespace's label, and workloads that opt out."""
    injected = {str(meta(each).get("name")) for each in of(world, "Namespace") if _injects(each)}
    for workload in workloads(world):
        if workload.namespace not in injected or workload.pod.get("hostNetwork"):
            continue
        if _opts_out(workload):
            said = f'{_INJECT}: "false" in a namespace that injects'
            yield _finding(workload, f"its {_INJECT}", said, f"remove {_INJECT}, and let the pods be made anew")
        elif workload.owner["kind"] == "Pod" and not _has_proxy(workload.pod):
            made = meta(workload.owner).get("creationTimestamp", "?")
            said = (
                f"the pod, made {made}, has no {_PROXY}: it is older than the namespace's label, or the injector failed"
            )
            yield _finding(workload, "spec.containers", said, "kubectl rollout restart its Deployment")


def _injects(space: Json) -> bool:
    labels = labels_of(space)
    return labels.get("istio-injection") == "enabled" or (
        "istio.io/rev" in labels and labels.get("istio-injection") != "disabled"
    )


def _opts_out(workload: Workload) -> bool:
    template = workload.owner.get("spec", {}).get("template") or workload.owner
    notes = meta(template).get("annotations") or {}
    return "false" in {str(notes.get(_INJECT)).lower(), str(workload.labels.get(_INJECT)).lower()}


def _has_proxy(pod: Json) -> bool:
    return any(each["name"] == _PROXY for each in [*pod.get("containers", []), *(pod.get("initContainers") or [])])


def _finding(workload: Workload, field: str, said: str, fix: str) -> Finding:
    why = (
        "without a sidecar it has no identity and no telemetry: calls from the mesh are not encrypted, Istio's "
        "policies do not hold, and under strict mutual TLS the gateway gets 503"
    )
    return Finding("SP114", "warning", named(workload.owner), field, said, why, fix)
