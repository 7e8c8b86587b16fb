"""The same payloads asked of two arms: does one of them err more often?"""

import math

from analysis.stats import distributions

EXACT_UP_TO = 10**12
"""More payloads than this on which the arms differ get the normal limit, which is the same to any digit shown."""


def mcnemar(only_first: int, only_second: int) -> float | None:
    """The exact two-sided p-value of "each arm is alone right equally often"; None where they never differ.

    Null: of the payloads on which just one arm is right, either is it with probability ½. The payloads must be distinct
    and drawn independently: asking one payload a thousand times is one payload.

    Source: McNemar 1947; exact as in Fagerland, Lydersen & Laake 2013, section 2.

    Their tables 1 and 2: p = .0703 and .0525.

    >>> round(mcnemar(1, 7), 4), round(mcnemar(6, 16), 4), mcnemar(0, 0)
    (0.0703, 0.0525, None)
    """
    differing = only_first + only_second
    if not (only_first >= 0 and only_second >= 0 and differing < math.inf):
        return None
    if differing > EXACT_UP_TO:
        return 2 * distributions.normal_above(abs(only_first - only_second) / math.sqrt(differing))
    return None if differing == 0 else distributions.binomial_two_sided(only_first, differing, 0.5)
