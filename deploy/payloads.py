"""What is sent: images by their model's preprocessing, `.json` bodies as they are, and labelled digits.

A body is a whole request of TensorFlow Serving's REST API: `{"instances": [...]}`.
"""

import glob
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from deploy.images import read_pixels
from deploy.model_info import RESNET, ModelInfo, Preprocessing
from experiments.core.errors import ProvisionError
from experiments.core.home import models_dir
from experiments.core.reading import Loaded
from experiments.core.records import SCHEMA, write_json
from experiments.core.spec import DigitsPayloads
from experiments.core.stack import PayloadEntry, PayloadIndex

_CAFFE_MEANS = (103.939, 116.779, 123.68)
_TORCH_MEANS = (0.485, 0.456, 0.406)
_TORCH_DEVIATIONS = (0.229, 0.224, 0.225)
_LONGEST_ID = 60


@dataclass(frozen=True)
class Body:
    """One request body, where it came from, and its label where that is known."""

    id: str
    content: bytes
    source: str
    label: int | None = None


class Digits(msgspec.Struct, frozen=True):
    """The held-out half of scikit-learn's digits: 64 pixels of 0 to 16 for each, and what they show."""

    images: list[list[int]]
    labels: list[int]


def write_payloads(loaded: Loaded, models: Mapping[str, ModelInfo], folder: Path) -> PayloadIndex:
    """Write every body of an experiment to `folder`, with `index.json`.

    Raises:
        ProvisionError: a payload cannot be made, or the arms would need different bodies.
    """
    made = bodies(loaded, common_preprocessing(loaded, models))
    folder.mkdir(parents=True, exist_ok=True)
    for body in made:
        (folder / f"{body.id}.json").write_bytes(body.content)
    entries = {body.id: PayloadEntry(f"{body.id}.json", sha256(body.content), body.source, body.label) for body in made}
    index = PayloadIndex(SCHEMA, entries)
    write_json(folder / "index.json", index)
    return index


def bodies(loaded: Loaded, preprocessing: Preprocessing | None) -> list[Body]:
    """Every body of an experiment, in order.

    Raises:
        ProvisionError: a glob matches nothing, or a file cannot be made into a body.
    """
    wanted = loaded.experiment.payloads
    if isinstance(wanted, DigitsPayloads):
        return _digit_bodies(wanted.digits)
    return list(_file_bodies(files(loaded), preprocessing))


