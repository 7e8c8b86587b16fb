"""The JSON of TensorFlow Serving without a server: the tolerant reader, and both ways from JSON to a tensor."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from deploy.embedded.answers import column_answer, row_answer
from deploy.embedded.rest import inflate, route
from deploy.embedded.signatures import ServingError, TensorSpec
from deploy.embedded.tensors import echo, to_tensor
from deploy.embedded.tolerant import parse

scalars = some.none() | some.booleans() | some.integers(-(2**63), 2**64 - 1) | some.floats() | some.text()
documents = some.recursive(scalars, lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner))


@given(documents, some.sampled_from([None, 2]))
def test_the_tolerant_reader_agrees_with_pythons(document, indent):
    """Python's own reader is the second implementation; it takes NaN and Infinity too."""
    text = json.dumps(document, indent=indent)
    assert repr(parse(text.encode())) == repr(json.loads(text))


@given(some.binary(max_size=40))
def test_any_bytes_are_read_or_refused(body):
    text = "read"
    try:
        parse(body)
    except ServingError as refused:
        text = refused.message
    assert text == "read" or text.startswith("JSON Parse error: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Inf, -Inf, Infinity]", [float("inf"), float("-inf"), float("inf")]),
        ('{"a": 1} {', {"a": 1}),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('{"a": 1, "a": 2}', {"a": 1}),
        ("18446744073709551616", 18446744073709551616.0),
        ("1" + "0" * 400, float("inf")),
    ],
)
def test_where_rapidjson_differs_from_python(text, expected):
    assert parse(text.encode()) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  ", "The document is empty. at offset: 2"),
        ('{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        ("{1: 2}", "Missing a name for object member. at offset: 1"),
        ('{"a": 1 "b": 2}', "Missing a comma or } after an object member. at offset: 8"),
        ("[1 2]", "Missing a comma or ] after an array element. at offset: 3"),
        ('["é" 2]', "Missing a comma or ] after an array element. at offset: 6"),
        ('["a', "Missing a closing quotation mark in string."),
        ('["\\q"]', "Invalid escape character in string."),
        ("[01]", "Missing a comma or ] after an array element. at offset: 2"),
        ("[.5]", "Invalid value. at offset: 1"),
        ("[1,]", "Invalid value. at offset: 3"),
    ],
)
def test_errors_have_rapidjsons_words_and_offsets(text, message):
    """Words: `rapidjson/error/en.h`."""
    with pytest.raises(ServingError) as refused:
        parse(text.encode())
    assert message in refused.value.message


SPECS = {
    name: TensorSpec("x:0", name, f"DT_{name.upper()}", np.dtype(kind), None)
    for name, kind in {
        "float": "f4",
        "double": "f8",
        "int32": "i4",
        "int64": "i8",
        "uint8": "u1",
        "string": "O",
    }.items()
}
numbers = some.integers(-(2**31), 2**31 - 1) | some.floats(width=32)
nested = some.lists(numbers, min_size=1) | some.integers(1, 4).flatmap(
    lambda width: some.lists(some.lists(numbers, min_size=width, max_size=width), min_size=1)
)


def outcome(value, name, *, plain):
    try:
        array = to_tensor(value, SPECS[name], plain=plain)
    except ServingError as refused:
        return refused.message
    return array.dtype, array.shape, array.tobytes()


@given(
    nested | some.recursive(numbers, some.lists, max_leaves=6), some.sampled_from(["float", "double", "int32", "int64"])
)
def test_the_quick_way_to_a_tensor_gives_what_the_slow_way_gives(value, name):
    assert outcome(value, name, plain=True) == outcome(value, name, plain=False)


@pytest.mark.parametrize("value", [[1.5], [2**31], [True], ["1"], [None]])
def test_what_is_no_int32_is_refused_both_ways(value):
    plain = not any(isinstance(each, bool) or each is None for each in value)
    assert "is not of expected type: int32" in outcome(value, "int32", plain=plain)


def test_nesting_that_no_tensor_has_is_refused():
    value = 1
    for _ in range(5000):
        value = [value]
    assert "Encountered list at unexpected level" in outcome(value, "float", plain=True)
    assert echo(value)


@given(some.lists(some.floats(width=32), min_size=1))
def test_float32_outputs_round_trip(values):
    array = np.array(values, np.float32)
    for answer, key in ((row_answer({"y": array}), "predictions"), (column_answer({"y": array}), "outputs")):
        back = np.array(json.loads(answer)[key], np.float32)
        assert np.array_equal(back, array, equal_nan=True)


def test_outputs_of_different_batch_sizes_are_refused():
    with pytest.raises(ServingError, match="inconsistent batch size: 3"):
        row_answer({"a": np.zeros(2), "b": np.zeros(3)})


def test_a_bomb_of_gzip_is_taken_for_nothing():
    import gzip

    bomb = gzip.compress(b"0" * (101 * 2**20), compresslevel=1)
    assert inflate(bomb, "gzip") == b""
    assert inflate(gzip.compress(b"{}"), "gzip") == b"{}"
    assert inflate(gzip.compress(b"{}")[:-4], "gzip") == b""


@given(some.text(max_size=30))
def test_only_whole_paths_are_predictions(text):
    assert route("POST", f"/v1/models/m:predict{text}") is None or text == ""
    assert route("GET", "/v1/models/m:predict") is None
