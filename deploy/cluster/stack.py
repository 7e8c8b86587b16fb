"""A stack on a cluster: put up, described and taken down, by the same words as the embedded one.

Its state directory here holds what loads and verdicts need (experiment, journal, references, payloads); a ConfigMap
there tells other machines what is up.
"""

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from deploy import istio as mesh
from deploy import models as provisioning
from deploy import payloads as bodies
from deploy import references
from deploy.cluster import attached, lease, ownership, switch
from deploy.cluster.client import Cluster, Json, connect
from deploy.cluster.foreign import Watch
from deploy.cluster.forward import forwarded
from deploy.cluster.objects import apply, get, listed
from deploy.cluster.readiness import Progress, await_ready, is_ready
from deploy.cluster.refusals import NOT_FOUND, ApiError
from deploy.cluster.switch import How
from deploy.embedded.state import locked, refuse_reserved
from deploy.form import Form, Profile
from deploy.manifests import manifests
from deploy.model_info import ModelInfo
from deploy.phases import ON_END, Edit, ending, ending_http, find_phase, loaded_of, stated
from deploy.staging import stage
from experiments.core import journal
from experiments.core.access import DIRECT, Access, access_of, refuse_unset, refuse_untrusted, refuse_unusable
from experiments.core.errors import StackError
from experiments.core.home import stack_dir
from experiments.core.reading import Loaded, experiment_hash, to_mapping
from experiments.core.records import SCHEMA, References, write_json
from experiments.core.routing import SERVICE_PORT
from experiments.core.spec import Experiment
from experiments.core.stack import PLAIN, ClusterInfo, Front, Pod, StackDir, StackInfo, read_payloads, read_stack
from experiments.core.versions import installed

TARGET = "kubernetes"

_STAY = "routes stay as the last phase left them (on_end: leave)"

_VERSIONS_OF = ("kubernetes",)


@dataclass(frozen=True)
class Wanted:
    """How a stack is to be put up, as against what.

    `gateway` is the URL of the way in where we cannot find it, `access` how it is spoken to; `force` takes fields over
    that others own; the rest is how the objects are written, as `deploy.form.Form` has it.
    """

    context: str | None = None
    gateway: str | None = None
    profile: Profile = "hardened"
    model_root: str = Form.model_root
    force: bool = False
    within_s: float = 300.0
    model_claim: str | None = None
    image: str | None = None
    gateway_namespace: str = Form.gateway_namespace
    mutual_tls: bool = True
    access: Access = DIRECT

    def form(self, istio_api: str) -> Form:
        """How the objects are written for a cluster that serves this version of Istio's API."""
        return Form(
            self.profile,
            self.model_root,
            istio_api=istio_api,
            model_claim=self.model_claim,
            image=self.image,
            gateway_namespace=self.gateway_namespace,
            mutual_tls=self.mutual_tls,
        )


def _quiet(_text: str) -> None:
    pass


def up(
    loaded: Loaded,
    wanted: Wanted,
    *,
    edit: Edit | None = None,
    first_phase: str | None = None,
    progress: Progress = _quiet,
) -> StackInfo:
    """Put the stack of an experiment up on a cluster; again, nothing that is as it should be is changed.

    Raises:
        StackError: Istio is missing or too old, the API server refuses something, or pods do not become ready.
        ProvisionError: a model or payload cannot be made ready.
    """
    experiment, cluster = loaded.experiment, connect(wanted.context)
    refuse_unset(experiment)
    refuse_unusable(wanted.access)
    progress(f"{cluster}: namespace {experiment.namespace} is where everything goes")
    with locked(experiment.name, progress):
        _refuse_used(cluster, experiment)
        found = mesh.find(cluster)
        if experiment.attach:
            return _attach(cluster, loaded, wanted, found, first_phase, progress)
        form = wanted.form(found.api)
        phase = find_phase(loaded, first_phase or _present_phase(loaded) or experiment.phases[0].name)
        objects = manifests(loaded, phase, form)
        mesh.refuse_too_old(found, objects)
        ownership.refused_beforehand(cluster, experiment, objects, force=wanted.force)
        models, expected = _provision(loaded, progress)
        for line in _guidance(cluster, experiment, models, form):
            progress(line)
        standing = [each for each in objects if each["kind"] != "VirtualService"]
        ownership.apply_all(cluster, experiment, standing, progress, force=wanted.force)
        await_ready(cluster, objects, wanted.within_s, progress)
        selector = next(each for each in objects if each["kind"] == "Gateway")["spec"]["selector"]
        way_in = _way_in(cluster, selector, PLAIN, wanted, progress)
        info = _describe(loaded, cluster, wanted, found.api, models, way_in)
        # Before the first change of a route: whatever happens from here on, it is known what to take down or settle.
        write_json(StackDir(stack_dir(experiment.name)).info, info)
        _route_first(cluster, loaded, info, phase.name, edit)
        checked = _check(cluster, info, expected, progress)
        return _finish(cluster, loaded, info, checked, phase.name, progress)


