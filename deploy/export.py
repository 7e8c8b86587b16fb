"""Export one arm's model and compute its reference outputs: a process of its own, since it loads TensorFlow.

`python -m deploy.export TASK`, with the JSON of a `deploy.tasks.Task`; `deploy.models` starts it.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
import numpy as np

from deploy import payloads
from deploy.embedded.rest import Call, Servable, predict
from deploy.model_info import INFO, VERSION, ModelInfo, Preprocessing, read_info, version_dir, write_info
from deploy.tasks import Task, output_file, write_whole
from experiments.core import command
from experiments.core.answers import output_vector
from experiments.core.errors import ProvisionError
from experiments.core.spec import Arm, DigitsModel, DigitsPayloads
from experiments.core.stack import read_payloads

_IMAGENET_CLASSES = 1000
_IMAGE_RANK = 4
_FINGERPRINT = "fingerprint.pb"

Unreachable = Callable[[], str | None]


def fulfil(task: Task, unreachable: Unreachable) -> None:
    """Export the model if it is not there, and compute what it answers to every body that has no output yet.

    Args:
        task: Which arm of which experiment, and where to.
        unreachable: Says why imagenet weights cannot be downloaded; None if they may be.

    Raises:
        ProvisionError: the model cannot be had, or cannot answer a body.
    """
    loaded, folder = task.loaded(), Path(task.into)
    if isinstance(loaded.experiment.payloads, DigitsPayloads):
        from deploy.digits import write_digits

        write_digits()
    if not (folder / INFO).exists():
        _export(loaded.experiment.arms[task.arm], loaded.folder, folder, unreachable)
    bodies = _bodies(task, read_info(folder, task.arm))
    _write_outputs(task.arm, folder, bodies)


def _export(arm: Arm, start: Path, folder: Path, unreachable: Unreachable) -> None:
    """Make the whole folder beside its place, then move it there: nobody ever sees half a model."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        write_info(_made(arm, start, partial, unreachable), partial)
        if folder.exists() and not (folder / INFO).exists():
            shutil.rmtree(folder)
        with suppress(OSError):  # another process was quicker; its export is as good
            partial.rename(folder)
        if not (folder / INFO).exists():
            raise ProvisionError(f"{folder}: cannot be written; free space or change permissions, then try again.")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _made(arm: Arm, start: Path, base_path: Path, unreachable: Unreachable) -> ModelInfo:
    """Write the version directory of an arm; what is known of it."""
    if arm.digits is not None:
        return _digits(arm.digits, base_path)
    if arm.saved_model is not None:
        return _copied(start / arm.saved_model, base_path)
    if str(arm.keras).endswith(".keras"):
        return _from_file(start / str(arm.keras), base_path)
    from deploy.families import application, preprocessing_of

    model, weights, notes = application(arm, unreachable)
    _save(model, base_path / VERSION)
    labels: Literal["imagenet"] | None = "imagenet" if model.output_shape[-1] == _IMAGENET_CLASSES else None
    return ModelInfo("", base_path, weights, preprocessing_of(str(arm.keras), model), labels, _digest(base_path), notes)


def _digits(recipe: DigitsModel, base_path: Path) -> ModelInfo:
    from deploy.digits import train

    _save(train(recipe), base_path / VERSION)
    return ModelInfo("", base_path, "trained", None, "digits", _digest(base_path))


def _from_file(path: Path, base_path: Path) -> ModelInfo:
    import keras

    from deploy.families import family_of, preprocessing_of

    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever it meets in a foreign file
        raise ProvisionError(
            f"{path}: cannot be loaded as a Keras model: {' '.join(str(error).split())[:300]}"
        ) from error
    _save(model, base_path / VERSION)
    family = family_of(model.name)
    if family is not None:
        note = f"{path.name}: named {model.name!r}, so images are preprocessed as for {family}."
        return ModelInfo("", base_path, "given", preprocessing_of(family, model), None, _digest(base_path), (note,))
    preprocessing, notes = _plain_pixels(path, model.input_shape)
    return ModelInfo("", base_path, "given", preprocessing, None, _digest(base_path), notes)


def _plain_pixels(path: Path, shape: Any) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """Images for a model that says nothing of its preprocessing: pixels as they are."""
    if not isinstance(shape, tuple) or len(shape) != _IMAGE_RANK or any(not size or size < 0 for size in shape[1:]):
        return None, ()
    note = f"{path.name}: says nothing of its preprocessing, so images are sent as pixels of 0 to 255."
    return Preprocessing("none", *map(int, shape[1:])), (note,)


def _save(model: Any, target: Path) -> None:
    """Write a Keras model as a SavedModel with `serving_default`.

    `model.export` stores every weight twice and traces the model four times; a bare module around one traced function
    takes a quarter of the time and half of the space. What cannot be written so is left to Keras.
    """
    import tensorflow as tf

    class Held(tf.Module):
        """Only the variables: a function attached here would be traced again."""

    held = Held()
    held.all = [variable.value for variable in model.variables]
    try:
        tf.saved_model.save(held, str(target), signatures={"serving_default": _traced(model)})
    except (AssertionError, TypeError, ValueError):
        shutil.rmtree(target, ignore_errors=True)
        model.export(str(target), verbose=False)
    except tf.errors.OpError as error:
        reason = " ".join(str(error.message).split())[:200]
        raise ProvisionError(f"{target}: cannot be written: {reason}; free space or change permissions.") from error


