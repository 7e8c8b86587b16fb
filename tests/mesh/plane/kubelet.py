"""The half of a kubelet that KWOK leaves out: a network namespace and a real process for each pod, and its readiness.

KWOK gives a pod its address and says that its containers run. Here each such pod gets a namespace with that address;
the first rule that knows the pod names the process to run in it; the pod becomes ready once that process answers, and
unready when it ends. A pod that no rule knows is ready at once and answers nobody.
"""

import http.client
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Any
from urllib.parse import urlsplit

from plane import api
from plane.api import Api, Json
from plane.namespace import Namespace, delete_pod, inside, make_pod
from plane.processes import Place, start

from experiments.core.children import end

_EVERY_S = 0.15
_PROBED_EVERY_S = 0.6
_PATIENCE_S = 0.2
"""For a process whose pod is gone: its grace is over, and who waits for open connections waits for nobody."""


@dataclass(frozen=True)
class Program:
    """What runs in a pod.

    `ready` is a URL that answers 200 once the process is ready, or an address `tcp://HOST:PORT` that accepts.
    """

    arguments: Sequence[str]
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """What runs in the pods that have these labels; the value None stands for any.

    `program` gets the pod and all pods that have an address. It returns None for as long as it lacks something.
    """

    labels: Mapping[str, str | None]
    program: Callable[[Json, Sequence[Json]], Program | None]


@dataclass
class Running:
    """A pod of ours: its namespace, its process if it has one, whether it was told to be ready."""

    pod: Json
    namespace: Namespace
    process: Popen[bytes] | None = None
    ready: str = ""
    told: bool | None = None
    asked: float = 0.0


@dataclass
class Kubelet:
    """Everything that runs; `rules` may be changed at any time and holds for pods that start from then on."""

    place: Place
    api: Api
    rules: list[Rule]
    pods: dict[str, Running] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def process_of(self, pod_name: str) -> Popen[bytes]:
        """The process behind a pod.

        Raises:
            LookupError: there is none.
        """
        for each in list(self.pods.values()):
            if each.pod["metadata"]["name"] == pod_name and each.process is not None:
                return each.process
        raise LookupError(pod_name)

    def namespace_of(self, pod_name: str) -> Namespace:
        """The network namespace of a pod.

        Raises:
            LookupError: there is none.
        """
        for each in list(self.pods.values()):
            if each.pod["metadata"]["name"] == pod_name:
                return each.namespace
        raise LookupError(pod_name)


def work(kubelet: Kubelet) -> None:
    """Run pods until told to stop; the thread that calls this is the parent of all of their processes."""
    with inside(kubelet.place.namespace):
        while not kubelet._stop.wait(_EVERY_S):
            try:
                _reconcile(kubelet)
            except (OSError, http.client.HTTPException, api.RefusedError) as error:
                # The API server is not always there; what was not done now is done the next time.
                kubelet.troubles.append(f"{type(error).__name__}: {error}")
        for running in kubelet.pods.values():
            _end(running)


def stop(kubelet: Kubelet) -> None:
    """Tell the working thread to end every pod and return."""
    kubelet._stop.set()


def _reconcile(kubelet: Kubelet) -> None:
    pods = api.listed(kubelet.api, "v1", "Pod")
    there = {pod["metadata"]["uid"]: pod for pod in pods if pod.get("status", {}).get("podIP")}
    for uid in [uid for uid in kubelet.pods if uid not in there]:
        _end(kubelet.pods.pop(uid))
    for uid, pod in there.items():
        if uid not in kubelet.pods and pod["status"].get("phase") == "Running":
            kubelet.pods[uid] = Running(pod, make_pod(kubelet.place.namespace, pod["status"]["podIP"]))
        if uid in kubelet.pods:
            kubelet.pods[uid].pod = pod
    for running in kubelet.pods.values():
        if running.process is None:
            _start(kubelet, running, list(there.values()))
        _tell(kubelet, running)


def _start(kubelet: Kubelet, running: Running, pods: Sequence[Json]) -> None:
    rule = _rule(kubelet, running.pod)
    program = rule.program(running.pod, pods) if rule else None
    if program is not None:
        name = running.pod["metadata"]["name"]
        running.ready = program.ready
        running.process = start(
            kubelet.place, name, program.arguments, program.environment, namespace=running.namespace
        )
        _forward_ports(kubelet, running.pod)


def _forward_ports(kubelet: Kubelet, pod: Json) -> None:
    """Let KWOK's kubelet port lead to the pod's process; the object goes with the pod."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    ports = [port["containerPort"] for each in pod["spec"]["containers"] for port in each.get("ports", [])]
    address = pod["status"]["podIP"]
    forwards = [{"ports": [port], "target": {"address": address, "port": port}} for port in ports]
    api.apply(
        kubelet.api,
        {
            "apiVersion": "kwok.x-k8s.io/v1alpha1",
            "kind": "PortForward",
            "metadata": {
                "name": pod["metadata"]["name"],
                "namespace": pod["metadata"]["namespace"],
                "ownerReferences": [owner],
            },
            "spec": {"forwards": forwards},
        },
    )


def _rule(kubelet: Kubelet, pod: Json) -> Rule | None:
    """The first rule that knows a pod."""
    labels = pod["metadata"].get("labels") or {}
    for rule in kubelet.rules:
        if all(name in labels and value in {None, labels[name]} for name, value in rule.labels.items()):
            return rule
    return None


def _tell(kubelet: Kubelet, running: Running) -> None:
    """Tell the API server of a change of readiness."""
    ready = _is_ready(running) if running.process else _rule(kubelet, running.pod) is None
    if ready is not running.told:
        api.patch(kubelet.api, running.pod, {"status": _status(running.pod["status"], ready=ready)}, "status")
        running.told = ready


def _is_ready(running: Running) -> bool:
    """Whether its process answers; one that did is asked again now and then, as a probe would."""
    if running.process is None or running.process.poll() is not None:
        return False
    if running.told and time.monotonic() < running.asked + _PROBED_EVERY_S:
        return True
    running.asked = time.monotonic()
    return answers(running.ready)


def _status(status: Json, *, ready: bool) -> Json:
    """The parts of a pod's status that speak of readiness."""
    word = "True" if ready else "False"
    conditions = [
        {**condition, "status": word} if condition["type"] in {"Ready", "ContainersReady"} else condition
        for condition in status.get("conditions", [])
    ]
    containers = [{**container, "ready": ready} for container in status.get("containerStatuses", [])]
    return {"conditions": conditions, "containerStatuses": containers}


def answers(url: str) -> bool:
    """Whether a URL answers 200; any status at all will do for the schema `tcp`."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=1.0)
    try:
        connection.connect()
        if parts.scheme == "tcp":
            return True
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(running: Running) -> None:
    if running.process is not None:
        end(running.process, _PATIENCE_S)
    delete_pod(running.namespace)


def label(pod: Mapping[str, Any], name: str) -> str:
    """A label of a pod; empty where it has none of that name."""
    return str((pod["metadata"].get("labels") or {}).get(name, ""))
