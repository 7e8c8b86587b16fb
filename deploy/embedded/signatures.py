"""What a loaded model can be asked, without a word of TensorFlow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DEFAULT_SIGNATURE = "serving_default"


class ServingError(Exception):
    """An error of TensorFlow's status codes, such as INVALID_ARGUMENT, with its message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a signature: its name in the graph, its type (`float`), its enum (`DT_FLOAT`), its shape.

    `shape` has -1 for a size that is open, and is None where even the rank is.
    """

    name: str
    type: str
    enum: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Signature:
    """One way to call a model: its method and its tensors by alias, in alphabetical order."""

    method: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True)
class Model:
    """A loaded model: its signatures, and a function for each from inputs to outputs by alias."""

    signatures: Mapping[str, Signature]
    callers: Mapping[str, Callable[[Mapping[str, npt.NDArray[Any]]], dict[str, npt.NDArray[Any]]]]
