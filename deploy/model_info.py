"""What is known of an exported model without loading it: `model.json`, beside its version directory."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from experiments.core.errors import ProvisionError
from experiments.core.records import check_schema, write_json

SCHEMA = 1
INFO = "model.json"
VERSION = "1"
"""The version directory that every export has."""


@dataclass(frozen=True)
class Preprocessing:
    """How pixels of 0 to 255 become a model's input; the modes are those of `keras.applications`.

    `caffe`: BGR less the means of ImageNet. `tf`: -1 to 1. `torch`: 0 to 1, then less mean, by deviation.
    `none`: the pixels times `scale`.
    """

    mode: Literal["caffe", "tf", "torch", "none"]
    height: int
    width: int
    channels: int = 3
    scale: float = 1.0


RESNET = Preprocessing("caffe", 224, 224)
"""What ResNet50, ResNet101 and their like were trained with."""


@dataclass(frozen=True)
class ModelInfo:
    """An arm's exported model. `base_path` holds the version directory; `digest` is of the exported files.

    `preprocessing` is None for a model that takes no images. `notes` says what its user should know, such as why the
    weights are random.
    """

    arm: str
    base_path: Path
    weights: Literal["imagenet", "random", "trained", "given"]
    preprocessing: Preprocessing | None
    output_labels: Literal["imagenet", "digits"] | None
    digest: str
    notes: tuple[str, ...] = ()


def write_info(info: ModelInfo, folder: Path) -> None:
    """Write `model.json`; it names neither the arm nor the folder, so that both may change."""
    told = msgspec.to_builtins(replace(info, arm="", base_path=Path()), enc_hook=str)
    del told["arm"], told["base_path"]
    write_json(folder / INFO, {"schema_version": SCHEMA, **told})


def read_info(folder: Path, arm: str) -> ModelInfo:
    """The ModelInfo of an export, for an arm.

    Raises:
        ProvisionError: `model.json` is missing or damaged.
        RecordsError: it is of a newer version.
    """
    path = folder / INFO
    try:
        told: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        check_schema(path, told.pop("schema_version", None))
        return msgspec.convert({**told, "arm": arm, "base_path": str(folder)}, ModelInfo, dec_hook=_path)
    except (OSError, msgspec.MsgspecError) as error:
        raise ProvisionError(
            f"{path}: cannot be read ({error}); remove {folder}, and the model is made anew."
        ) from error


def _path(kind: type, value: Any) -> Any:
    return kind(value)


def version_dir(path: Path) -> Path:
    """The folder that holds saved_model.pb: the one that is named, or its newest numbered version.

    Raises:
        ProvisionError: there is none.
    """
    numbered = sorted((each for each in path.glob("*") if each.name.isdigit()), key=lambda each: int(each.name))
    for folder in (path, *reversed(numbered)):
        if (folder / "saved_model.pb").exists() or (folder / "saved_model.pbtxt").exists():
            return folder
    raise ProvisionError(f"{path}: holds no saved_model.pb, nor does a numbered folder in it; name a SavedModel.")
