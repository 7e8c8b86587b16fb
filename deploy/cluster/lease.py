"""One run at a time changes an experiment's routes, from whatever machine: a Lease in its namespace."""

import contextlib
import getpass
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from deploy.cluster.client import Cluster, Json, request
from deploy.cluster.objects import get, path_of
from deploy.cluster.refusals import CONFLICT, NOT_FOUND, ApiError, Asked
from experiments.core.errors import StackError
from experiments.core.spec import Experiment

_SECONDS = 30
_RENEW_S = 10.0
_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass
class Held:
    """A Lease that is ours; `lost` says in a sentence who took it from us, `taker` whom that names."""

    cluster: Cluster
    experiment: Experiment
    told: Callable[["Held"], None] = lambda _: None
    lost: str | None = None
    taker: str = ""
    ended: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def leased(cluster: Cluster, experiment: Experiment, told: Callable[[Held], None] = lambda _: None) -> Iterator[Held]:
    """Hold the Lease of an experiment for as long as the block, renewing it; a holder that died loses it by time.

    Args:
        cluster: Where.
        experiment: Whose routes are to be changed by nobody else.
        told: Told once if somebody takes the Lease from us.

    Raises:
        StackError: somebody else holds it, and is named.
    """
    _acquire(cluster, experiment)
    held = Held(cluster, experiment, told)
    thread = threading.Thread(target=_renew, args=(held,), name="lease", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        held.ended.set()
        thread.join()
        with contextlib.suppress(ApiError):
            _release(cluster, experiment)


def refuse_leased(cluster: Cluster, experiment: Experiment) -> None:
    """Raise if somebody else's run holds the Lease: whatever we changed would be changed under it.

    Raises:
        StackError: naming the holder.
    """
    found = get(cluster, _manifest(experiment))
    if found is not None and _held_by_another(found):
        raise StackError(_in_use(cluster, experiment, str(found["spec"]["holderIdentity"])))


def holder() -> str:
    """Who we are, to others."""
    return f"{getpass.getuser()}@{socket.gethostname()} (pid {os.getpid()})"


def _manifest(experiment: Experiment) -> Json:
    metadata = {"name": f"splitproof-{experiment.name}", "namespace": experiment.namespace}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}


def _acquire(cluster: Cluster, experiment: Experiment) -> None:
    found = get(cluster, _manifest(experiment))
    if found is not None and _held_by_another(found):
        raise StackError(_in_use(cluster, experiment, str(found["spec"]["holderIdentity"])))
    try:
        _write(cluster, experiment, found)
    except ApiError as error:
        if error.status != CONFLICT:
            raise
        now = get(cluster, _manifest(experiment)) or {}
        who = str((now.get("spec") or {}).get("holderIdentity", "somebody"))
        if who != holder():  # our own earlier attempt may have arrived though its answer was lost
            raise StackError(_in_use(cluster, experiment, who)) from error


def _in_use(cluster: Cluster, experiment: Experiment, who: str) -> str:
    return (
        f"{experiment.name}: {who} runs it in {cluster}, and one at a time may change its routes; wait for its end "
        f"(a run that was killed frees it after {_SECONDS} s)."
    )


def _held_by_another(found: Json) -> bool:
    spec = found.get("spec") or {}
    who, renewed = spec.get("holderIdentity"), spec.get("renewTime")
    if not who or who == holder() or not renewed:
        return False
    age = datetime.now(UTC) - datetime.strptime(renewed, _FORMAT).replace(tzinfo=UTC)
    return age.total_seconds() < float(spec.get("leaseDurationSeconds") or _SECONDS)


def _write(cluster: Cluster, experiment: Experiment, found: Json | None) -> None:
    """Create the Lease, or replace the very version that we saw: of two that try, one is refused."""
    manifest = _manifest(experiment)
    spec = {
        "holderIdentity": holder(),
        "leaseDurationSeconds": _SECONDS,
        "renewTime": datetime.now(UTC).strftime(_FORMAT),
    }
    name, where = manifest["metadata"]["name"], experiment.namespace
    if found is None:
        asked, path = Asked("create", "leases.coordination.k8s.io", name, where), path_of(cluster, manifest)
        request(cluster, asked, "POST", path.rpartition("/")[0], body={**manifest, "spec": spec})
        return
    version = {**manifest["metadata"], "resourceVersion": found["metadata"]["resourceVersion"]}
    asked = Asked("update", "leases.coordination.k8s.io", name, where)
    request(cluster, asked, "PUT", path_of(cluster, manifest), body={**manifest, "metadata": version, "spec": spec})


def _renew(held: Held) -> None:
    """Renew until the block ends, or the Lease is somebody else's: what is not ours any more is not taken back."""
    while not held.ended.wait(_RENEW_S):
        # A renewal that fails is made up for by the next one; the Lease lasts for three.
        with contextlib.suppress(ApiError):
            found = get(held.cluster, _manifest(held.experiment))
            if found is not None and not _is_ours(found):
                held.taker = str((found.get("spec") or {}).get("holderIdentity") or "somebody")
                held.lost = _taken(held)
                held.told(held)
                return
            # It replaces the very version that was read: of two that write, one is refused and looks again.
            _write(held.cluster, held.experiment, found)


def _is_ours(found: Json) -> bool:
    return bool((found.get("spec") or {}).get("holderIdentity") == holder())


def _taken(held: Held) -> str:
    return (
        f"{held.experiment.name}: {held.taker} has taken the Lease of this run in {held.cluster}; nothing more is "
        "changed from here, and what is there is left as it is; run it again when the other one has ended."
    )


def _release(cluster: Cluster, experiment: Experiment) -> None:
    manifest = _manifest(experiment)
    found = get(cluster, manifest)
    if found is None or not _is_ours(found):
        return
    asked = Asked("delete", "leases.coordination.k8s.io", manifest["metadata"]["name"], experiment.namespace)
    try:
        version = {"preconditions": {"resourceVersion": found["metadata"]["resourceVersion"]}}
        request(cluster, asked, "DELETE", path_of(cluster, manifest), body=version)
    except ApiError as error:
        if error.status not in {NOT_FOUND, CONFLICT}:
            raise
