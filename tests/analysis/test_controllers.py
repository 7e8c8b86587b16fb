"""What Argo Rollouts and Flagger do about each verdict, by the manifests and the endpoint as they are shipped."""

import re
import shutil
import subprocess
import sys

import pytest

from experiments.core.home import CHECKOUT
from tests.analysis import controllers
from tests.analysis.synthetic import Layout, Truth, misrouted, write_run

TRUTHS = {
    "promote": (Truth(), Layout()),
    "model": (Truth(failing={"new": 0.1}), Layout()),
    "routing": (misrouted("split", {"old": 0.5, "new": 0.5}), Layout()),
    "hold": (Truth(failing={"new": 0.02}), Layout()),
    "invalid": (Truth(), Layout(trailers=False, torn=True)),
}
PAUSING = ("routing", "hold", "invalid", "no run yet")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    return {kind: write_run(folder / kind, None, *how).path for kind, how in TRUTHS.items()}


@pytest.fixture
def volume(written, tmp_path):
    """What the controllers' volume holds: one run, of the experiment that Flagger's manifest names; or none."""

    def fill(kind):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        place = tmp_path / "runs" / experiment()
        place.mkdir(parents=True)
        if kind in written:
            shutil.copytree(written[kind], place / "20260101T000000Z-aaaa")
        return tmp_path / "runs"

    return fill


def experiment():
    """Both webhooks must be about the same one."""
    _, hooks = controllers.webhooks()
    (name,) = {hook["metadata"]["experiment"] for hook in hooks.values()}
    return name


@pytest.fixture
def address(tmp_path):
    """The endpoint as a process of its own, over a folder of runs that is there before or after it."""
    command = [sys.executable, "-m", "analysis", "serve", "--port", "0", "--runs", str(tmp_path / "runs")]
    process = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    first = process.stderr.readline()
    yield re.search(r"http://([^/]+):", first)[1] if first else pytest.fail("the endpoint did not start")
    process.terminate()
    process.communicate()


def test_flagger_promotes_rolls_back_for_a_model_and_waits_for_all_else(volume, address):
    done = {}
    for kind in (*TRUTHS, "no run yet"):
        volume(kind)
        done[kind], sentence = controllers.flagger(address)
        assert sentence
        assert ("routing is at fault" in sentence) == (kind == "routing")
    assert done == {"promote": "promote", "model": "roll back", **dict.fromkeys(PAUSING, "wait")}


def test_argo_s_web_metric_succeeds_fails_for_a_model_and_is_inconclusive_for_all_else(volume, address):
    """An inconclusive analysis pauses the rollout; a failed one, or one with errors, rolls it back."""
    done = {}
    for kind in (*TRUTHS, "no run yet"):
        volume(kind)
        done[kind], _ = controllers.argo_web(address, {"experiment": experiment()})
    wanted = {"promote": controllers.SUCCESSFUL, "model": controllers.FAILED}
    assert done == {**wanted, **dict.fromkeys(PAUSING, controllers.INCONCLUSIVE)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*TRUTHS, "no run yet"])
def test_argo_s_job_ends_only_where_something_must_be_done(volume, kind, tmp_path):
    waits = kind in PAUSING
    phase, said = controllers.argo_job(volume(kind), tmp_path)
    wanted = {"promote": controllers.SUCCESSFUL, "model": controllers.FAILED}
    assert phase == wanted.get(kind, controllers.RUNNING), said
    assert ("pause: " in said) == waits


def test_a_condition_that_the_players_do_not_know_is_no_success():
    with pytest.raises(AssertionError, match="teach it"):
        controllers.holds('result != "roll back"', "promote")
    with pytest.raises(AssertionError, match="teach it"):
        controllers.found_at("{$..action}", {})
    assert controllers.holds('result == "promote"', "promote")
    assert not controllers.holds('result == "promote"', "pause")
