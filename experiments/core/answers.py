"""Answer bytes → output vector → output signature; the distance between two answers."""

import json
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

Vector = npt.NDArray[np.float64]


class UndecodableAnswerError(ValueError):
    """The bytes are no prediction in TensorFlow Serving's REST format."""


def signature(body: bytes) -> str:
    """The xxh3-128 of the answer's bytes, hexadecimal: equal bytes, equal output."""
    return xxhash.xxh3_128_hexdigest(body)


def output_vector(body: bytes) -> Vector:
    """The first prediction of an answer, flattened.

    >>> output_vector(b'{"predictions": [[0.25, 0.75]]}')
    array([0.25, 0.75])

    Raises:
        UndecodableAnswerError: no JSON, no `predictions` or `outputs`, or values that are no numbers.
    """
    try:
        decoded = _decode(body)
        values = decoded["predictions"][0] if "predictions" in decoded else _first_output(decoded["outputs"])
        vector = np.asarray(_numbers(values), dtype=np.float64).ravel()
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise UndecodableAnswerError(f"no prediction: {body[:60]!r}") from error
    if vector.size == 0:
        raise UndecodableAnswerError("an empty prediction")
    return vector


def _decode(body: bytes) -> Any:
    """TensorFlow Serving writes NaN and Infinity, which strict parsers refuse."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return json.loads(body)


def _first_output(outputs: Any) -> Any:
    return next(iter(outputs.values())) if isinstance(outputs, dict) else outputs[0]


def _numbers(values: Any) -> Any:
    """Of several named outputs, all in the order of their names."""
    if isinstance(values, dict):
        return [number for name in sorted(values) for number in np.ravel(values[name]).tolist()]
    return values


def distance(a: Vector, b: Vector) -> float:
    """‖a−b‖₁ / (‖a‖₁+‖b‖₁), in [0, 1]: the total variation distance where both are probability vectors.

    Outputs of different lengths are at distance 1; NaN or infinity anywhere gives 1 unless both are identical.

    >>> distance(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    0.5
    """
    if a.shape != b.shape:
        return 1.0
    if np.array_equal(a, b, equal_nan=True):
        return 0.0
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 1.0
    # Scaled first, so that neither sum can overflow.
    scale = max(float(np.abs(a).max()), float(np.abs(b).max()))
    gap = np.abs(a / scale - b / scale).sum()
    return float(gap / (np.abs(a / scale).sum() + np.abs(b / scale).sum()))
