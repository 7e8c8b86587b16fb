"""Several claims, one alpha: Holm's step-down for p-values and for e-values."""

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which nulls are rejected, with at most alpha chance of any false one, whatever their dependence (Holm 1979).

    What is no number is never rejected. Of the 15 p-values of Benjamini & Hochberg 1995, section 3.2, it rejects three:

    >>> smallest = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    >>> sum(holm([*smallest, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0], 0.05))
    3
    >>> holm([0.001, 0.04, 0.02], 0.05)
    [True, True, True]
    >>> holm([0.02, 0.04, 0.03], 0.05)
    [False, False, False]
    """
    order = _ascending(p_values)
    rejected = [False] * len(p_values)
    for step, index in enumerate(order):
        if not p_values[index] * (len(order) - step) <= alpha:  # also where it is no number
            break
        rejected[index] = True
    return rejected


def _ascending(p_values: Sequence[float]) -> list[int]:
    """The order of p-values; one that is no number comes last, and is never rejected."""
    return sorted(range(len(p_values)), key=lambda index: math.inf if math.isnan(p_values[index]) else p_values[index])


def e_holm(log_e_values: Sequence[float], alpha: float) -> list[bool]:
    """Holm's procedure on p = 1/E, which Ville's inequality makes valid at every look (Vovk & Wang 2021).

    At most alpha chance of any false rejection, whatever their dependence. Each must be an e-value under its own null.

    >>> e_holm([math.log(100), math.log(30), 0.0], 0.05)
    [True, False, False]
    """
    return holm([math.exp(-max(min(value, 700.0), -700.0)) for value in log_e_values], alpha)


def benjamini_hochberg(p_values: Sequence[float], rate: float) -> list[bool]:
    """Which nulls are rejected, with at most `rate` of the rejections false on average (Benjamini & Hochberg 1995).

    For p-values that are independent or positively dependent. No verdict rests on it: a roll-back must bound the
    chance of any false alarm, which this does not.

    >>> smallest = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    >>> sum(benjamini_hochberg([*smallest, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0], 0.05))  # their section 3.2
    4
    >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.5], 0.05)
    [True, False, False, False]
    """
    order = _ascending(p_values)
    last = max((step for step, at in enumerate(order, 1) if p_values[at] * len(order) <= rate * step), default=0)
    rejected = [False] * len(p_values)
    for index in order[:last]:
        rejected[index] = True
    return rejected


def e_benjamini_hochberg(log_e_values: Sequence[float], rate: float) -> list[bool]:
    """The same for e-values, whatever their dependence (Wang & Ramdas 2022, definition 1).

    >>> e_benjamini_hochberg([math.log(100), math.log(45), 0.0], 0.05)
    [True, True, False]
    """
    return benjamini_hochberg([math.exp(-max(min(value, 700.0), -700.0)) for value in log_e_values], rate)
