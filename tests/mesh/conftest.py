import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

# The files beside this one are no package: a package under `tests` would shadow a real one.
sys.path.insert(0, str(Path(__file__).parent))

from plane.mesh import serving, standing, why_not
from plane.objects import FEW, apply_all, remove_all

from deploy import models as provisioning
from experiments.core import reading
from experiments.core.children import end, last_lines, spawn
from experiments.core.home import CHECKOUT


def pytest_collection_modifyitems(items):
    """The first test of a session waits for the mesh as well, and none of them is worth a failure on a busy machine.

    Modules that need no trained model come first: models are trained while those mostly wait. Before them all is the
    one with a mesh of its own, which comes up beside the session's.
    """
    ours = [index for index, item in enumerate(items) if Path(__file__).parent in item.path.parents]
    found = [items[index] for index in ours]
    trained = {item.path for item in found if "trained" in item.fixturenames}
    order = sorted(found, key=lambda item: (item.path.name != "test_up.py", item.path in trained))
    for index, item in zip(ours, order, strict=True):
        items[index] = item
        item.add_marker(pytest.mark.timeout(600))


@dataclass(frozen=True)
class Risen:
    """The session's mesh, the seconds that it took to come up, and the processor time of others meanwhile."""

    mesh: object
    took_s: float
    others_s: float


@pytest.fixture(scope="session")
def second(request):
    """The command that puts a mesh up, under way beside the session's own mesh where a test asks: both mostly wait."""
    if why_not() or not any("second" in item.fixturenames for item in request.session.items):
        yield None
        return
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "up.py")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT, start_new_session=True,
    )  # fmt: skip
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate(timeout=10)


@pytest.fixture(scope="session")
def risen(training, second):  # noqa: ARG001 - what is under way beside it costs less than what waits for it
    """A Kubernetes API server with Istio and a gateway, up for the whole session, and how it came up."""
    reason = why_not()
    if reason:
        pytest.skip(f"no mesh here: {reason}")
    began, busy, own = time.monotonic(), busy_s(), own_s()
    with standing() as found:
        yield Risen(found, time.monotonic() - began, busy_s() - busy - (own_s() - own))


def busy_s():
    """Processor time that all processes of this machine have used."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - getattr(times, "guest", 0)


def own_s():
    """Processor time that this process, its children and what they started have used."""
    process = psutil.Process()
    found = [process, *process.children(recursive=True)]
    times = [each.cpu_times() for each in found if each.is_running()]
    return sum(each.user + each.system + each.children_user + each.children_system for each in times)


@pytest.fixture(scope="session")
def mesh(risen):
    """A Kubernetes API server with Istio and a gateway, up for the whole session."""
    return risen.mesh


@dataclass(frozen=True)
class Training:
    """A home whose models are being made, by a process of their own where a test of this session asks for them."""

    home: Path
    process: object = None


@pytest.fixture(scope="session")
def training(request, models, tmp_path_factory):
    """The models of `digits`, on their way while the mesh comes up."""
    home = tmp_path_factory.mktemp("trained")
    (home / "models").symlink_to(models)
    if why_not() or not any("trained" in item.fixturenames for item in request.session.items):
        yield Training(home)
        return
    here = Path(__file__).parent
    variables = {"SPLITPROOF_HOME": str(home), "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(here)])}
    command = ["nice", sys.executable, str(here / "plane" / "training.py"), str(home / "payloads")]
    process = spawn(command, home / "log", variables)
    yield Training(home, process)
    end(process, 5)


@pytest.fixture(scope="session")
def trained(training):
    """By arm of `digits`, the folder of its model: trained once for the session."""
    if training.process is not None:
        assert training.process.wait(300) == 0, last_lines(training.home / "log", 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLITPROOF_HOME", str(training.home))
        found = provisioning.ensure(reading.load("digits"), lambda _: None)
    return {arm: model.base_path for arm, model in found.items()}


@pytest.fixture(scope="module")
def digits(mesh, trained, models, tmp_path_factory):
    """The experiment whose pods are our serving processes, and a home with its models, for a module."""
    loaded = reading.load("digits", [FEW])
    home = tmp_path_factory.mktemp("home")
    runtime = models.with_name("runtime")  # of the reports' pictures: it takes seconds, and is made once too
    runtime.mkdir(exist_ok=True)
    for each in (models, runtime):
        (home / each.name.rstrip("0123456789")).symlink_to(each)
    rule = serving(loaded.experiment.model, trained, app=loaded.experiment.service)
    mesh.kubelet.rules.insert(0, rule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLITPROOF_HOME", str(home))
        patch.setenv("KUBECONFIG", str(mesh.kubeconfig))
        yield loaded
    mesh.kubelet.rules.remove(rule)


@pytest.fixture
def applied(mesh):
    """A function that applies manifests and waits for their pods; all but the Namespaces is gone after the test."""
    given = []

    def apply(manifests):
        given.extend(manifests)
        apply_all(mesh, manifests)

    yield apply
    remove_all(mesh, given)