def files(loaded: Loaded) -> list[Path]:
    """The files that the experiment's globs match, each once; relative globs start from the experiment's folder.

    Raises:
        ProvisionError: a glob matches no file.
    """
    wanted = loaded.experiment.payloads
    found: dict[Path, None] = {}
    for pattern in () if isinstance(wanted, DigitsPayloads) else wanted:
        # Unlike Path.glob, this takes absolute patterns too.
        names = glob.glob(pattern, root_dir=loaded.folder, recursive=True)  # noqa: PTH207
        matches = sorted(path for path in (loaded.folder / name for name in names) if path.is_file())
        if not matches:
            raise ProvisionError(
                f"{loaded.path}: payloads: {pattern!r} matches no file under {loaded.folder}; "
                "name images or .json bodies."
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def common_preprocessing(loaded: Loaded, models: Mapping[str, ModelInfo]) -> Preprocessing | None:
    """The one preprocessing of all arms; None where no payload is an image.

    Raises:
        ProvisionError: arms differ, or an arm takes no images.
    """
    image = next((path for path in files(loaded) if not _is_json(path)), None)
    if image is None:
        return None
    for arm, model in models.items():
        if model.preprocessing is None:
            raise ProvisionError(f"{arm}: its model takes no images, but {image} is one; use .json bodies as payloads.")
    if not models:
        raise ProvisionError(
            f"{image}: no arm names its model, so nothing says how to prepare images; give .json bodies as payloads "
            "(python -m deploy payload makes them)."
        )
    by_arm = {arm: model.preprocessing for arm, model in models.items()}
    if len(set(by_arm.values())) > 1:
        told = "; ".join(f"{arm}: {_describe(preprocessing)}" for arm, preprocessing in by_arm.items() if preprocessing)
        raise ProvisionError(
            f"{loaded.path}: the arms want different inputs for the same image ({told}), so one body cannot serve "
            "both; choose models of one family, or put the preprocessing inside the models."
        )
    return next(iter(by_arm.values()))


def _describe(preprocessing: Preprocessing) -> str:
    return f"{preprocessing.mode} {preprocessing.width}×{preprocessing.height}×{preprocessing.channels}"


def payload_for_image(path: Path, preprocessing: Preprocessing = RESNET) -> bytes:
    """The request body for one image, with the fewest digits that keep every float32.

    Raises:
        ProvisionError: the image cannot be read.
    """
    pixels = read_pixels(path, preprocessing.height, preprocessing.width, preprocessing.channels)
    order = slice(None, None, -1) if preprocessing.mode == "caffe" else slice(None)
    texts = _texts(preprocessing)
    columns = [texts[channel][pixels[..., order][..., channel]] for channel in range(preprocessing.channels)]
    rows = (
        "[" + ",".join(map("[{}]".format, map(",".join, zip(*row, strict=True)))) + "]"
        for row in zip(*columns, strict=True)
    )
    return ('{"instances":[[' + ",".join(rows) + "]]}").encode()


@cache
def _texts(preprocessing: Preprocessing) -> list[npt.NDArray[np.object_]]:
    """For each channel, each of the 256 possible inputs as JSON."""
    table = preprocess(np.arange(256, dtype=np.float32)[:, None].repeat(preprocessing.channels, axis=1), preprocessing)
    return [np.array([_shortest(value) for value in column], dtype=object) for column in table.T]


def _shortest(value: np.float32) -> str:
    return np.format_float_positional(value, unique=True, trim="-")


def preprocess(pixels: npt.NDArray[np.float32], preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Apply a preprocessing to channels that are in the model's order already (BGR for `caffe`); float32 throughout.

    >>> preprocess(np.zeros((1, 3), np.float32), RESNET)
    array([[-103.939, -116.779, -123.68 ]], dtype=float32)
    """
    if preprocessing.mode == "tf":
        return pixels / np.float32(127.5) - np.float32(1)
    if preprocessing.mode == "caffe":
        return pixels - np.array(_CAFFE_MEANS, np.float32)
    if preprocessing.mode == "torch":
        scaled = pixels / np.float32(255) - np.array(_TORCH_MEANS, np.float32)
        return np.asarray(scaled / np.array(_TORCH_DEVIATIONS, np.float32), np.float32)
    return pixels * np.float32(preprocessing.scale)


def _file_bodies(paths: list[Path], preprocessing: Preprocessing | None) -> Iterator[Body]:
    taken = {"index"}  # the index lies beside the bodies
    for path in paths:
        if _is_json(path):
            content = given(path)
        elif preprocessing is None:
            raise ProvisionError(f"{path}: the models take no images; use .json bodies as payloads.")
        else:
            content = payload_for_image(path, preprocessing)
        yield Body(unique_id(path, taken), content, path.name)


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def given(path: Path) -> bytes:
    """A body as somebody wrote it, after a look at its form.

    Raises:
        ProvisionError: it cannot be read, or is no request body.
    """
    remedy = 'a body is {"instances": [...]} or {"inputs": ...}; mend it or leave it out.'
    try:
        content = path.read_bytes()
        body = json.loads(content)
    except OSError as error:
        raise ProvisionError(f"{path}: cannot be read: {error.strerror}; change its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise ProvisionError(f"{path}: not readable as JSON ({error}); {remedy}") from error
    keys = {"instances", "inputs"} & set(body) if isinstance(body, dict) else set()
    if len(keys) != 1 or (keys == {"instances"} and not (isinstance(body["instances"], list) and body["instances"])):
        raise ProvisionError(f"{path}: is no request body; {remedy}")
    return content


def unique_id(path: Path, taken: set[str]) -> str:
    """The file's stem, safe in file names and URLs, and unlike any before it."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-")[:_LONGEST_ID] or "payload"
    name, number = stem, 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.lower())
    return name


def digits_file() -> Path:
    """Where the export leaves the labelled digits; it alone may import scikit-learn."""
    return models_dir() / "digits.json"


def _digit_bodies(count: int) -> list[Body]:
    """`count` held-out digits, as many of each label as the count allows."""
    digits = _read_digits()
    by_label: defaultdict[int, list[list[int]]] = defaultdict(list)
    for image, label in zip(digits.images, digits.labels, strict=True):
        by_label[label].append(image)
    turns = max(map(len, by_label.values()))
    picked = [
        (label, by_label[label][turn])
        for turn in range(turns)
        for label in sorted(by_label)
        if turn < len(by_label[label])
    ]
    source = "scikit-learn's digits, held out"
    return [
        Body(f"digits-{number:04d}", b'{"instances":[%s]}' % msgspec.json.encode(image), source, label)
        for number, (label, image) in enumerate(picked[:count], start=1)
    ]


def _read_digits() -> Digits:
    try:
        return msgspec.json.decode(digits_file().read_bytes(), type=Digits)
    except (OSError, msgspec.MsgspecError) as error:
        raise ProvisionError(f"{digits_file()}: cannot be read ({error}); remove it, and it is made anew.") from error


def sha256(content: bytes) -> str:
    """The SHA-256 of a body, hexadecimal."""
    return hashlib.sha256(content).hexdigest()
