"""The quantities that people write in experiment files: `80%`, `5pp`, `8/s`, `60s`, `+80%`."""

import math
import re
from collections.abc import Callable
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER = r"(\d+(?:\.\d+)?)"
PERCENT = rf"^{_NUMBER}\s*%$"
POINTS = rf"^{_NUMBER}\s*pp$"
DURATION = rf"^{_NUMBER}\s*(ms|s|m|min|h)$"
RATE = rf"^{_NUMBER}\s*/\s*(s|min|h)$"
RATES = rf"^{_NUMBER}\s*/\s*(s|min|h)(?:\s*\.\.\s*{_NUMBER}\s*/\s*(s|min|h))?$"
INCREASE = rf"^\+{_NUMBER}\s*%$"
LIMIT = rf"^<\s*{_NUMBER}\s*(ms|s)$"


MOST_PER_SECOND = 100_000
"""No load process could send more."""


def _bad(value: object, rule: str) -> PydanticCustomError:
    """An error that pydantic carries to the reader with its place in the file."""
    return PydanticCustomError("quantity", "{value} {rule}", {"value": repr(value), "rule": rule})


def _parser(
    pattern: str, rule: str, scale: Callable[[re.Match[str]], float]
) -> Callable[[object, ValidationInfo], float]:
    """A function from text to number that names the rule when the text does not match.

    Floats are base units: they come back from `run.json`. A person's file (context `file`) must name the unit.
    """

    def parse(value: object, info: ValidationInfo) -> float:
        from_file = bool(info.context and info.context.get("file"))
        if isinstance(value, float) and not from_file:
            return value
        found = re.fullmatch(pattern, value.strip()) if isinstance(value, str) else None
        scaled = math.inf if found is None else scale(found)
        if not math.isfinite(scaled):  # so many digits that no number holds them
            raise _bad(value, rule)
        return scaled

    return parse


def _quantity(pattern: str, rule: str, scale: Callable[[re.Match[str]], float]) -> tuple[object, ...]:
    """The pydantic annotations of one quantity."""
    schema = {"type": "string", "pattern": pattern, "description": rule}
    return (
        BeforeValidator(_parser(pattern, rule, scale)),
        PlainSerializer(float, return_type=float),
        WithJsonSchema(schema, mode="validation"),
    )


Share = Annotated[
    float,
    *_quantity(PERCENT, "must be a percentage such as 80%", lambda m: float(m[1]) / 100),
    Field(ge=0, le=1),
]
"""A share of traffic; a fraction in [0, 1] once read."""

Points = Annotated[
    float,
    *_quantity(POINTS, "must be percentage points such as 5pp", lambda m: float(m[1]) / 100),
]
"""A difference of shares; a fraction once read."""

Seconds = Annotated[
    float,
    *_quantity(DURATION, "must be a duration such as 60s or 5m", lambda m: float(m[1]) * SECONDS[m[2]]),
]
"""A duration; seconds once read."""

PerSecond = Annotated[
    float,
    *_quantity(RATE, "must be a rate such as 8/s or 120/min", lambda m: float(m[1]) / SECONDS[m[2]]),
]
"""A rate; events per second once read."""

_RATES_RULE = "must be a rate such as 8/s, or a ramp such as 5/s..50/s"


def _rates(value: object, info: ValidationInfo) -> object:
    """Two rates per second from text; a pair comes back from `run.json`."""
    if isinstance(value, (list, tuple)) and not (info.context and info.context.get("file")):
        return value
    found = re.fullmatch(RATES, value.strip()) if isinstance(value, str) else None
    if found is None:
        raise _bad(value, _RATES_RULE)
    first = float(found[1]) / SECONDS[found[2]]
    last = float(found[3]) / SECONDS[found[4]] if found[3] else first
    if max(first, last) > MOST_PER_SECOND:
        raise _bad(value, f"must be at most {MOST_PER_SECOND}/s")
    return first, last


_Rate = Annotated[float, Field(ge=0)]

Rates = Annotated[
    tuple[_Rate, _Rate],
    BeforeValidator(_rates),
    WithJsonSchema({"type": "string", "pattern": RATES, "description": _RATES_RULE}, mode="validation"),
]
"""A rate that holds, or goes straight from one to another; the first and the last, events per second, once read."""

Increase = Annotated[
    float,
    *_quantity(INCREASE, "must be an increase such as +20%", lambda m: float(m[1]) / 100),
]
"""A relative increase; 0.2 means 20 % more, once read."""

Limit = Annotated[
    float,
    *_quantity(LIMIT, "must be a limit such as < 250ms", lambda m: float(m[1]) * SECONDS[m[2]]),
]
"""A latency that may not be reached; seconds once read."""
