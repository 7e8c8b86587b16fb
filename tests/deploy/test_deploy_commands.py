"""What the commands say where no stack is needed."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from deploy.__main__ import deploy
from experiments.core import command
from experiments.core.home import CHECKOUT


@pytest.fixture
def run(capsysbinary, tmp_path, monkeypatch):
    monkeypatch.setenv("SPLITPROOF_HOME", str(tmp_path / "home"))

    def ran(*arguments):
        code = command.run(deploy, "python -m deploy", [str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        return code, out.decode(), err.decode()

    return ran


def test_it_runs_as_a_module_from_any_folder(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "deploy", "--help"],
        check=False, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert ran.returncode == 0
    for name in ("up", "route", "status", "down", "render", "payload", "export"):
        assert f"\n  {name} " in ran.stdout


@pytest.mark.parametrize("name", ["up", "route", "status", "down", "render", "payload", "export"])
def test_every_command_has_help(run, name):
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: python -m deploy {name}")


def test_status_and_down_with_nothing_up_say_so_and_are_no_error(run):
    assert run("status") == (0, "no stack is up\n", "")
    assert run("status", "digits") == (
        0,
        "digits: no stack is up; put it up with: python -m deploy up digits\n",
        "",
    )
    for _ in range(2):
        assert run("down", "digits") == (0, "digits: nothing is up\n", "")


@pytest.mark.parametrize("words", [("up", "digits"), ("status",), ("down", "digits"), ("route", "digits", "split")])
def test_other_targets_are_refused_clearly(run, words):
    code, out, err = run(*words, "--target", "swarm")
    assert (code, out) == (2, "")
    assert "'--target': 'swarm' is not one of 'embedded', 'kubernetes'" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [("up", "digits"), ("down", "digits")])
def test_a_cluster_without_a_kubeconfig_is_one_clear_line(run, monkeypatch, tmp_path, words):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    code, out, err = run(*words, "--target", "kubernetes")
    assert (code, out) == (2, "")
    assert err.startswith("no kubeconfig to use: ")
    assert err.count("\n") == 1


def test_a_route_without_a_stack_is_one_clear_line(run):
    said = "quickstart: no stack is up; put it up with: python -m deploy up quickstart\n"
    assert run("route", "quickstart", "split") == (2, "", said)


def test_an_experiment_that_is_not_there_is_one_clear_line(run):
    code, out, err = run("up", "digit")
    assert (code, out) == (2, "")
    assert "did you mean 'digits'?" in err


def test_a_home_that_cannot_be_written_is_one_clear_line(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPLITPROOF_HOME", str(tmp_path / "file"))
    code, out, err = run("up", "digits")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "cannot be written: Not a directory; change permissions, or set SPLITPROOF_HOME." in err


def test_render_prints_what_kubectl_reads(run):
    code, out, err = run("render", "quickstart", "--phase", "split", "--profile", "tutorial", "--model-root", "/m")
    assert (code, err) == (0, "")
    objects = list(YAML(typ="safe").load_all(out))
    assert [each["kind"] for each in objects] == [
        "Namespace", "ConfigMap", "ConfigMap", "Deployment", "Deployment", "Service", "Gateway", "DestinationRule",
        "VirtualService",
    ]  # fmt: skip
    assert "x-splitproof-route" not in out
    assert "path: /m/resnet101" in out


def test_render_of_an_unknown_phase_lists_what_there_is(run):
    code, _, err = run("render", "quickstart", "--phase", "spilt")
    assert code == 2
    assert err == ("quickstart: has no phase 'spilt'; did you mean 'split'? there are: dark-launch, split, focused.\n")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((30, 40, 3), 128, dtype=np.uint8)).save(path)
    return path


def test_payload_prints_a_request_body_or_writes_it(run, image, tmp_path):
    code, out, _ = run("payload", image)
    body = json.loads(out)
    assert code == 0
    # The caffe preprocessing of a grey image: BGR less the means of ImageNet.
    assert np.shape(body["instances"]) == (1, 224, 224, 3)
    assert np.allclose(body["instances"][0][0][0], [128 - 103.939, 128 - 116.779, 128 - 123.68], atol=1e-5)
    file = tmp_path / "request-body.json"
    assert run("payload", image, "-o", file)[:2] == (0, f"{file}\n")
    assert json.loads(file.read_text()) == body
    folder = tmp_path / "bodies"
    assert run("payload", image, image, "-o", folder, "--mode", "tf", "--size", "8")[0] == 0
    small = json.loads((folder / "grey.json").read_text())["instances"]
    assert np.shape(small) == (1, 8, 8, 3)
    assert np.allclose(small, 128 / 127.5 - 1, atol=1e-6)


def test_several_images_need_a_folder(run, image):
    assert run("payload", image, image) == (2, "", "several images need a folder to go into; name one with -o DIR.\n")


def test_an_image_that_is_none_is_one_clear_line(run, tmp_path):
    (tmp_path / "x.jpg").write_text("no image")
    code, out, err = run("payload", tmp_path / "x.jpg")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "x.jpg" in err


def test_images_of_one_stem_do_not_overwrite_each_other(run, image, tmp_path):
    other = tmp_path / "grey.jpg"
    Image.fromarray(np.full((30, 40, 3), 7, dtype=np.uint8)).save(other)
    folder = tmp_path / "bodies"
    assert run("payload", image, other, "-o", folder, "--size", "2")[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["grey-2.json", "grey.json"]
    assert (folder / "grey.json").read_bytes() != (folder / "grey-2.json").read_bytes()


@pytest.mark.parametrize(
    ("arm", "says"),
    [
        ("saved_model: empty", "empty: holds no saved_model.pb, nor does a numbered folder in it; name a SavedModel."),
        ("saved_model: gone", "gone: no such model; name a .keras file or a SavedModel directory that is there."),
        ("keras: junk.keras", "junk.keras: is no .keras file, which is a zip archive; save the model anew."),
        ("digits: {}", "bad.json: is no request body; a body is {BODY}; mend it or leave it out."),
    ],
)
def test_what_can_be_seen_without_tensorflow_is_refused_before_it_is_started(run, tmp_path, arm, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.keras").write_text("junk")
    (tmp_path / "bad.json").write_text("[1]" if arm.startswith("digits") else '{"instances": [1]}')
    text = f"arms: {{a: {{{arm}}}, b: {{digits: {{seed: 2}}}}}}\npayloads: ['*.json']\n"
    (tmp_path / "e.yaml").write_text(text + "phases: [{name: p, route: a}]\n")
    said = says.replace("{BODY}", '{"instances": [...]} or {"inputs": ...}')
    assert run("export", tmp_path / "e.yaml") == (2, "", f"{tmp_path}/{said}\n")


def test_a_wrong_word_is_one_line_that_names_the_help(run):
    assert run("up") == (2, "", "python -m deploy up: Missing argument 'EXPERIMENT'; see: python -m deploy up --help\n")
    assert run("splat") == (2, "", "python -m deploy: No such command 'splat'; see: python -m deploy --help\n")
