"""Roots against SciPy's Brent, and how many values of the function they cost."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import optimize

from analysis.stats.roots import root

SHAPES = {
    "cubic": lambda x, at: (x - at) ** 3 + (x - at),
    "steep": lambda x, at: math.expm1(8 * (x - at)),
    "flat": lambda x, at: math.tanh(40 * (x - at)),
    "nearly a step": lambda x, at: math.atan(1e6 * (x - at)) + 1e-3 * (x - at),
}


@pytest.mark.parametrize("shape", SHAPES)
@given(at=st.floats(-5, 5), low=st.floats(0.001, 10), high=st.floats(0.001, 10))
@example(at=0.0, low=1e-3, high=10.0)
def test_a_root_is_that_of_brent(shape, at, low, high):
    asked = []

    def function(x):
        asked.append(x)
        return SHAPES[shape](x, at)

    found = root(function, at - low, at + high, 1e-12)
    cost = len(asked)
    other = optimize.brentq(function, at - low, at + high, xtol=1e-12, rtol=1e-14)
    assert found == pytest.approx(other, abs=3e-12, rel=1e-14)
    assert all(at - low <= x <= at + high for x in asked)
    assert cost < 80


@given(at=st.floats(-5, 5), low=st.floats(0.001, 10), high=st.floats(0.001, 10))
@example(at=0.0, low=1e-3, high=10.0)
def test_a_triple_root_is_found_where_brent_gives_up(at, low, high):
    """In the example SciPy's Brent does not converge in 100 steps; cubes of less than 1e-108 are zero."""
    assert root(lambda x: (x - at) ** 3, at - low, at + high, 1e-12) == pytest.approx(at, abs=1e-7)


def test_an_end_may_be_the_root():
    assert root(lambda x: x, 0.0, 3.0, 1e-12) == 0.0
    assert root(lambda x: x - 3, 0.0, 3.0, 1e-12) == 3.0
    assert root(lambda x: x, 0.0, 0.0, 1e-12) == 0.0


@pytest.mark.parametrize("function", [lambda x: x * x + 1, lambda _: math.nan, lambda x: 1.0 if x < 1 else math.nan])
def test_without_a_change_of_sign_there_is_no_answer(function):
    with pytest.raises(ValueError, match=r"no change of sign|no number"):
        root(function, -1.0, 1.0, 1e-12)


def test_signs_are_compared_and_not_multiplied():
    assert root(lambda x: 0.0 if x == 0 else math.inf, 0.0, 1.0, 1e-12) == 0.0
    with pytest.raises(ValueError, match="no change of sign"):
        root(lambda _: 1e-200, -1.0, 1.0, 1e-12)


def test_infinite_values_are_values():
    """A score is infinite where a rate is 0: its sign is what counts."""
    assert root(lambda x: math.log(x / 0.3) if x else -math.inf, 0.0, 1.0, 1e-12) == pytest.approx(0.3, abs=1e-12)
