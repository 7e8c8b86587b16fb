"""A load in the cluster: Locust's master and workers as Jobs, their records brought here as they grow.

Nothing goes to the load but over the API server: its page is reached through a forwarded port of the master's pod.
"""

import base64
import contextlib
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from deploy.asking import ask
from deploy.cluster.client import Cluster, Json
from deploy.cluster.forward import forwarded
from deploy.cluster.objects import apply, delete, get, listed, name_of
from deploy.cluster.readiness import HOPELESS, Progress, is_ready, last_line, pod_reason
from deploy.locust_manifests import PAGE_PORT, LoadForm, labels_of_load, load_manifests
from experiments.core.errors import StackError
from experiments.core.records import Fetched, RunDir, RunInfo, Wish
from experiments.core.spec import Experiment

KINDS = (("batch/v1", "Job"), ("v1", "Service"), ("v1", "ConfigMap"), ("v1", "Secret"))
"""What is taken down; a Namespace and a claim are never ours to delete."""

_GONE_WITHIN_S = 60.0
_EVERY_S = 0.25
_SILENT_S = 20.0
"""Without an answer of the master for so long, the load counts as lost."""

_COMPARISONS = 7


@dataclass
class Bringing:
    """A load under way, and what has come of its records.

    Attributes:
        run: The run directory here.
        url: The master's page, through a forwarded port.
        have: File name to the bytes that are here.
        ahead_us: How far the master's clock is ahead of ours, to within `uncertainty_us`.
        info: The master's own account of the run, once that has ended and all is here.
        trouble: Why nothing comes any more.
    """

    run: RunDir
    url: str
    have: dict[str, int] = field(default_factory=dict)
    ahead_us: int = 0
    uncertainty_us: int = 0
    info: RunInfo | None = None
    trouble: str | None = None
    over: threading.Event = field(default_factory=threading.Event)


def put_up(cluster: Cluster, experiment: Experiment, form: LoadForm, told: Progress) -> None:
    """Create the objects of a load, after what an earlier one has left.

    Raises:
        StackError: the API server refuses something.
        ProvisionError: a request body or a file is missing, or too large.
    """
    objects = load_manifests(experiment, form)
    told(f"{cluster}: the load goes to namespace {form.namespace}: a master and {form.workers} workers of {form.image}")
    take_down(cluster, experiment, form.namespace)
    for each in objects:
        apply(cluster, each, force=True)


def take_down(cluster: Cluster, experiment: Experiment, namespace: str) -> list[str]:
    """Delete the objects of an experiment's load, and wait until they are gone; their names.

    Raises:
        StackError: something is not gone in time.
    """
    if get(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}) is None:
        return []
    labels = ",".join(f"{name}={value}" for name, value in labels_of_load(experiment).items())
    doomed = [each for version, kind in KINDS for each in listed(cluster, version, kind, namespace, labels)]
    for each in doomed:
        delete(cluster, each)
    end = time.monotonic() + _GONE_WITHIN_S
    left = doomed
    while left := [each for each in left if _still_there(cluster, each)]:
        if time.monotonic() > end:
            raise StackError(
                f"{cluster}: {name_of(left[0])} in {namespace} is deleted and not gone; see its finalizers."
            )
        time.sleep(_EVERY_S)
    return [name_of(each) for each in doomed]


def _still_there(cluster: Cluster, doomed: Json) -> bool:
    found = get(cluster, doomed)
    return found is not None and found["metadata"]["uid"] == doomed["metadata"]["uid"]


def await_pods(cluster: Cluster, experiment: Experiment, form: LoadForm, within_s: float, told: Progress) -> Json:
    """The master's pod, once it and all workers are ready.

    Raises:
        StackError: they are not within `within_s` seconds, or as soon as waiting cannot help; the message says why.
    """
    end, said = time.monotonic() + within_s, set[str]()
    while True:
        pods = listed(cluster, "v1", "Pod", form.namespace, f"app={experiment.name}-load")
        ready = [pod for pod in pods if is_ready(pod)]
        masters = [pod for pod in ready if pod["metadata"]["labels"].get("part") == "master"]
        if masters and len(ready) == form.workers + 1:
            return masters[0]
        why = next(filter(None, (_why(cluster, pod) for pod in pods)), "")
        sentence = f"the load: {len(ready)} of {form.workers + 1} pods are ready{f': {why}' if why else ''}"
        if sentence not in said:
            told(f"waiting for {sentence}")
            said.add(sentence)
        if any(reason in why for reason in HOPELESS) or time.monotonic() > end or _failed(pods):
            raise StackError(f"{cluster}: waited in vain for {sentence}; mend it, and run it again.")
        time.sleep(_EVERY_S)


