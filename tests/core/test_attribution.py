import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.core.answers import UndecodableAnswerError, distance, output_vector, signature
from experiments.core.attribution import Reference, attribute, match_radius, separation, tells_apart

A = np.array([0.7, 0.2, 0.1])
B = np.array([0.1, 0.2, 0.7])
REFERENCES = {"a": Reference(A, 1e-6), "b": Reference(B, 1e-6)}

vectors = st.lists(st.floats(-1e300, 1e300), min_size=3, max_size=3).map(np.array)
simplex = st.lists(st.floats(1e-9, 1), min_size=3, max_size=3).map(lambda v: np.array(v) / sum(v))


@given(vectors, vectors)
def test_the_distance_is_symmetric_and_within_one(a, b):
    assert 0 <= distance(a, b) <= 1 + 1e-12
    assert distance(a, b) == distance(b, a)
    assert distance(a, a) == 0


@given(simplex, simplex)
def test_between_probability_vectors_it_is_total_variation(a, b):
    # The other definition of total variation: the largest difference over all events.
    events = [sum(a[i] - b[i] for i in range(3) if mask >> i & 1) for mask in range(8)]
    assert math.isclose(distance(a, b), max(events), abs_tol=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_far_from_everything_but_itself(bad):
    assert distance(np.array([bad, 1.0]), np.array([1.0, 1.0])) == 1
    assert distance(np.array([bad, 1.0]), np.array([bad, 1.0])) == 0
    assert attribute(np.array([bad, 0.0, 0.0]), REFERENCES).reason == "not finite"


def test_other_lengths_are_at_distance_one():
    assert distance(np.array([1.0]), np.array([1.0, 0.0])) == 1


def test_an_answer_within_the_radius_is_its_arms():
    assert attribute(A + np.array([1e-4, -1e-4, 0]), REFERENCES).arm == "a"
    assert attribute(B, REFERENCES).arm == "b"


def test_an_answer_between_the_arms_is_nobodys():
    found = attribute((A + B) / 2, REFERENCES)
    assert found.arm is None
    assert found.reason == "near no reference"
    assert set(found.distances) == {"a", "b"}


def test_equal_arms_cannot_be_told_apart():
    same = {"a": Reference(A), "b": Reference(A)}
    assert not tells_apart(same)
    assert attribute(A, same).reason == "near two references"


def test_noise_as_large_as_the_separation_cannot_be_told_apart():
    noisy = {"a": Reference(A, 0.1), "b": Reference(B, 0.1)}
    assert not tells_apart(noisy)
    assert tells_apart(REFERENCES)


def test_the_radius_is_the_larger_of_noise_and_separation():
    assert separation(REFERENCES) == pytest.approx(0.6)
    assert match_radius(REFERENCES) == pytest.approx(0.006)
    assert match_radius({"a": Reference(A, 0.01), "b": Reference(B)}) == pytest.approx(0.1)


def test_a_payload_without_references_names_nobody():
    assert attribute(A, {}).reason == "no reference for this payload"


@given(simplex, simplex, simplex)
def test_every_answer_is_one_arms_or_has_a_reason(a, b, answer):
    found = attribute(answer, {"a": Reference(a), "b": Reference(b)})
    assert (found.arm is None) == bool(found.reason)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"predictions": [[1.0, 2.0]]}', [1, 2]),
        (b'{"predictions": [2.5, 3.0]}', [2.5]),
        (b'{"outputs": [[1.0], [2.0]]}', [1]),
        (b'{"predictions": [{"b": [3.0], "a": 1}]}', [1, 3]),
        (b'{"predictions": [[NaN, Infinity, 3.0, -Infinity]]}', [math.nan, math.inf, 3, -math.inf]),
    ],
)
def test_tensorflow_servings_answers_decode(body, expected):
    assert np.array_equal(output_vector(body), np.array(expected, dtype=float), equal_nan=True)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"error": "x"}', b'{"predictions": []}', b'{"predictions": [[]]}', b"null", b"\xff",
     b'{"predictions": [["x"]]}', b'{"predictions": 3}', b'{"predictions": [[1, [2]]]}', b'{"outputs": 1}'],
)  # fmt: skip
def test_anything_else_is_undecodable(body):
    with pytest.raises(UndecodableAnswerError):
        output_vector(body)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5))
def test_json_round_trips(values):
    body = json.dumps({"predictions": [values]}).encode()
    assert np.array_equal(output_vector(body), np.array(values))


def test_equal_bytes_have_equal_signatures():
    # xxh3-128 of the empty input, from the reference implementation's published test vectors.
    assert signature(b"") == "99aa06d3014798d86001c324468d497f"
    assert signature(b"a") != signature(b"b")