def _traced(model: Any) -> Any:
    """The model as one concrete function of tensors by name."""
    import tensorflow as tf

    tensors = list(model.inputs)
    names = [str(name).replace(".", "_") for name in (tensor.name for tensor in tensors)]
    specs = {
        name: tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for name, tensor in zip(names, tensors, strict=True)
    }

    def call(**inputs: Any) -> Mapping[str, Any]:
        given = [inputs[name] for name in names]
        outputs = model(given[0] if len(given) == 1 else given, training=False)
        return _named_outputs(outputs, model)

    return tf.function(call, autograph=False).get_concrete_function(**specs)


def _named_outputs(outputs: Any, model: Any) -> Mapping[str, Any]:
    """The outputs by name; a Sequential names none, so its last layer does."""
    if isinstance(outputs, Mapping):
        return outputs
    values = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    names = getattr(model, "output_names", None) or [model.layers[-1].name]
    return dict(zip(names, values, strict=True))


def _copied(path: Path, base_path: Path) -> ModelInfo:
    """A SavedModel as it is, once it has shown that it can be loaded."""
    from deploy import savedmodel

    source = version_dir(path)
    model = savedmodel.load(source)
    signature = model.signatures.get("serving_default")
    if signature is None:
        raise ProvisionError(f"{source}: has no signature serving_default; export it with one.")
    shutil.copytree(source, base_path / VERSION)
    beside = next((folder for folder in (path, source.parent) if (folder / INFO).exists()), None)
    if beside is not None:  # an export of ours: it knows its preprocessing
        known = read_info(beside, "")
        return ModelInfo(
            "", base_path, "given", known.preprocessing, known.output_labels, _digest(base_path), known.notes
        )
    shapes = [spec.shape for spec in signature.inputs.values()]
    preprocessing, notes = _plain_pixels(path, shapes[0] if len(shapes) == 1 else None)
    return ModelInfo("", base_path, "given", preprocessing, None, _digest(base_path), notes)


def _digest(base_path: Path) -> str:
    """The SHA-256 over all files of the export; TensorFlow's random fingerprint apart."""
    total = hashlib.sha256()
    for file in sorted((base_path / VERSION).rglob("*")):
        if file.is_file() and file.name != _FINGERPRINT:
            total.update(f"{file.relative_to(base_path)}\0".encode())
            with file.open("rb") as content:
                total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def _bodies(task: Task, info: ModelInfo) -> dict[str, bytes]:
    """Payload id → body: those written already, or those that will be."""
    if task.payload_index is not None:
        return read_payloads(Path(task.payload_index))
    return {body.id: body.content for body in payloads.bodies(task.loaded(), info.preprocessing)}


def _write_outputs(arm: str, folder: Path, bodies: Mapping[str, bytes]) -> None:
    """Keep the model's output for every body that has none yet, by the body's hash."""
    files = {name: output_file(folder, payloads.sha256(content)) for name, content in bodies.items()}
    lacking = [name for name, file in files.items() if not file.exists()]
    if not lacking:
        return
    from deploy import savedmodel

    servable = Servable(arm, int(VERSION), savedmodel.load(folder / VERSION))
    for name in lacking:
        write_whole(files[name], msgspec.json.encode(_output(servable, name, bodies[name])))


def _output(servable: Servable, name: str, body: bytes) -> list[float]:
    """What the artefact answers, through the same code that serves it."""
    answer = predict(servable, Call(servable.name, None, None, "predict"), body)
    if answer.status != 200:  # noqa: PLR2004 - HTTP's OK
        told = " ".join(str(msgspec.json.decode(answer.body)["error"]).split())[:300]
        raise ProvisionError(f"{servable.name}: cannot answer the payload {name}: {told}; mend it or leave it out.")
    vector = output_vector(answer.body)
    if not np.isfinite(vector).all():
        raise ProvisionError(
            f"{servable.name}: its output for the payload {name} holds NaN or infinity, from which no arm can be told; "
            "leave that payload out."
        )
    return [float(value) for value in vector]


@click.command()
@click.argument("task")
def export(task: str) -> None:
    """Fulfil one TASK (JSON)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from deploy.reach import unreachable

    try:
        wanted = msgspec.json.decode(task, type=Task)
    except msgspec.MsgspecError as error:
        raise ProvisionError(f"TASK: not readable ({error}); `python -m deploy export EXPERIMENT` makes it.") from error
    # The lookup goes on while TensorFlow is imported, which takes longer.
    fulfil(wanted, unreachable())


if __name__ == "__main__":
    command.main(export, "python -m deploy.export")
