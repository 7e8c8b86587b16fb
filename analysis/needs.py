"""How much more of the same data would decide a claim?"""

import math
from collections.abc import Callable

LARGEST = 2.0**24
"""Beyond this many times the data nobody waits."""


LEAST_MORE = 0.05
"""Nobody is told that less than a twentieth more is missing."""


def smallest_multiple(decided: Callable[[float], bool]) -> float | None:
    """The smallest multiple of the data, to 2 %, at which a claim is decided; None where none up to 2²⁴ does.

    >>> round(smallest_multiple(lambda multiple: multiple >= 3), 2)
    3.0
    """
    high = 1.0
    while not decided(high):
        high *= 2
        if high > LARGEST:
            return None
    low = high / 2
    while high / low > 1.005:  # noqa: PLR2004 - half a per cent
        middle = math.sqrt(low * high)
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