def _attach(
    cluster: Cluster, loaded: Loaded, wanted: Wanted, istio: mesh.Istio, first_phase: str | None, told: Progress
) -> StackInfo:
    """Use what is there; its routes alone are changed, and remembered as they were."""
    there = attached.examine(cluster, loaded.experiment, istio.api)
    known = read_stack(loaded.experiment.name)
    before = known.cluster.before if known and known.cluster and known.cluster.server == cluster.server else None
    way_in = _way_in(cluster, there.gateway, there.front, wanted, told)
    if loaded.experiment.named:
        models, expected = _provision(loaded, told)
        info = _describe(loaded, cluster, wanted, istio.api, models, way_in)
        checked = _check(cluster, info, expected, told)
    else:
        bodies.write_payloads(loaded, {}, _payload_folder(loaded))
        info = _describe(loaded, cluster, wanted, istio.api, {}, way_in)
        checked = _learn(cluster, info, told)
    if info.cluster is None:
        raise StackError(f"{cluster}: the stack that is there could not be described.")
    routes = list(before if before is not None else there.routes)
    info = msgspec.structs.replace(info, cluster=msgspec.structs.replace(info.cluster, before=routes))
    # Before the first change: whatever happens from here on, `down` knows what to put back.
    write_json(StackDir(stack_dir(loaded.experiment.name)).info, info)
    phase = first_phase or _present_phase(loaded) or loaded.experiment.phases[0].name
    _route_first(cluster, loaded, info, phase, None)
    return _finish(cluster, loaded, info, checked, phase, told)


def _route_first(cluster: Cluster, loaded: Loaded, info: StackInfo, phase: str, edit: Edit | None) -> None:
    lease.refuse_leased(cluster, loaded.experiment)  # it may have been taken while we waited for pods
    with gateway(cluster, info) as url:
        refuse_untrusted(url, info.access)  # no probe could see a route, and no load go its way
        reached = msgspec.structs.replace(info, gateway_url=url)
        state = StackDir(stack_dir(loaded.experiment.name))
        switch.change(cluster, reached, state, find_phase(loaded, phase), How("deploy up", edit))


def _finish(
    cluster: Cluster, loaded: Loaded, info: StackInfo, checked: References, phase: str, told: Progress
) -> StackInfo:
    """Say what the pods' answers showed, and write it all down."""
    experiment, state = loaded.experiment, StackDir(stack_dir(loaded.experiment.name))
    warned = [*(note for model in _notes(info) for note in model), *references.notes(experiment, checked)]
    whole = msgspec.structs.replace(
        info, notes=list(dict.fromkeys([*warned, *_bare_pods(cluster, experiment, _api(info))]))
    )
    for sentence in [*whole.notes, *checked.problems]:
        told(sentence)
    write_json(state.references, checked)
    write_json(state.info, whole)
    apply(cluster, _notice(whole, phase), force=True)
    told(f"{experiment.name} is up at {whole.gateway_url or _way_in_words(whole)}")
    return whole


def _notes(info: StackInfo) -> list[Sequence[str]]:
    return [model.get("notes") or () for model in info.models.values()]


