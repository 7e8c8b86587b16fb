"""One run at a time changes an experiment's routes, from whatever machine: a Lease in its namespace."""

import contextlib
import getpass
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

from deploy.cluster.client import Cluster, Json, request
from deploy.cluster.objects import get, path_of
from deploy.cluster.refusals import CONFLICT, NOT_FOUND, ApiError, Asked
from experiments.core.errors import StackError
from experiments.core.spec import Experiment

_SECONDS = 30
_RENEW_S = 10.0
_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


@contextlib.contextmanager
def leased(cluster: Cluster, experiment: Experiment) -> Iterator[None]:
    """Hold the Lease of an experiment for as long as the block, renewing it; a holder that died loses it by time.

    Raises:
        StackError: somebody else holds it, and is named.
    """
    _acquire(cluster, experiment)
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(cluster, experiment, ended), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(ApiError):
            _release(cluster, experiment)


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


def _renew(cluster: Cluster, experiment: Experiment, ended: threading.Event) -> None:
    while not ended.wait(_RENEW_S):
        # A lost renewal is made up for by the next one; the Lease lasts for three.
        with contextlib.suppress(ApiError):
            _write(cluster, experiment, get(cluster, _manifest(experiment)))


def _release(cluster: Cluster, experiment: Experiment) -> None:
    manifest = _manifest(experiment)
    found = get(cluster, manifest)
    if found is None or (found.get("spec") or {}).get("holderIdentity") != holder():
        return
    asked = Asked("delete", "leases.coordination.k8s.io", manifest["metadata"]["name"], experiment.namespace)
    try:
        request(cluster, asked, "DELETE", path_of(cluster, manifest))
    except ApiError as error:
        if error.status != NOT_FOUND:
            raise
