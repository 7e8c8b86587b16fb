"""Models made ready without TensorFlow in this process: a cache of exports, filled by children that have it."""

import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from subprocess import Popen

import msgspec

from deploy import applications, images, payloads
from deploy.model_info import INFO, VERSION, ModelInfo, read_info, version_dir
from deploy.tasks import Task, output_file
from experiments.core.children import end, last_lines, spawn
from experiments.core.errors import ProvisionError
from experiments.core.home import CHECKOUT, models_dir
from experiments.core.reading import Loaded, to_mapping
from experiments.core.records import SCHEMA, ArmReference, PayloadReference, References
from experiments.core.spec import Arm, DigitsPayloads
from experiments.core.stack import PayloadEntry, PayloadIndex

__all__ = ["ModelInfo", "cache_folder", "ensure", "reference_outputs"]

EXPORTER = 1
"""Raise it when exports made by an older version of this code must not be used any more."""

_PATIENCE_S = 1800.0
_TELL_EVERY_S = 10.0
_TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos")

Progress = Callable[[str], None]


def ensure(loaded: Loaded, progress: Progress) -> dict[str, ModelInfo]:
    """Every arm's exported model, from the cache or made now; arms with equal sources share one.

    Raises:
        ProvisionError: a payload or a model cannot be made ready; the payloads are looked at first, being quicker.
    """
    if not loaded.experiment.named:
        raise ProvisionError(
            f"{loaded.path}: arms name no model; only a stack that is there already does without (attach: true with "
            "--target kubernetes); name keras, saved_model or digits."
        )
    _look_at_payloads(loaded)
    folders = {arm: cache_folder(spec, loaded.folder) for arm, spec in loaded.experiment.arms.items()}
    missing = {folder: arm for arm, folder in reversed(folders.items()) if not _is_whole(folder)}
    if missing or _digits_missing(loaded):
        missing = missing or {next(iter(folders.values())): loaded.experiment.baseline}
        _run([_task(loaded, arm, folder) for folder, arm in reversed(missing.items())], progress)
    return {arm: _told(loaded.experiment.arms[arm], read_info(folder, arm)) for arm, folder in folders.items()}


def _told(spec: Arm, model: ModelInfo) -> ModelInfo:
    """The model with what to do where `auto` had to do without imagenet: its export is kept, so nothing tries again."""
    if spec.keras is None or spec.weights != "auto" or model.weights != "random":
        return model
    advice = f"{model.arm}: to try for imagenet's again, remove {model.base_path}, or insist with weights: imagenet."
    return replace(model, notes=(*model.notes, advice))


def reference_outputs(
    loaded: Loaded, models: Mapping[str, ModelInfo], payload_dir: Path, progress: Progress
) -> References:
    """What each arm's artefact answers to each body in `payload_dir`; computed once for each model and body.

    Raises:
        ProvisionError: a model cannot answer a body.
    """
    index = payload_dir / "index.json"
    entries = _entries(index)
    lacking = {
        model.base_path: arm
        for arm, model in models.items()
        if not all(output_file(model.base_path, entry.sha256).exists() for entry in entries.values())
    }
    if lacking:
        _run([_task(loaded, arm, folder, index) for folder, arm in lacking.items()], progress)
    found = {name: PayloadReference(_outputs(models, entry), entry.label) for name, entry in entries.items()}
    return References(SCHEMA, "export", found)


def _entries(index: Path) -> dict[str, PayloadEntry]:
    try:
        return msgspec.json.decode(index.read_bytes(), type=PayloadIndex).payloads
    except (OSError, msgspec.MsgspecError) as error:
        raise ProvisionError(f"{index}: cannot be read ({error}); make it anew with: python -m deploy up") from error


def _outputs(models: Mapping[str, ModelInfo], entry: PayloadEntry) -> dict[str, ArmReference]:
    return {arm: ArmReference(_output(model, entry), noise=0.0) for arm, model in models.items()}


def _output(model: ModelInfo, entry: PayloadEntry) -> list[float]:
    path = output_file(model.base_path, entry.sha256)
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[float])
    except (OSError, msgspec.MsgspecError) as error:
        raise ProvisionError(f"{path}: cannot be read ({error}); remove it, and it is computed anew.") from error


def _look_at_payloads(loaded: Loaded) -> None:
    """Refuse bad files before half a minute goes into models."""
    for path in payloads.files(loaded):
        if path.suffix.lower() == ".json":
            payloads.given(path)
        else:
            images.read_pixels(path, 8, 8)


def cache_folder(arm: Arm, folder: Path) -> Path:
    """Where the export of an arm lies: named by its source, and by a hash of everything that the export depends on.

    Raises:
        ProvisionError: the arm names a file or directory that is not there.
    """
    source, name = _source(arm, folder)
    described = {"exporter": EXPORTER, "source": source, "versions": _versions()}
    key = hashlib.sha256(msgspec.json.encode(described, order="deterministic")).hexdigest()
    return models_dir() / f"{name}-{key[:16]}"


