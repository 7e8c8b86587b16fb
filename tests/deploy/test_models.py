import json
import os
import subprocess
import sys
import zipfile
from collections import Counter

import numpy as np
import pytest

from deploy import models
from deploy.applications import known
from deploy.model_info import Preprocessing
from deploy.payloads import write_payloads
from deploy.reach import unreachable
from experiments.core import reading
from experiments.core.attribution import Reference, tells_apart
from experiments.core.errors import ProvisionError
from experiments.core.labels import imagenet_labels, top_labels
from experiments.core.stack import read_payloads

pytestmark = pytest.mark.usefixtures("digits_home")


def silent(_):
    pass


def experiment(folder, arms, payloads="{digits: 30}"):
    lines = "".join(f"  {arm}: {source}\n" for arm, source in arms.items())
    path = folder / "trial.yaml"
    path.write_text(
        f"arms:\n{lines}payloads: {payloads}\nphases: [{{name: split, route: {{{next(iter(arms))}: 1}}}}]\n"
    )
    return reading.load(str(path))


@pytest.fixture(scope="module")
def digits(digits_home):  # noqa: ARG001 - it sets SPLITPROOF_HOME
    """The catalogue's digits with their models."""
    loaded = reading.load("digits")
    return loaded, models.ensure(loaded, silent)


def test_a_model_made_once_is_found_again_without_a_child(digits, monkeypatch):
    loaded, made = digits
    monkeypatch.setattr(models, "_run", lambda *_: pytest.fail("a child was started"))
    assert models.ensure(loaded, silent) == made


def test_references_of_known_bodies_need_no_child(digits, tmp_path, monkeypatch):
    loaded, made = digits
    write_payloads(loaded, made, tmp_path)
    monkeypatch.setattr(models, "_run", lambda *_: pytest.fail("a child was started"))
    found = models.reference_outputs(loaded, made, tmp_path, silent)
    assert found.source == "export"
    assert len(found.payloads) == loaded.experiment.payloads.digits


def references(digits, tmp_path):
    loaded, made = digits
    write_payloads(loaded, made, tmp_path)
    return models.reference_outputs(loaded, made, tmp_path, silent).payloads


def test_every_digit_tells_the_arms_apart(digits, tmp_path):
    for payload in references(digits, tmp_path).values():
        arms = {arm: Reference(np.array(each.output), 1.5e-6) for arm, each in payload.arms.items()}
        assert tells_apart(arms)
        assert all(abs(sum(each.output) - 1) < 1e-5 for each in payload.arms.values())


def test_the_small_models_have_learned_something(digits, tmp_path):
    """On digits that they have not seen; 60 guesses would be right 6 times."""
    found = references(digits, tmp_path).values()
    for arm in digits[1]:
        right = sum(int(np.argmax(payload.arms[arm].output)) == payload.label for payload in found)
        assert right >= 0.8 * len(found)


def test_digits_are_balanced_labelled_and_the_same_every_time(digits, tmp_path):
    loaded, made = digits
    index = write_payloads(loaded, made, tmp_path / "one")
    assert next(iter(index.payloads)) == "digits-0001"
    assert set(Counter(entry.label for entry in index.payloads.values()).values()) == {6}
    assert write_payloads(loaded, made, tmp_path / "two") == index
    bodies = read_payloads(tmp_path / "one" / "index.json").values()
    assert len(set(bodies)) == len(index.payloads)
    for body in bodies:
        (pixels,) = json.loads(body)["instances"]
        assert (len(pixels), min(pixels) >= 0, max(pixels) <= 16) == (64, True, True)


def test_both_arms_may_be_the_same_model(digits, tmp_path):
    recipe = "{digits: {hidden: [16], epochs: 20}}"  # that of the catalogue's small arm
    found = models.ensure(experiment(tmp_path, {"one": recipe, "two": recipe}), silent)
    assert found["one"].base_path == found["two"].base_path == digits[1]["small"].base_path
    assert (found["one"].arm, found["two"].arm) == ("one", "two")


def archive(path, content):
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("config.json", content)


def test_the_cache_is_by_content(tmp_path):
    def folder(source):
        return models.cache_folder(
            experiment(tmp_path, {"a": source, "b": "{keras: VGG16}"}).experiment.arms["a"], tmp_path
        )

    archive(tmp_path / "m.keras", "one")
    before = folder("{keras: m.keras}")
    assert folder("{keras: m.keras}") == before
    archive(tmp_path / "m.keras", "two")
    assert folder("{keras: m.keras}") != before
    assert folder("{keras: VGG16}") != folder("{keras: VGG16, seed: 2}")
    assert folder("{keras: VGG16, weights: imagenet}") == folder("{keras: VGG16, weights: imagenet, seed: 2}")


def test_a_model_that_is_not_there_is_refused(tmp_path):
    loaded = experiment(tmp_path, {"a": "{saved_model: nowhere}", "b": "{keras: VGG16}"})
    with pytest.raises(ProvisionError, match="nowhere: no such model"):
        models.ensure(loaded, silent)


def test_a_bad_payload_is_refused_before_any_model_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "_run", lambda *_: pytest.fail("a child was started"))
    (tmp_path / "a.jpg").write_text("no image")
    loaded = experiment(tmp_path, {"a": "{keras: ResNet50}", "b": "{keras: ResNet101}"}, "['*.jpg']")
    with pytest.raises(ProvisionError, match=r"a\.jpg: is no image of any kind"):
        models.ensure(loaded, silent)


