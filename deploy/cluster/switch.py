"""Change the routing of a stack on a cluster, and see it at every replica of the gateway before anybody is told so."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.cluster import attached, effect, ownership
from deploy.cluster.client import Cluster, Json
from deploy.cluster.foreign import Watch
from deploy.cluster.objects import delete, get, merge, name_of
from deploy.cluster.readiness import Progress, await_ready
from deploy.cluster.refusals import CONFLICT, ApiError, owners
from deploy.cluster.scope import Scope
from deploy.form import Form, Profile
from deploy.manifests import manifests
from deploy.phases import Edit, loaded_of, now_us
from experiments.core import journal
from experiments.core.errors import StackError
from experiments.core.reading import Loaded
from experiments.core.spec import Experiment, Phase
from experiments.core.stack import StackDir, StackInfo

_READY_WITHIN_S = 300.0


def _quiet(_text: str) -> None:
    pass


@dataclass(frozen=True)
class How:
    """In whose name routes are changed, and how.

    `edit` is what a self-test does to the manifests; `watch` looks for others' changes meanwhile; `force` takes over
    what others own besides the routes; `told` hears what is left to them.
    """

    by: str
    edit: Edit | None = None
    watch: Watch | None = None
    force: bool = False
    told: Progress = _quiet


def change(cluster: Cluster, stack: StackInfo, state: StackDir, phase: Phase, how: How) -> journal.Change:
    """Put the routing of a phase in force.

    The routes are what is asked for, whoever wrote to them last; anything else that others own is left to them and
    told, unless it is to be taken over.

    What is new in the phase comes first (an arm, its subset), then the route, and what the phase does without goes once
    the route is seen: at no time does a route lead to nothing. All of it lies between `applied` and `effective`.

    Raises:
        StackError: the API server refuses something; pods are not ready or the gateway does not take it.
    """
    loaded, watch = loaded_of(stack), how.watch
    objects = manifests(loaded, phase, form_of(stack))
    objects = how.edit(objects) if how.edit else objects
    virtual = next(each for each in objects if each["kind"] == "VirtualService")
    known = journal.changes(journal.read(state.journal))
    http, arms = virtual["spec"]["http"], list(loaded.experiment.deployed(phase))
    applied = journal.Applied(
        1 + max((each.sequence for each in known), default=0), phase.name, now_us(), how.by, http, arms
    )
    journal.append(state.journal, applied)
    with watch.lock if watch else contextlib.nullcontext():
        if loaded.experiment.attach:
            set_routes(cluster, stack, loaded, http, watch)
        else:
            _apply(cluster, loaded, objects, how)
    effective = _await(cluster, stack, loaded, (phase.name, http), applied.sequence)
    journal.append(state.journal, effective)
    if not loaded.experiment.attach:
        with watch.lock if watch else contextlib.nullcontext():
            _remove_rest(cluster, loaded, stack, objects, watch)
    return journal.Change(applied.sequence, phase.name, applied.at_us, effective.at_us, how.by, http, arms)


def virtual_service_of(experiment: Experiment, istio_api: str) -> Json:
    """What names the VirtualService of an experiment."""
    metadata = {"name": experiment.service, "namespace": experiment.namespace}
    return {"apiVersion": istio_api, "kind": "VirtualService", "metadata": metadata}


def live_routes(cluster: Cluster, experiment: Experiment, istio_api: str) -> list[Json] | None:
    """The routes of an experiment's VirtualService as it is; None where there is none."""
    found = get(cluster, virtual_service_of(experiment, istio_api))
    return None if found is None else (found.get("spec") or {}).get("http") or []


