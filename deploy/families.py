"""`keras.applications` by name: a model with its weights, and the preprocessing that its family wants (export only)."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np

from deploy.applications import refuse_unknown
from deploy.model_info import Preprocessing
from deploy.payloads import preprocess
from experiments.core.errors import ProvisionError
from experiments.core.spec import Arm

Mode = Literal["caffe", "tf", "torch", "none"]
Weights = Literal["imagenet", "random"]

_STALLED_S = 20.0

_USUAL_SIZE = 224
"""What the families were trained on that take images of any size."""


def application(arm: Arm, unreachable: Callable[[], str | None]) -> tuple[Any, Weights, tuple[str, ...]]:
    """The model of an arm that names one of keras.applications, its weights, and notes on them.

    Args:
        arm: With `keras` set to the name.
        unreachable: Says why weights cannot be downloaded, or None if they may be.

    Raises:
        ProvisionError: there is no such application, or imagenet weights were asked for and cannot be had.
    """
    build = _builder(str(arm.keras))
    if arm.weights == "random":
        return _random(build, arm), "random", (f"{arm.keras}: random weights (seed {arm.seed}), as asked for.",)
    reason = None if _has_weights(str(arm.keras)) else unreachable()
    if reason is None:
        try:
            return _pretrained(build), "imagenet", ()
        except Exception as error:  # noqa: BLE001 - Keras raises bare Exception for a failed download
            reason = " ".join(str(error).split())[:200]
    if arm.weights == "imagenet":
        raise ProvisionError(
            f"{arm.keras}: its imagenet weights cannot be downloaded ({reason}); connect to the internet, put the file "
            "into ~/.keras/models, or set weights: random."
        )
    note = f"{arm.keras}: random weights (seed {arm.seed}), since imagenet's cannot be downloaded here: {reason}."
    return _random(build, arm), "random", (note,)


def _builder(name: str) -> Any:
    refuse_unknown(name, _known())
    return getattr(keras.applications, name)


def _random(build: Any, arm: Arm) -> Any:
    keras.utils.set_random_seed(arm.seed)
    return build(weights=None)


def _pretrained(build: Any) -> Any:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALLED_S)  # a download that stands still must not hold us for ever
    try:
        return build(weights="imagenet")
    finally:
        socket.setdefaulttimeout(before)


def _has_weights(name: str) -> bool:
    """Whether Keras seems to have downloaded them before; if not these, it will try, and we wait a little longer."""
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    return any(folder.glob(f"{name.lower()}_*"))


def family_of(model_name: str) -> str | None:
    """The keras.applications name that a model's own name stands for, where it is one exactly.

    >>> family_of("resnet50"), family_of("my_model")
    ('ResNet50', None)
    """
    return next((name for name in _known() if name.lower() == model_name.lower().replace("_", "")), None)


def _known() -> list[str]:
    return [name for name in dir(keras.applications) if name[0].isupper()]


def preprocessing_of(name: str, model: Any) -> Preprocessing:
    """What the family of a keras.applications model does to pixels, found out from its own `preprocess_input`.

    Raises:
        ProvisionError: it does something else than any mode that is known here.
    """
    _, *sizes, channels = model.input_shape
    height, width = (size or _USUAL_SIZE for size in sizes)
    function = sys.modules[_builder(name).__module__].preprocess_input
    pixels = np.array([[[[0, 0, 0], [255, 255, 255], [10, 100, 200]]]], dtype=np.float32)
    wanted = np.asarray(function(pixels.copy()))
    for mode in get_args(Mode):
        candidate = Preprocessing(mode, height, width, channels)
        ordered = pixels[..., ::-1] if mode == "caffe" else pixels
        if np.allclose(preprocess(ordered, candidate), wanted, atol=1e-4):
            return candidate
    raise ProvisionError(
        f"{name}: its preprocessing is none of caffe, tf, torch and none; use .json bodies as payloads."
    )
