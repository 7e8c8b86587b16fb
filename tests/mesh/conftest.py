import sys
from pathlib import Path

import pytest

# The files beside this one are no package: a package under `tests` would shadow a real one.
sys.path.insert(0, str(Path(__file__).parent))

from plane.mesh import serving, standing, why_not
from plane.objects import FEW, apply_all, remove_all

from deploy import models as provisioning
from experiments.core import reading


def pytest_collection_modifyitems(items):
    """The first test of a session waits for the mesh as well, and none of them is worth a failure on a busy machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def mesh():
    """A Kubernetes API server with Istio and a gateway, up for the whole session."""
    reason = why_not()
    if reason:
        pytest.skip(f"no mesh here: {reason}")
    with standing() as found:
        yield found


@pytest.fixture(scope="session")
def trained(models, tmp_path_factory):
    """By arm of `digits`, the folder of its model: trained once for the session."""
    home = tmp_path_factory.mktemp("trained")
    (home / "models").symlink_to(models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLITPROOF_HOME", str(home))
        found = provisioning.ensure(reading.load("digits"), lambda _: None)
    return {arm: model.base_path for arm, model in found.items()}


@pytest.fixture(scope="module")
def digits(mesh, trained, models, tmp_path_factory):
    """The experiment whose pods are our serving processes, and a home with its models, for a module."""
    loaded = reading.load("digits", [FEW])
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(models)
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