def scope_of(cluster: Cluster, stack: StackInfo, experiment: Experiment) -> Scope:
    """What the requests of a run go through, as it is now."""
    name, space = experiment.service, experiment.namespace
    virtual = get(cluster, virtual_service_of(experiment, _api(stack))) or {}
    service = (
        get(cluster, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": space}}) or {}
    )
    selector = (service.get("spec") or {}).get("selector") or {}
    return Scope(name, space, selector, frozenset(attached.gateways_of(virtual, space)))


def routes_of(cluster: Cluster, stack: StackInfo, loaded: Loaded) -> list[Json]:
    """The routes that are live.

    Raises:
        StackError: there is no such VirtualService.
    """
    experiment = loaded.experiment
    found = live_routes(cluster, experiment, _api(stack))
    if found is None:
        raise StackError(
            f"{cluster}: VirtualService {experiment.service} is not in namespace {experiment.namespace}; create it "
            "first."
        )
    return found


def _api(stack: StackInfo) -> str:
    return stack.cluster.istio if stack.cluster else ""


def set_routes(
    cluster: Cluster, stack: StackInfo, loaded: Loaded, http: Sequence[Json], watch: Watch | None = None
) -> None:
    """Give a VirtualService other routes, and leave its hosts, gateways, labels and owners as they are."""
    changed = merge(cluster, virtual_service_of(loaded.experiment, _api(stack)), {"spec": {"http": list(http)}})
    if watch:
        watch.ours({**changed, "kind": "VirtualService"})


def form_of(stack: StackInfo) -> Form:
    """How the objects of a stack were written."""
    if stack.cluster is None:
        raise StackError(f"{stack.experiment.get('name')}: its stack stands on no cluster.")
    there = stack.cluster
    profile: Profile = "tutorial" if there.profile == "tutorial" else "hardened"
    return Form(
        profile,
        there.model_root,
        istio_api=there.istio,
        model_claim=there.model_claim,
        image=there.image,
        gateway_namespace=there.gateway_namespace,
        mutual_tls=there.mutual_tls,
    )


def _apply(cluster: Cluster, loaded: Loaded, objects: Sequence[Json], how: How) -> None:
    """Apply what is not yet as a phase states it, the route last; Namespace and Gateway stay as they are."""
    others = [each for each in objects if each["kind"] not in {"VirtualService", "Namespace", "Gateway"}]
    left = []
    first = [each for each in others if ownership.differs(cluster, each)]
    for each in first:
        try:
            _apply_one(cluster, loaded, each, how, force=how.force)
        except ApiError as error:
            _refuse_needed(cluster, each, error)
            left.append(each)
            how.told(f"{name_of(each)} is left as it is: {owners(error.causes)}; --force-conflicts takes it over")
    if len(left) < len(first):
        await_ready(cluster, [each for each in objects if each not in left], _READY_WITHIN_S, how.told)
    _apply_routes(cluster, loaded, next(each for each in objects if each["kind"] == "VirtualService"), how)


def _refuse_needed(cluster: Cluster, manifest: Json, error: ApiError) -> None:
    """Raise unless an error is a conflict over an object that can be left as it is: no new route needs it changed.

    Raises:
        ApiError: it is another error, or a DestinationRule that lacks a subset.
    """
    if error.status != CONFLICT or not error.causes:
        raise error
    if manifest["kind"] == "DestinationRule":
        spec = (get(cluster, manifest) or {}).get("spec") or {}
        there = {each["name"] for each in spec.get("subsets") or ()}
        if any(each["name"] not in there for each in manifest["spec"]["subsets"]):
            raise error


def _apply_routes(cluster: Cluster, loaded: Loaded, virtual: Json, how: How) -> None:
    """Apply a VirtualService; routes that somebody else wrote are what a change of routes is for, and he is named."""
    try:
        _apply_one(cluster, loaded, virtual, how, force=how.force)
    except ApiError as error:
        if error.status != CONFLICT or not error.causes:
            raise
        how.told(f"{name_of(virtual)} is taken over: {owners(error.causes)}")
        _apply_one(cluster, loaded, virtual, how, force=True)


def _apply_one(cluster: Cluster, loaded: Loaded, manifest: Json, how: How, *, force: bool) -> None:
    for applied in ownership.apply_all(cluster, loaded.experiment, [manifest], lambda _: None, force=force):
        if how.watch:
            how.watch.ours(applied)


def _await(
    cluster: Cluster, stack: StackInfo, loaded: Loaded, routing: tuple[str, list[Json]], sequence: int
) -> journal.Effective:
    """When the routing was seen; without a header to see it by, after a bounded time that is all transition."""
    phase, http = routing
    if not effect.tells(http, phase):
        time.sleep(effect.BLIND_S)
        return journal.Effective(sequence, now_us(), 0, seen=False)
    with effect.eyes(cluster, stack) as seen_by:
        effect.await_effective(loaded.experiment, phase, seen_by)
        return journal.Effective(sequence, now_us(), effect.PROBES * len(seen_by.urls))


def _remove_rest(
    cluster: Cluster, loaded: Loaded, stack: StackInfo, objects: Sequence[Json], watch: Watch | None
) -> None:
    """Delete what is ours, belongs to another phase, and not to this one."""
    wanted = {name_of(each) for each in objects}
    for phase in loaded.experiment.phases:
        for each in manifests(loaded, phase, form_of(stack)):
            if name_of(each) in wanted or each["kind"] == "Namespace":
                continue
            wanted.add(name_of(each))
            found = get(cluster, each)
            if found is not None and ownership.is_ours(found, loaded.experiment):
                if watch:
                    watch.gone(each["kind"], each["metadata"]["name"])
                delete(cluster, {**each, "metadata": found["metadata"]})