def _way_in_words(info: StackInfo) -> str:
    """How traffic comes in, in words."""
    return info.cluster.way_in if info.cluster else ""


def refuse_elsewhere(name: str, cluster: Cluster | None = None) -> None:
    """Raise if the state directory of this name is that of an embedded stack, or of one in another cluster.

    Args:
        name: Of the experiment.
        cluster: Where its stack is wanted now; any will do if None.

    Raises:
        StackError: it is.
    """
    info = None
    with contextlib.suppress(StackError):
        info = read_stack(name)
        if info is None:
            return
    if info is None or info.target != TARGET:
        raise StackError(f"{name}: an embedded stack is up under this name; run: python -m deploy down {name}")
    if cluster and info.cluster and not _is_in(info, cluster):
        raise StackError(
            f"{name}: its stack is up in context {info.cluster.context} ({info.cluster.server}), and this is "
            f"{cluster}; run: python -m deploy down {name}, or give this one a name: --set name={name}-2"
        )


def _is_in(info: StackInfo, cluster: Cluster) -> bool:
    """Whether a stack is in a cluster: one that was made anew has its context's name still, an alias its server."""
    there = info.cluster
    return there is not None and (there.context == cluster.context or there.server == cluster.server)


def _refuse_used(cluster: Cluster, experiment: Experiment) -> None:
    """Raise where somebody else's run, or another stack of this name, would be changed under its owner."""
    refuse_reserved(experiment.name)
    refuse_elsewhere(experiment.name, cluster)
    lease.refuse_leased(cluster, experiment)


def make_room(cluster: Cluster, loaded: Loaded, wanted: Wanted) -> None:
    """Make the namespace, where there is none: the Lease of a run lies in it, and nobody can hold one without.

    Raises:
        StackError: Istio is missing, or the API server refuses it.
    """
    experiment = loaded.experiment
    if experiment.attach:  # somebody else's namespace is there, or there is nothing to attach to
        return
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": experiment.namespace}}
    if get(cluster, space) is None:
        objects = manifests(loaded, experiment.phases[0], wanted.form(mesh.find(cluster).api))
        made = [each for each in objects if each["kind"] == "Namespace"]
        ownership.apply_all(cluster, experiment, made, _quiet, force=wanted.force)


def _present_phase(loaded: Loaded) -> str | None:
    """The phase in force of a stack that is up for this very experiment: putting it up again changes no route."""
    info = read_stack(loaded.experiment.name)
    if info is None or info.experiment_hash != experiment_hash(loaded.experiment):
        return None
    changes = journal.changes(journal.read(StackDir(stack_dir(loaded.experiment.name)).journal))
    known = {phase.name for phase in loaded.experiment.phases}
    return changes[-1].phase if changes and changes[-1].phase in known else None


def _provision(loaded: Loaded, progress: Progress) -> tuple[dict[str, ModelInfo], References]:
    """Models, payloads, and what the models answer to them; refused where the answers cannot tell the arms apart."""
    models = provisioning.ensure(loaded, progress)
    payload_dir = _payload_folder(loaded)
    bodies.write_payloads(loaded, models, payload_dir)
    expected = provisioning.reference_outputs(loaded, models, payload_dir, progress)
    references.refuse_indistinguishable(loaded.experiment, expected)
    return models, expected


def _payload_folder(loaded: Loaded) -> Path:
    """Where request bodies go, empty."""
    folder = StackDir(stack_dir(loaded.experiment.name)).payloads.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _guidance(cluster: Cluster, experiment: Experiment, models: Mapping[str, ModelInfo], form: Form) -> list[str]:
    """How models come to where the pods look for them: a node's folder is not ours to write to."""
    folder = stage(models, stack_dir(experiment.name) / "models")
    if form.model_claim:
        space = experiment.namespace
        return [
            f"models lie in {folder}, a folder for each arm; pods look for them in the claim {form.model_claim}",
            f"to bring them there, from any pod that mounts the claim: kubectl -n {space} cp {folder}/. POD:FOLDER",
        ]
    lines = [f"models lie in {folder}, a folder for each arm; pods look for them in {form.model_root} on their node"]
    nodes = listed(cluster, "v1", "Node")
    if any("minikube.k8s.io/name" in (node["metadata"].get("labels") or {}) for node in nodes):
        lines.append(f"to bring them there, keep this running: minikube mount {folder}:{form.model_root}")
    return lines


