"""A whole mesh, up for as long as a block: Kubernetes, Istio, its gateway, and processes behind the pods."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from plane import api, binaries, istio, kubelet, namespace
from plane.api import Api, Json
from plane.control_plane import cluster
from plane.istio import GATEWAY_PORT, SYSTEM
from plane.kubelet import Kubelet, Program, Rule
from plane.namespace import Namespace
from plane.processes import Place, environment
from plane.waiting import Told, until

from experiments.core.home import CHECKOUT

RESPONDER = Path(__file__).parent / "responder.py"
SERVING_PORT = 8501

_WEBHOOK = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": f"istio-validator-{SYSTEM}"},
}
_GUARDED_WITHIN_S = 60.0


@dataclass(frozen=True)
class Mesh:
    """A mesh that is up."""

    place: Place
    api: Api
    kubelet: Kubelet

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, of one context, `mesh`."""
        return self.place.kubeconfig

    @property
    def gateways(self) -> list[str]:
        """The addresses of the gateway's pods that are ready."""
        pods = api.listed(self.api, "v1", "Pod", SYSTEM, "istio=ingressgateway")
        return [pod["status"]["podIP"] for pod in pods if is_ready(pod)]

    @property
    def gateway_url(self) -> str:
        """Where the gateway listens, to those in the node's namespace."""
        return f"http://{self.gateways[0]}:{GATEWAY_PORT}"

    def inside(self) -> AbstractContextManager[None]:
        """Put this thread into the node's namespace: what it connects to is there, what it starts lives there."""
        return namespace.inside(self.place.namespace)

    def run(self, arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command that sees this cluster and no other, inside; `options` as `subprocess.run` has them."""
        with self.inside():
            given = {"env": environment(self.place), "capture_output": True, "text": True, "timeout": 120, **options}
            found: subprocess.CompletedProcess[str] = subprocess.run(list(arguments), check=False, **given)
            return found


def is_ready(pod: Json) -> bool:
    """Whether a pod is ready and not about to go."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def why_not() -> str | None:
    """Why no mesh can be put up here; None where it can."""
    reason = why_no_place()
    lacking = [module.name for module in binaries.missing()]
    if reason is None and lacking:
        return (
            f"the cache {binaries.cache()} lacks the programs of {', '.join(lacking)}; `make mesh-programs` builds them"
        )
    return reason


def why_no_place() -> str | None:
    """Why no mesh could be put up here even if its programs were there; None where it could."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    for program in ("ip", "openssl"):
        if shutil.which(program) is None:
            return f"{program} is not on the PATH"
    try:
        with namespace.made():
            return None
    except OSError as error:  # root in a container may lack the capability
        return f"no network namespace can be made ({error})"


@contextmanager
def standing(told: Told = lambda _: None) -> Iterator[Mesh]:
    """A mesh for as long as the block; nothing of it remains afterwards.

    Raises:
        MeshError: it does not come up.
    """
    with namespace.made() as made, _folder(made) as folder:
        place = Place(folder, made, binaries.paths())
        with cluster(place, told) as served, _kubelet(place, served) as worker:
            istio.install(place)
            told("Istio is installed")
            mesh = Mesh(place, served, worker)
            with mesh.inside():
                until(
                    lambda: _is_guarded(served), "Istio's validation to refuse what it cannot check", _GUARDED_WITHIN_S
                )
            told("Istio's webhooks answer")
            yield mesh


@contextmanager
def _folder(made: Namespace) -> Iterator[Path]:
    """A temporary folder by the namespace's name, so that a sweep finds both."""
    folder = Path(tempfile.gettempdir()) / made.name
    (folder / "logs").mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _kubelet(place: Place, served: Api) -> Iterator[Kubelet]:
    worker = Kubelet(place, served, [*istio.rules(place, served), Rule({"app": None, "version": None}, _responder)])
    thread = threading.Thread(target=kubelet.work, args=(worker,), name="kubelet")
    thread.start()
    try:
        yield worker
    finally:
        kubelet.stop(worker)
        thread.join()


def _responder(pod: Json, _: Sequence[Json]) -> Program:
    """A process that answers every request with the pod's name and version."""
    address, version = pod["status"]["podIP"], kubelet.label(pod, "version")
    arguments = [sys.executable, str(RESPONDER), address, str(SERVING_PORT), pod["metadata"]["name"], version]
    return Program(arguments, f"http://{address}:{SERVING_PORT}/")


def serving(
    model: str,
    base_paths: Mapping[str, Path],
    options: Mapping[str, Sequence[str]] = MappingProxyType({}),
    app: str | None = None,
) -> Rule:
    """A rule for the pods of an experiment: our own serving process, with the model of the pod's version.

    Args:
        model: The name that requests ask for.
        base_paths: By version, the folder that holds the model's version folders.
        options: By version, more options of the serving process, such as its faults.
        app: The label `app` of the pods; any where there is none.
    """

    def program(pod: Json, _: Sequence[Json]) -> Program:
        address, path = pod["status"]["podIP"], base_paths[kubelet.label(pod, "version")]
        arguments = [
            sys.executable, "-m", "deploy.embedded.serving", "--model-name", model, "--model-base-path", str(path),
            "--host", address, "--rest-port", str(SERVING_PORT), *options.get(kubelet.label(pod, "version"), ()),
        ]  # fmt: skip
        ready = f"http://{address}:{SERVING_PORT}/v1/models/{model}/metadata"
        return Program(arguments, ready, {"PYTHONPATH": str(CHECKOUT)})

    return Rule({"app": app, "version": None}, program)


def _is_guarded(served: Api) -> bool:
    """istiod lets everything pass until its webhook has proven itself; then it changes the policy to Fail."""
    webhooks = api.get(served, _WEBHOOK)["webhooks"]
    return all(webhook["failurePolicy"] == "Fail" for webhook in webhooks)
