"""Where does a function cross zero? SciPy's answer takes a quarter of a second to import, longer than a report asks."""

import math
from collections.abc import Callable

_MOST = 200
_EPSILON = 2.0**-52


def root(function: Callable[[float], float], low: float, high: float, xtol: float) -> float:
    """The place between two others at which a continuous function is zero, as precise as asked, or as floats can say.

    Inverse quadratic interpolation where three points lie so that it cannot lead astray, halving otherwise. Assumes
    that the function has values of different signs, or 0, at the two ends; with several roots it is one of them.

    Source: Chandrupatla 1997, Advances in Engineering Software 28, algorithm of section 2.

    Args:
        function: Of one number.
        low: One end.
        high: The other.
        xtol: How far from the root the answer may be.

    Raises:
        ValueError: the ends have one sign, or a value is no number.

    >>> round(root(lambda x: x * x - 2, 0.0, 2.0, 1e-12), 10)
    1.4142135624
    """
    a, b = high, low
    at_a, at_b = function(a), function(b)
    if math.isnan(at_a) or math.isnan(at_b) or (at_a != 0 and at_b != 0 and (at_a > 0) == (at_b > 0)):
        raise ValueError(f"no change of sign between {low} and {high}")
    c, at_c, part = a, at_a, 0.5
    for _ in range(_MOST):
        best, least = (a, at_a) if abs(at_a) < abs(at_b) else (b, at_b)
        near = (2 * _EPSILON * abs(best) + 0.5 * xtol) / abs(b - a) if a != b else 1.0
        if near > 0.5 or least == 0:  # noqa: PLR2004 - half of what is left
            break
        part = min(max(_part((a, at_a), (b, at_b), (c, at_c)), near), 1 - near)
        middle = a + part * (b - a)
        at = function(middle)
        if math.isnan(at):
            raise ValueError(f"no number at {middle}")
        if (at > 0) == (at_a > 0):
            c, at_c = a, at_a
        else:
            c, at_c, b, at_b = b, at_b, a, at_a
        a, at_a = middle, at
    return best


def _part(newest: tuple[float, float], other: tuple[float, float], before: tuple[float, float]) -> float:
    """How far from the newest point to the other side of the root the next one is."""
    (a, at_a), (b, at_b), (c, at_c) = newest, other, before
    if c in (a, b):
        return 0.5
    xi, phi = (a - b) / (c - b), (at_a - at_b) / (at_c - at_b)
    if not (phi * phi < xi and (1 - phi) ** 2 < 1 - xi):
        return 0.5
    return at_a / (at_b - at_a) * at_c / (at_b - at_c) + (c - a) / (b - a) * at_a / (at_c - at_a) * at_b / (at_c - at_b)