def _way_in(
    cluster: Cluster, selector: Mapping[str, str], front: Front, wanted: Wanted, progress: Progress
) -> mesh.Ingress:
    if wanted.gateway:
        return mesh.given(cluster, selector, front, wanted.gateway)
    found = mesh.ingress(cluster, selector, front)
    progress(f"the way in is {found.how}{f': {found.url}' if found.url else ''}")
    return found


def _describe(
    loaded: Loaded, cluster: Cluster, wanted: Wanted, api: str, models: Mapping[str, ModelInfo], way_in: mesh.Ingress
) -> StackInfo:
    return StackInfo(
        schema_version=SCHEMA,
        experiment=to_mapping(loaded.experiment),
        experiment_hash=experiment_hash(loaded.experiment),
        experiment_path=str(loaded.path),
        target=TARGET,
        gateway_url=way_in.url or "",
        admin_url="",
        pods=_pods(cluster, loaded.experiment, api),
        supervisor_pid=0,
        started_us=time.time_ns() // 1000,
        models={arm: msgspec.to_builtins(asdict(model), enc_hook=str) for arm, model in models.items()},
        versions=installed(_VERSIONS_OF),
        access=access_of(loaded.experiment, wanted.access),
        cluster=ClusterInfo(
            context=cluster.context,
            server=cluster.server,
            istio=api,
            profile=wanted.profile,
            model_root=wanted.model_root,
            selector=dict(way_in.selector),
            way_in=way_in.how,
            front=way_in.front,
            model_claim=wanted.model_claim,
            image=wanted.image,
            gateway_namespace=wanted.gateway_namespace,
            mutual_tls=wanted.mutual_tls,
        ),
    )


def _arm_pods(cluster: Cluster, experiment: Experiment, api: str) -> list[tuple[str, Json]]:
    """Each ready pod with its arm."""
    labels: Mapping[str, Mapping[str, str]] = {
        arm: {"app": experiment.service, "version": arm} for arm in experiment.arms
    }
    if experiment.attach:
        labels = attached.examine(cluster, experiment, api).arms
    found = listed(cluster, "v1", "Pod", experiment.namespace)
    return [
        (arm, pod)
        for arm, wanted in labels.items()
        for pod in found
        if is_ready(pod) and wanted.items() <= (pod["metadata"].get("labels") or {}).items()
    ]


def _pods(cluster: Cluster, experiment: Experiment, api: str) -> list[Pod]:
    return [
        Pod(pod["metadata"]["name"], arm, f"http://{pod['status']['podIP']}:{SERVICE_PORT}", 0)
        for arm, pod in _arm_pods(cluster, experiment, api)
    ]


def _check(cluster: Cluster, info: StackInfo, expected: References, told: Progress) -> References:
    """Ask each pod past the gateway, and compare with what the artefacts answer."""
    with _past_the_gateway(cluster, info) as reached:
        return references.check(reached, expected, _bodies(info), told)


def _learn(cluster: Cluster, info: StackInfo, told: Progress) -> References:
    """Ask each pod past the gateway: what its arm answers is the reference, for want of an artefact."""
    with _past_the_gateway(cluster, info) as reached:
        learned = references.learn(reached, _bodies(info), told)
    references.refuse_indistinguishable(loaded_of(info).experiment, learned)
    return learned


def _bodies(info: StackInfo) -> dict[str, bytes]:
    return read_payloads(StackDir(stack_dir(loaded_of(info).experiment.name)).payloads)


