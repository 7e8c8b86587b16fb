"""JSON values ↔ tensors, by the rules and in the words of TensorFlow Serving (`util/json_tensor.cc`, newer than 2.5.1).

Numbers go through numpy at once; whatever it does not take exactly as Serving would goes the slow way, value by value,
which also finds the words for what is wrong.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.embedded.signatures import ServingError, TensorSpec

Array = npt.NDArray[Any]

_KINDS = {
    "float": "fiu", "double": "fiu", "int8": "i", "int16": "i", "int32": "i", "int64": "i", "uint8": "i",
    "uint32": "i", "uint64": "iu",
}  # fmt: skip
"""For each type, the kinds of numpy array that hold its values."""

_RANGES = {
    "int8": (-(2**31), 2**31), "int16": (-(2**31), 2**31), "uint8": (-(2**31), 2**31), "int32": (-(2**31), 2**31),
    "int64": (-(2**63), 2**63), "uint32": (0, 2**32), "uint64": (0, 2**64),
}  # fmt: skip
"""The JSON integers that Serving takes for a type; the small ones go through its int32."""

_MOST_DIMENSIONS = 64
"""What numpy can hold."""

_ECHO = 256
"""Messages show this many characters of a JSON value."""


def invalid(message: str) -> ServingError:
    """An INVALID_ARGUMENT."""
    return ServingError("INVALID_ARGUMENT", message)


def to_tensor(value: Any, spec: TensorSpec, *, plain: bool) -> Array:
    """A JSON value as one tensor.

    Args:
        value: A number, string, boolean, base64 object, or lists of them, nested evenly.
        spec: The tensor that it is for.
        plain: Whether the request holds no true, false or null, which numpy would take for numbers.

    Raises:
        ServingError: INVALID_ARGUMENT in Serving's words.
    """
    quick = _quick(value, spec) if plain else None
    if quick is not None:
        return quick
    shape = _dense_shape(value)
    leaves = list(_leaves(value, spec, shape, 0))
    return _filled(leaves, spec).reshape(shape)


def _quick(value: Any, spec: TensorSpec) -> Array | None:
    """Through numpy, where that gives exactly what Serving would."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        return None
    if array.dtype.kind not in _KINDS.get(spec.type, ""):
        return None
    if spec.type in _RANGES:
        low, high = _RANGES[spec.type]
        if array.size and not (low <= int(array.min()) and int(array.max()) < high):
            return None
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=spec.dtype).reshape(array.shape)


def _refuse_other_shape(first: Array, row: Array) -> None:
    if row.size != first.size:
        raise invalid(f"Expecting tensor size: {first.size} but got: {row.size}")
    if row.shape != first.shape:
        raise invalid(f"Expecting shape {_shape_text(first)} but got: {_shape_text(row)}")


def _shape_text(array: Array) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def _dense_shape(value: Any) -> tuple[int, ...]:
    """The shape that the first elements suggest."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        if len(shape) > _MOST_DIMENSIONS:
            raise invalid(f"Encountered list at unexpected level: {len(shape)} expected < {_MOST_DIMENSIONS}")
        value = value[0]
    return tuple(shape)


def _leaves(value: Any, spec: TensorSpec, shape: tuple[int, ...], level: int) -> Iterator[Any]:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {echo(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        yield _leaf(value, spec)
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for element in value:
        yield from _leaves(element, spec, shape, level + 1)


def _leaf(value: Any, spec: TensorSpec) -> Any:
    """One value, if it is one of the tensor's type."""
    if spec.type == "string":
        return _text(value, spec)
    if spec.type == "bool":
        fits = isinstance(value, bool)
    elif spec.type in ("float", "double"):
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    elif spec.type in _RANGES:
        low, high = _RANGES[spec.type]
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value < high
    else:
        message = f"Conversion of JSON Value: {echo(value)} to type: {spec.type}"
        raise ServingError("UNIMPLEMENTED", message)
    if not fits:
        raise _type_error(value, spec)
    return value


