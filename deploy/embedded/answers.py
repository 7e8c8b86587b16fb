"""Output tensors → the JSON of an answer, as TensorFlow Serving lays it out, with numbers that round-trip."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from deploy.embedded.signatures import ServingError

_BYTES_SUFFIX = "_bytes"
_FLOATS = "f"
_PLAIN_KINDS = "fiub"


def row_answer(outputs: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """`{"predictions": [...]}`: one value for each instance; an object of all outputs where there are several.

    Raises:
        ServingError: an output has no batch dimension, or another batch size than the others.
    """
    sizes = {alias: _batch_size(alias, array) for alias, array in outputs.items()}
    if len(set(sizes.values())) > 1:
        alias, size = next(reversed(sizes.items()))
        raise ServingError("INVALID_ARGUMENT", f"Tensor name: {alias} has inconsistent batch size: {size}")
    values = {alias: _values(alias, array) for alias, array in outputs.items()}
    if len(values) == 1:
        return _encode({"predictions": next(iter(values.values()))}, outputs)
    count = next(iter(sizes.values()), 0)
    rows = [{alias: column[number] for alias, column in values.items()} for number in range(count)]
    return _encode({"predictions": rows}, outputs)


def column_answer(outputs: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """`{"outputs": ...}`: the tensor, or an object of all where there are several."""
    values = {alias: _values(alias, array) for alias, array in outputs.items()}
    return _encode({"outputs": next(iter(values.values())) if len(values) == 1 else values}, outputs)


def _batch_size(alias: str, array: npt.NDArray[Any]) -> int:
    if array.ndim == 0:
        raise ServingError("INVALID_ARGUMENT", f"Tensor name: {alias} has no shape information ")
    return int(array.shape[0])


def _values(alias: str, array: npt.NDArray[Any]) -> Any:
    """What the encoder takes: the array itself where it holds plain numbers."""
    if array.dtype.kind in "OSU":
        return _texts(array.tolist(), as_bytes=alias.endswith(_BYTES_SUFFIX))
    if array.dtype.kind not in _PLAIN_KINDS:
        raise ServingError("UNIMPLEMENTED", f"Tensor name: {alias} has a type that JSON cannot hold: {array.dtype}")
    # A tensor without dimensions becomes a scalar of its own type: orjson takes no such arrays.
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _texts(value: Any, *, as_bytes: bool) -> Any:
    if isinstance(value, list):
        return [_texts(element, as_bytes=as_bytes) for element in value]
    raw = value if isinstance(value, bytes) else str(value).encode()
    return {"b64": base64.b64encode(raw).decode()} if as_bytes else raw.decode("utf-8", "replace")


def _encode(answer: Any, outputs: Mapping[str, npt.NDArray[Any]]) -> bytes:
    if all(array.dtype.kind != _FLOATS or np.isfinite(array).all() for array in outputs.values()):
        # The shortest digits that give the same number again in the tensor's own precision.
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    # orjson would write null for what Serving writes as NaN and Infinity.
    return json.dumps(answer, default=_short, separators=(",", ":"), ensure_ascii=False).encode()


def _short(array: npt.NDArray[Any]) -> Any:
    """Numbers whose repr is as short as the array's own precision allows."""
    if array.dtype.kind != _FLOATS:
        return array.tolist()
    short = [float(np.format_float_positional(value, unique=True)) for value in array.ravel()]
    return np.array(short, dtype=np.float64).reshape(array.shape).tolist()