@contextlib.contextmanager
def _past_the_gateway(cluster: Cluster, info: StackInfo) -> Iterator[StackInfo]:
    """The stack with its pods at ports that the API server forwards."""
    with contextlib.ExitStack() as opened:
        pods = [
            Pod(pod["metadata"]["name"], arm, opened.enter_context(forwarded(cluster, pod, SERVICE_PORT)), 0)
            for arm, pod in _arm_pods(cluster, loaded_of(info).experiment, _api(info))
        ]
        yield msgspec.structs.replace(info, pods=pods)


def _api(info: StackInfo) -> str:
    return info.cluster.istio if info.cluster else ""


def _bare_pods(cluster: Cluster, experiment: Experiment, api: str) -> list[str]:
    """Pods that are older than the label that gives them a sidecar."""
    bare = [
        pod["metadata"]["name"]
        for _, pod in _arm_pods(cluster, experiment, api)
        if not any(
            each["name"] == "istio-proxy"
            for each in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())]
        )
    ]
    if not bare:
        return []
    # Somebody else's namespace need not be ours to read.
    why = None if experiment.attach else mesh.injection(cluster, experiment.namespace, mesh.find(cluster))
    if why:
        return [f"pods without a sidecar: {', '.join(bare)}; namespace {experiment.namespace} gives them none: {why}."]
    return [
        f"pods without a sidecar in a namespace that injects one: {', '.join(bare)}; delete them: new ones have it."
    ]


def _notice(info: StackInfo, phase: str) -> Json:
    """The ConfigMap that tells other machines what is up."""
    experiment = loaded_of(info).experiment
    data = {
        "experiment": msgspec.json.encode(info.experiment).decode(),
        "experiment_hash": info.experiment_hash,
        "phase": phase,
        "gateway_url": info.gateway_url,
    }
    return {**ownership.notice(experiment), "data": data}


@contextlib.contextmanager
def gateway(cluster: Cluster, info: StackInfo) -> Iterator[str]:
    """The URL of the way in, for as long as the block: the stack's own, or a port forwarded to a gateway's pod."""
    if info.gateway_url:
        yield info.gateway_url
        return
    labels = ",".join(f"{name}={value}" for name, value in (info.cluster.selector if info.cluster else {}).items())
    pods = [pod for pod in listed(cluster, "v1", "Pod", "", labels) if is_ready(pod)]
    if not pods:
        raise StackError(
            f"{cluster}: no ready pod has the gateway's labels {labels}; see: kubectl get pods -A -l {labels}"
        )
    front = info.cluster.front if info.cluster else PLAIN
    with forwarded(cluster, pods[0], front.pod_port, front.scheme) as url:
        yield url


def connected(name: str) -> tuple[Cluster, StackInfo]:
    """The cluster of a stack that is up, and what is known of the stack.

    Raises:
        StackError: no stack of this name is up on a cluster, or its context is no more.
    """
    info = read_stack(name)
    if info is None or info.cluster is None:
        raise StackError(f"{name}: no stack is up; put it up with: python -m deploy up {name} --target kubernetes")
    cluster = connect(info.cluster.context)
    if cluster.server != info.cluster.server:
        raise StackError(
            f"{name}: context {cluster.context} leads to {cluster.server} now, and its stack is at "
            f"{info.cluster.server}; set KUBECONFIG back, or put it up there anew."
        )
    return cluster, info


def route(
    name: str,
    phase: str,
    *,
    edit: Edit | None = None,
    by: str = "deploy route",
    watch: Watch | None = None,
    force: bool = False,
    told: Progress = _quiet,
) -> journal.Change:
    """Put the routing of a phase in force; when it returns, every replica of the gateway has it.

    Args:
        name: Of the experiment.
        phase: One of its phases.
        edit: What a self-test does to the manifests.
        by: Who asks for it, for the journal.
        watch: What looks for others' changes meanwhile, and is told of ours.
        force: Take over what others own besides the routes.
        told: Told where it changes something, and what it leaves to others.

    Raises:
        StackError: no stack is up; there is no such phase; the cluster refuses it or the gateway does not take it.
    """
    with locked(name, _quiet):
        refuse_reserved(name)
        cluster, info = connected(name)
        lease.refuse_leased(cluster, loaded_of(info).experiment)
        refuse_unset(loaded_of(info).experiment)
        state = StackDir(stack_dir(name))
        wanted = find_phase(loaded_of(info), phase)
        told(f"{cluster}: namespace {loaded_of(info).experiment.namespace} is where phase {phase} is put in force")
        with gateway(cluster, info) as url:
            reached = msgspec.structs.replace(info, gateway_url=url)
            change = switch.change(cluster, reached, state, wanted, How(by, edit, watch, force, told))
        apply(cluster, _notice(info, phase), force=True)
        return change