def test_leavings_of_killed_exports_are_removed(digits_home):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    folder = digits_home / "models"
    folder.mkdir(exist_ok=True)
    left, in_work = folder / f".m-0.{process.pid}.partial", folder / f".m-0.{os.getpid()}.partial"
    left.mkdir()
    in_work.mkdir()
    models._sweep()
    assert (left.exists(), in_work.exists()) == (False, True)
    in_work.rmdir()


@pytest.mark.slow
def test_given_models_are_exported_and_answer(saved_models, tmp_path):
    """A .keras file beside a SavedModel; the second body is a columnar one."""
    (tmp_path / "rows.json").write_text(json.dumps({"instances": np.full((1, 4, 6, 3), 100.0).tolist()}))
    arms = {
        "file": f"{{keras: {saved_models / 'small.keras'}}}",
        "folder": f"{{saved_model: {saved_models / 'several'}}}",
    }
    loaded = experiment(tmp_path, arms, "['*.json']")
    made = models.ensure(loaded, silent)
    write_payloads(loaded, made, tmp_path / "bodies")
    found = models.reference_outputs(loaded, made, tmp_path / "bodies", silent).payloads["rows"].arms
    assert made["file"].preprocessing == Preprocessing("none", 4, 6, 3)
    assert "pixels of 0 to 255" in made["file"].notes[0]
    assert (made["file"].weights, made["folder"].preprocessing) == ("given", None)
    assert len(found["file"].output) == 2
    assert found["folder"].output == [52.0] * 72  # half of 100, plus 2


def refusal(loaded):
    with pytest.raises(ProvisionError) as refused:
        models.ensure(loaded, silent)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.slow
def test_a_payload_that_a_model_cannot_answer_is_named(saved_models, tmp_path):
    (tmp_path / "odd.json").write_text('{"instances": ["text"]}')
    arms = {"a": f"{{saved_model: {saved_models / 'several'}}}", "b": f"{{saved_model: {saved_models / 'several'}}}"}
    loaded = experiment(tmp_path, arms, "['*.json']")
    with pytest.raises(ProvisionError, match="cannot answer the payload odd: Failed to process element: 0"):
        made = models.ensure(loaded, silent)
        write_payloads(loaded, made, tmp_path / "bodies")
        models.reference_outputs(loaded, made, tmp_path / "bodies", silent)


def test_an_unknown_application_gets_a_hint(tmp_path):
    (tmp_path / "a.json").write_text('{"instances": [1]}')
    text = refusal(experiment(tmp_path, {"a": "{keras: Resnet51}", "b": "{keras: resnet51}"}, "['*.json']"))
    assert "did you mean 'ResNet50'?" in text or "did you mean 'ResNet101'?" in text


def test_common_names_of_keras_are_known():
    """A sample from the table at keras.io/api/applications."""
    assert {"ResNet50", "ResNet101", "VGG16", "MobileNetV3Small", "EfficientNetV2L", "NASNetLarge"} <= set(known())


@pytest.mark.slow
def test_the_known_names_are_exactly_those_of_keras():
    program = "import keras; print(*sorted(name for name in dir(keras.applications) if name[0].isupper()))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.split() == known()


@pytest.mark.slow
def test_a_savedmodel_without_signature_is_refused(saved_models, tmp_path):
    (tmp_path / "a.json").write_text('{"instances": [1]}')
    source = f"{{saved_model: {saved_models / 'silent'}}}"
    text = refusal(experiment(tmp_path, {"a": source, "b": source}, "['*.json']"))
    assert "has no signature serving_default" in text


@pytest.mark.slow
def test_the_resnets_of_quickstart_can_be_told_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLITPROOF_HOME", str(tmp_path / "home"))
    loaded = reading.load("quickstart")
    made = models.ensure(loaded, silent)
    write_payloads(loaded, made, tmp_path / "bodies")
    found = models.reference_outputs(loaded, made, tmp_path / "bodies", silent).payloads
    assert len(found) == 4
    for payload in found.values():
        arms = {arm: Reference(np.array(each.output), 1.5e-6) for arm, each in payload.arms.items()}
        assert tells_apart(arms)
    for model in made.values():
        assert model.preprocessing == Preprocessing("caffe", 224, 224)
        assert model.weights == "imagenet" or "random weights" in model.notes[0]


def test_a_host_that_cannot_be_looked_up_is_said_within_the_patience(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert "could not be looked up" in unreachable("no-such-host.invalid", patience_s=5)()
    assert unreachable("localhost")() is None


def test_labels_are_those_that_the_lab_prints():
    """The ten classes that the lab lists, by index."""
    expected = {
        667: "mortarboard", 457: "bow tie", 906: "Windsor tie", 610: "jersey", 834: "suit", 796: "ski mask",
        841: "sweatshirt", 652: "military uniform", 620: "laptop", 465: "bulletproof vest",
    }  # fmt: skip
    names = imagenet_labels()
    assert {index: names[index] for index in expected} == expected
    assert (len(names), names[0], names[999]) == (1000, "tench", "toilet tissue")
    output = [0.0] * 1000
    output[667], output[457] = 0.6, 0.3
    assert top_labels(output, 2) == [(667, "mortarboard", 0.6), (457, "bow tie", 0.3)]
    with pytest.raises(ValueError, match="10 outputs"):
        top_labels([0.1] * 10)