def _text(value: Any, spec: TensorSpec) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if not isinstance(value, dict):
        raise _type_error(value, spec)
    if not is_base64(value):
        raise invalid(f"JSON Value: {echo(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def _filled(leaves: list[Any], spec: TensorSpec) -> Array:
    if spec.type == "string":
        array = np.empty(len(leaves), dtype=object)
        array[:] = leaves
        return array
    if spec.type in _RANGES:
        wide = np.array(leaves, dtype=np.uint64 if spec.type == "uint64" else np.int64)
        return wide.astype(spec.dtype)
    with np.errstate(over="ignore"):
        return np.array(leaves, dtype=np.float64 if spec.type != "bool" else np.bool_).astype(spec.dtype)


def _type_error(value: Any, spec: TensorSpec) -> ServingError:
    return invalid(f"JSON Value: {echo(value)} Type: {_json_type(value)} is not of expected type: {spec.type}")


def _json_type(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    for kinds, name in ((dict, "Object"), (list, "Array"), (str, "String")):
        if isinstance(value, kinds):
            return name
    return "Number"


def is_base64(value: Any) -> bool:
    """Whether a JSON value is an object of the one key `b64`, with a string."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def echo(value: Any) -> str:
    """The start of a JSON value, as messages show it."""
    pieces = json.JSONEncoder(indent=4, ensure_ascii=False).iterencode(value)
    try:
        # Each piece has at least one character: a value of any size costs no more than what is shown.
        return "".join(islice(pieces, _ECHO))[:_ECHO]
    except RecursionError:
        return "(nested too deeply to be shown)"


def instances_to_tensors(instances: list[Any], inputs: Mapping[str, TensorSpec], *, plain: bool) -> dict[str, Array]:
    """The `instances` of a row request as tensors by alias.

    Raises:
        ServingError: INVALID_ARGUMENT in Serving's words.
    """
    first = instances[0]
    if not isinstance(first, dict) and len(inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if _is_named(first):
        return _named(instances, inputs, plain=plain)
    ((alias, spec),) = inputs.items()
    quick = _quick(instances, spec) if plain else None
    return {alias: quick if quick is not None else _plain(instances, spec)}


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _plain(instances: list[Any], spec: TensorSpec) -> Array:
    rows: list[Array] = []
    for number, element in enumerate(instances):
        if _is_named(element):
            raise invalid(f"Expecting value/list but got object at item {number} of input list")
        try:
            rows.append(to_tensor(element, spec, plain=False))
            _refuse_other_shape(rows[0], rows[-1])
        except ServingError as error:
            raise invalid(f"Failed to process element: {number} of 'instances' list. {_status(error)}") from error
    return np.stack(rows)


def _named(instances: list[Any], inputs: Mapping[str, TensorSpec], *, plain: bool) -> dict[str, Array]:
    columns: dict[str, list[Array]] = {alias: [] for alias in inputs}
    for number, element in enumerate(instances):
        if not _is_named(element):
            raise invalid(f"Expecting object but got list at item {number} of input list")
        for alias, value in element.items():
            try:
                _add(columns, alias, value, inputs, plain=plain)
            except ServingError as error:
                where = f"Failed to process element: {number} key: {alias} of 'instances' list. "
                raise invalid(where + _status(error)) from error
        if set(element) != set(inputs):
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: {echo(element)} keys must be "
                f"equal to: {','.join(sorted(inputs))}"
            )
    return {alias: np.stack(rows) for alias, rows in columns.items()}


def _add(
    columns: dict[str, list[Array]], alias: str, value: Any, inputs: Mapping[str, TensorSpec], *, plain: bool
) -> None:
    if alias not in inputs:
        raise invalid(f"JSON object: does not have named input: {alias}")
    columns[alias].append(to_tensor(value, inputs[alias], plain=plain))
    _refuse_other_shape(columns[alias][0], columns[alias][-1])


def _status(error: ServingError) -> str:
    return f"Error: {error.code}: {error.message}"


def inputs_to_tensors(value: Any, inputs: Mapping[str, TensorSpec], *, plain: bool) -> dict[str, Array]:
    """The `inputs` of a columnar request as tensors by alias.

    Raises:
        ServingError: INVALID_ARGUMENT in Serving's words.
    """
    if not _is_named(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        ((alias, spec),) = inputs.items()
        return {alias: to_tensor(value, spec, plain=plain)}
    missing = next((alias for alias in inputs if alias not in value), None)
    if missing is not None:
        raise invalid(f"Missing named input: {missing} in 'inputs' object.")
    return {alias: to_tensor(value[alias], spec, plain=plain) for alias, spec in inputs.items()}