def _source(arm: Arm, folder: Path) -> tuple[dict[str, object], str]:
    """All that decides what an arm's export holds, and a name for people."""
    if arm.digits is not None:
        return {"digits": arm.digits.model_dump(mode="json")}, "digits"
    if arm.saved_model is not None:
        path = folder / arm.saved_model
        _refuse_absent(path)
        version_dir(path)
        return {"saved_model": _content(path)}, path.name or "model"
    name = str(arm.keras)
    if name.endswith(".keras"):
        _refuse_absent(folder / name)
        if not zipfile.is_zipfile(folder / name):
            raise ProvisionError(f"{folder / name}: is no .keras file, which is a zip archive; save the model anew.")
        return {"keras_file": _content(folder / name)}, Path(name).stem
    names = applications.known()
    if names:  # else the export, which imports Keras, will know
        applications.refuse_unknown(name, names)
    seed = None if arm.weights == "imagenet" else arm.seed
    return {"keras": name, "weights": arm.weights, "seed": seed}, name


def _refuse_absent(path: Path) -> None:
    if not path.exists():
        raise ProvisionError(f"{path}: no such model; name a .keras file or a SavedModel directory that is there.")


def _content(path: Path) -> str:
    """A hash of a file, or of all files of a directory with their names."""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            total.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as content:
                total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in (*_TENSORFLOWS, "keras", "scikit-learn"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _is_whole(folder: Path) -> bool:
    return (folder / INFO).exists() and (folder / VERSION).is_dir()


def _digits_missing(loaded: Loaded) -> bool:
    return isinstance(loaded.experiment.payloads, DigitsPayloads) and not payloads.digits_file().exists()


def _task(loaded: Loaded, arm: str, folder: Path, index: Path | None = None) -> Task:
    return Task(
        arm=arm,
        into=str(folder),
        experiment=to_mapping(loaded.experiment),
        folder=str(loaded.folder),
        path=str(loaded.path),
        payload_index=None if index is None else str(index),
    )


def _run(tasks: list[Task], progress: Progress) -> None:
    """Run an export child for each task, at the same time; none outlives this function."""
    _refuse_without_tensorflow()
    try:
        models_dir().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProvisionError(
            f"{models_dir()}: cannot be made: {error.strerror}; change permissions, or set SPLITPROOF_HOME."
        ) from error
    _sweep()
    for task in tasks:
        progress(f"{task.arm}: {task.describe()}")
    with tempfile.TemporaryDirectory() as logs, _children(tasks, Path(logs)) as children:
        _await(children, progress)


def _refuse_without_tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise ProvisionError("TensorFlow is not installed here; models need it: pip install -e '.[stack]'")


@contextmanager
def _children(tasks: list[Task], logs: Path) -> Iterator[dict[str, tuple[Popen[bytes], Path]]]:
    children: dict[str, tuple[Popen[bytes], Path]] = {}
    try:
        for task in tasks:
            log = logs / task.arm
            request = msgspec.json.encode(task).decode()
            process = spawn([sys.executable, "-m", "deploy.export", request], log, {"PYTHONPATH": _python_path()})
            children[task.arm] = (process, log)
        yield children
    finally:
        for process, _ in children.values():
            end(process, patience_s=5.0)


def _python_path() -> str:
    """This checkout first: a child must find us whatever folder it is started in."""
    return os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))


def _await(children: dict[str, tuple[Popen[bytes], Path]], progress: Progress) -> None:
    """Wait for every child; the first that fails ends the wait.

    Raises:
        ProvisionError: with the sentence that the child ended with.
    """
    waiting, began, told = dict(children), time.monotonic(), time.monotonic()
    while waiting:
        for arm, (process, log) in list(waiting.items()):
            if process.poll() is not None:
                del waiting[arm]
                _refuse_failed(arm, process.returncode, log)
                progress(f"{arm}: model and reference outputs are ready ({time.monotonic() - began:.0f} s)")
        now = time.monotonic()
        if now - began > _PATIENCE_S:
            raise ProvisionError(
                f"{', '.join(waiting)}: no model after {_PATIENCE_S:.0f} s; try again when it is quieter."
            )
        if waiting and now - told > _TELL_EVERY_S:
            told = now
            progress(f"{', '.join(waiting)}: still at work ({now - began:.0f} s)")
        time.sleep(0.05)


def _refuse_failed(arm: str, code: int, log: Path) -> None:
    if code:
        raise ProvisionError(last_lines(log) or f"{arm}: its export ended with exit code {code} and said nothing.")


def _sweep() -> None:
    """Remove what exports that were killed have left behind."""
    for path in models_dir().glob(".*.partial"):
        pid = path.suffixes[-2].removeprefix(".") if len(path.suffixes) > 1 else ""
        if pid.isdigit() and not _lives(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
