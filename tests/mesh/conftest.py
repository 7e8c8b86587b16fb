import sys
from pathlib import Path

import pytest

# The files beside this one are no package: a package under `tests` would shadow a real one.
sys.path.insert(0, str(Path(__file__).parent))

from plane.mesh import standing, why_not
from plane.objects import apply_all, remove_all


@pytest.fixture(scope="session")
def mesh():
    """A Kubernetes API server with Istio and a gateway, up for the whole session."""
    reason = why_not()
    if reason:
        pytest.skip(f"no mesh here: {reason}")
    with standing() as found:
        yield found


@pytest.fixture
def applied(mesh):
    """A function that applies manifests and waits for their pods; all but the Namespaces is gone after the test."""
    given = []

    def apply(manifests):
        given.extend(manifests)
        apply_all(mesh, manifests)

    yield apply
    remove_all(mesh, given)
