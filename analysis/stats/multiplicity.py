"""Several claims, one alpha: Holm's step-down for p-values and for e-values."""

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which nulls are rejected, with at most alpha chance of any false one, whatever their dependence (Holm 1979).

    >>> holm([0.001, 0.04, 0.02], 0.05)
    [True, True, True]
    >>> holm([0.02, 0.04, 0.03], 0.05)
    [False, False, False]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected = [False] * len(p_values)
    for step, index in enumerate(order):
        if p_values[index] * (len(order) - step) > alpha:
            break
        rejected[index] = True
    return rejected


def e_holm(log_e_values: Sequence[float], alpha: float) -> list[bool]:
    """Holm's procedure on p = 1/E, which Ville's inequality makes valid at every look (Vovk & Wang 2021).

    >>> e_holm([math.log(100), math.log(30), 0.0], 0.05)
    [True, False, False]
    """
    return holm([math.exp(-max(min(value, 700.0), -700.0)) for value in log_e_values], alpha)