def routing(name: str) -> journal.Change:
    """The routing of a stack as it is live, with the phase that was put in force last.

    Raises:
        StackError: none is up, or it has no VirtualService.
    """
    cluster, info = connected(name)
    http = switch.routes_of(cluster, info, loaded_of(info))
    changes = journal.changes(journal.read(StackDir(stack_dir(name)).journal))
    return replace(changes[-1], http=http) if changes else journal.Change(0, ON_END, 0, None, "", http, [])


@dataclass(frozen=True)
class Standing:
    """A stack that is there before a run, whoever has put it up; `before` is its routing, None where it has none."""

    before: journal.Change | None


def standing(cluster: Cluster, loaded: Loaded) -> Standing | None:
    """What of an experiment is in a cluster now, by the labels of its objects; None where there is nothing.

    What this machine remembers does not count: others put stacks up too, and one whose pods are not ready is one.

    Raises:
        StackError: the cluster does not answer, or something may not be read.
    """
    experiment = loaded.experiment
    if not ownership.ours(cluster, experiment):
        return None
    http = switch.live_routes(cluster, experiment, mesh.find(cluster).api)
    notice = get(cluster, ownership.notice(experiment)) or {}
    phase = str((notice.get("data") or {}).get("phase") or ON_END)
    return Standing(journal.Change(0, phase, 0, None, "", http, []) if http else None)


def leave(loaded: Loaded, context: str | None, found: Standing | None, told: Progress = _quiet) -> None:
    """End a run: a stack that was up goes on as `on_end` says, one that we put up goes down, an attached one is let go.

    Args:
        loaded: The experiment.
        context: Of the cluster.
        found: What was there before the run.
        told: Told what happens.
    """
    name = loaded.experiment.name
    info = read_stack(name)
    if found is not None:
        if info is not None:  # else it was refused before we described it, and nothing was changed
            settle(name, found.before, told)
        return
    attached_before = info.cluster.before if info and info.cluster else None
    if attached_before is not None:
        _settle_attached(name, attached_before, told)
    down(name, loaded, context, told, restore=False)


def settle(name: str, before: journal.Change | None, told: Progress = _quiet) -> None:
    """Leave the routes of a stack that was up before a run as the experiment's `on_end` says.

    Without a routing before the run there is nothing to restore.

    Raises:
        StackError: the cluster refuses it, or the gateway does not take it.
    """
    cluster, info = connected(name)
    experiment = loaded_of(info).experiment
    if experiment.attach:
        if before is None:
            told(_STAY)
        else:
            _settle_attached(name, before.http, told)
        return
    found = ending(experiment, before)
    if found is None:
        told(_STAY)
        return
    phase, edit, words = found
    with locked(name, told), gateway(cluster, info) as url:
        reached = msgspec.structs.replace(info, gateway_url=url)
        switch.change(cluster, reached, StackDir(stack_dir(name)), phase, How("end of a run", edit, told=told))
        apply(cluster, _notice(info, phase.name), force=True)
    told(words)


def _settle_attached(name: str, before: Sequence[Json], told: Progress) -> None:
    """The same for somebody else's stack, of which only the routes are ours to change."""
    cluster, info = connected(name)
    loaded = loaded_of(info)
    found = ending_http(loaded.experiment, before)
    if found is None:
        told(_STAY)
        return
    _put_back(cluster, info, found[0], found[1], told)