def _failed(pods: Sequence[Json]) -> bool:
    return any((pod.get("status") or {}).get("phase") == "Failed" for pod in pods)


def _why(cluster: Cluster, pod: Json) -> str:
    """What keeps a pod of the load from being ready, or ended it."""
    if (pod.get("status") or {}).get("phase") == "Failed":
        return f"pod {pod['metadata']['name']} failed: {last_line(cluster, pod, 'locust', previous=False)}"
    return pod_reason(cluster, pod)


@contextlib.contextmanager
def brought(cluster: Cluster, master: Json, run: RunDir) -> Iterator[Bringing]:
    """Bring the records of a load here for as long as the block; its clock is compared with ours before.

    Raises:
        StackError: the master's page does not answer.
    """
    with forwarded(cluster, master, PAGE_PORT) as url, following(url, run) as bringing:
        yield bringing


@contextlib.contextmanager
def following(url: str, run: RunDir) -> Iterator[Bringing]:
    """The same, from a page that can be reached.

    Raises:
        StackError: the page does not answer.
    """
    bringing = Bringing(run, url)
    _compare(bringing)
    thread = threading.Thread(target=_follow, args=(bringing,), name="records", daemon=True)
    thread.start()
    try:
        yield bringing
    finally:
        bringing.over.set()
        thread.join()


def finish(bringing: Bringing, within_s: float, told: Progress) -> None:
    """Stop the load, and wait until the master has closed the run and everything of it is here."""
    ask(f"{bringing.url}/stop", method="POST", body=b"", timeout_s=within_s)
    end = time.monotonic() + within_s
    while bringing.info is None and bringing.trouble is None and time.monotonic() < end:
        time.sleep(_EVERY_S / 5)
    if bringing.info is None:
        told(f"the load's records are incomplete: {bringing.trouble or 'the master has not closed its run in time'}")


def _compare(bringing: Bringing) -> None:
    """How far the master's clock is ahead: the answer that was fastest tells best, to within half its time."""
    best = None
    for _ in range(_COMPARISONS):
        before = time.time_ns() // 1000
        found = _ask(bringing)
        after = time.time_ns() // 1000
        if found is not None and (best is None or after - before < best[0]):
            best = (after - before, found.now_us - (before + after) // 2)
    if best is None:
        raise StackError("the load's master does not answer through its forwarded port; see its log with kubectl logs.")
    bringing.uncertainty_us, bringing.ahead_us = best[0] // 2, best[1]


def _ask(bringing: Bringing, have: dict[str, int] | None = None) -> Fetched | None:
    """The answer to a wish for what is new; None where there is none."""
    body = msgspec.json.encode(Wish(have or {}))
    answer = ask(f"{bringing.url}/experiment/records", method="POST", body=body, timeout_s=_SILENT_S)
    if answer is None or answer.status != 200:  # noqa: PLR2004 - HTTP
        return None
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(answer.body, type=Fetched)
    return None


def _follow(bringing: Bringing) -> None:
    """Fetch what is new until the run has ended, or nothing comes any more."""
    heard = time.monotonic()
    while bringing.info is None and not bringing.over.wait(_EVERY_S):
        found = _ask(bringing, bringing.have)
        try:
            if found is not None:
                heard = time.monotonic()
                _write(bringing, found)
        except (OSError, ValueError, zlib.error) as error:
            bringing.trouble = f"what came could not be written: {error}"
            return
        if time.monotonic() - heard > _SILENT_S:
            bringing.trouble = f"the load's master has not answered for {_SILENT_S:.0f} s"
            return


def _write(bringing: Bringing, found: Fetched) -> None:
    for name, piece in found.files.items():
        if Path(name).name != name or piece.offset != bringing.have.get(name, 0):
            raise ValueError(f"{name!r} from byte {piece.offset}")
        data = zlib.decompress(base64.b64decode(piece.data))
        with (bringing.run.path / name).open("ab") as file:
            file.write(data)
        bringing.have[name] = piece.offset + len(data)
    if found.ended:
        bringing.info = found.info