def _put_back(cluster: Cluster, info: StackInfo, http: Sequence[Json], words: str, told: Progress) -> None:
    """Give somebody else's VirtualService routes for good; where its owner has deleted it there is nothing to mend."""
    loaded = loaded_of(info)
    try:
        switch.set_routes(cluster, info, loaded, http)
    except ApiError as error:
        if error.status != NOT_FOUND:
            raise
        words = f"VirtualService {loaded.experiment.service} is gone: its owner has deleted it; no routes were put back"
    told(words)


@dataclass(frozen=True)
class Status:
    """What can be said of a stack now; `drift` has a sentence for each object that is not as its phase states."""

    info: StackInfo
    phase: str | None
    pods: tuple[tuple[str, str, bool], ...]
    drift: tuple[str, ...]


def status(name: str) -> Status:
    """The stack of an experiment as it is now.

    Raises:
        StackError: none is up, or the cluster does not answer.
    """
    cluster, info = connected(name)
    loaded = loaded_of(info)
    changes = journal.changes(journal.read(StackDir(stack_dir(name)).journal))
    phase = changes[-1].phase if changes else None
    pods = listed(cluster, "v1", "Pod", loaded.experiment.namespace, f"app={loaded.experiment.service}")
    seen = tuple(
        (pod["metadata"]["name"], str((pod["metadata"].get("labels") or {}).get("version", "")), is_ready(pod))
        for pod in pods
    )
    objects = _stated(loaded, info, changes[-1]) if changes else []
    if loaded.experiment.attach:  # nothing else is ours to compare
        objects = [
            {**each, "spec": {"http": each["spec"]["http"]}} for each in objects if each["kind"] == "VirtualService"
        ]
    drift = tuple(ownership.drift(cluster, objects, whole=not loaded.experiment.attach))
    return Status(info, phase, seen, drift)


def _stated(loaded: Loaded, info: StackInfo, last: journal.Change) -> list[Json]:
    """The objects as the routing that was put in force last states them."""
    phase, edit = stated(loaded.experiment, last)
    return edit(manifests(loaded, phase, switch.form_of(info)))


def down(
    name: str, loaded: Loaded | None, context: str | None, progress: Progress = _quiet, *, restore: bool = True
) -> bool:
    """Remove what carries our labels, and the state directory; whether there was anything.

    Args:
        name: Of the experiment.
        loaded: The experiment, where no stack of that name is known on this machine.
        context: Of the cluster; the one that is known here if None. Another one's objects are removed there, and what
            is known here stays.
        progress: Told what is deleted.
        restore: Give an attached VirtualService the routes that it had before us.
    """
    info = read_stack(name)
    if info is None and loaded is None:
        raise StackError(f"{name}: no stack of that name is known here; name the experiment's file.")
    with locked(name, progress):
        refuse_reserved(name)
        refuse_elsewhere(name)
        cluster, here = _meant(info, context)
        experiment = (loaded or loaded_of(info)).experiment if here is None else loaded_of(here).experiment  # type: ignore[arg-type]
        lease.refuse_leased(cluster, experiment)
        if restore and here and here.cluster and here.cluster.before is not None:
            progress(f"{cluster}: putting the routes of VirtualService {experiment.service} back")
            _put_back(cluster, here, here.cluster.before, "routes are as they were before", progress)
        progress(f"{cluster}: removing what is ours in namespace {experiment.namespace}")
        removed = ownership.remove(cluster, experiment, progress)
        if here is None and info is not None and info.cluster is not None:
            progress(f"{name}: its stack in context {info.cluster.context} stays as it is")
            return bool(removed)
        shutil.rmtree(stack_dir(name), ignore_errors=True)
        return bool(removed) or info is not None


def _meant(info: StackInfo | None, context: str | None) -> tuple[Cluster, StackInfo | None]:
    """The cluster that is meant, and what is known here of the stack in it."""
    if info is not None and context is None:
        return connected(loaded_of(info).experiment.name)[0], info
    cluster = connect(context)
    if info is not None and _is_in(info, cluster):
        return connected(loaded_of(info).experiment.name)[0], info
    return cluster, None
