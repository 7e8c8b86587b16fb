"""What the columns of another tool's table mean, what was expected of it, and what must hold (validated YAML)."""

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from experiments.core import reading
from experiments.core.errors import ExperimentError
from experiments.core.quantities import Seconds, Share
from experiments.core.spec import Claims, Frozen

SHIPPED = Path(__file__).resolve().parent / "shipped"
"""Mappings that have a name: `NAME.FORMAT.yaml`."""

Form = Literal["csv", "jsonl", "parquet"]


class Source(Frozen):
    """Where a value is found: a column (in JSON a dotted path), a tag, or a response header.

    `pattern` takes what its first group matches; `values` renames what was found.
    """

    column: str | None = None
    tag: str | None = None
    header: str | None = None
    pattern: str | None = None
    values: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if sum(place is not None for place in (self.column, self.tag, self.header)) != 1:
            raise ValueError("exactly one of column, tag and header must say where the value is")
        if self.pattern is not None and not _has_group(self.pattern):
            raise ValueError("pattern must be a regular expression with one group, such as '^v=(.*)$'")
        return self

    @property
    def told(self) -> str:
        """The place in words."""
        return next(
            f"{kind} {name!r}"
            for kind, name in (("column", self.column), ("tag", self.tag), ("header", self.header))
            if name is not None
        )


def _has_group(pattern: str) -> bool:
    try:
        return re.compile(pattern).groups == 1
    except re.error:
        return False


def _as_source(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


Place = Annotated[Source, BeforeValidator(_as_source)]
"""A Source; bare text names a column."""


class Time(Source):
    """When a request was sent, or ended. `epoch`: s, ms, µs or ns since 1970, told apart by their size, or RFC 3339."""

    unit: Literal["s", "ms", "us", "ns", "rfc3339", "epoch"]
    at: Literal["start", "end"] = "start"


class Span(Source):
    """How long a request took."""

    unit: Literal["s", "ms", "us", "ns"]


class Keep(Frozen):
    """Only rows whose column has the first of these values that occurs at all."""

    column: str
    any_of: tuple[str, ...] = Field(..., min_length=1)


class Signature(Source):
    """The output itself, by hash or name: `arms` says which outputs are whose."""

    arms: dict[str, tuple[str, ...]] = Field(..., min_length=2)


Expected = dict[str, Share] | dict[str, dict[str, Share]]
"""Shares by arm, for every cohort or by cohort."""


def _as_moment(value: Any) -> Any:
    """A duration from the first request, or a moment with its zone."""
    if isinstance(value, datetime):
        value = value.isoformat()
    text = str(value)
    if re.fullmatch(r"\d{4}-\d\d-\d\d[T ].*", text):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError(f"{text!r} must name its zone, as 2026-01-31T12:00:00Z does; write it in quotes")
        return moment
    return value


Moment = Annotated[datetime | Seconds, BeforeValidator(_as_moment)]


class Stretch(Frozen):
    """One routing: from when to when (left out: to the ends of the table), and what was expected of it."""

    name: str = Field(..., min_length=1, max_length=60)
    start: Moment | None = Field(None, alias="from")
    end: Moment | None = Field(None, alias="to")
    expect: Expected | None = None


class Mapping(Frozen):
    """Everything that must be known to judge a table."""

    like: str | None = Field(None, description="A shipped mapping that this one starts from.")
    format: Form | None = Field(None, description="Told by the content where it is left out.")
    columns: tuple[str, ...] = Field((), description="Names for a CSV file without a header line.")
    tags: str | None = Field(None, description="The column of tags: an object, or text such as a=1&b=2.")
    headers: str | None = Field(None, description="The column of response headers: an object, or base64 of their text.")
    keep: tuple[Keep, ...] = ()
    time: Time
    latency: Span
    status: Place | None = None
    error: Place | None = None
    cohort: Place | None = None
    arm: Place | None = None
    signature: Signature | None = None
    arms: tuple[str, ...] = Field((), description="The baseline first.")
    expect: Expected | None = None
    phases: tuple[Stretch, ...] = ()
    warmup: Seconds = Field(0.0, ge=0)
    claims: Claims = Claims()

    @model_validator(mode="after")
    def _tells_arms(self) -> "Mapping":
        if self.arm is None and self.signature is None:
            raise ValueError("arm or signature must say how the arm of a request is told")
        return self


def names() -> list[str]:
    """The shipped mappings."""
    return sorted({path.name.split(".")[0] for path in SHIPPED.glob("*.yaml")})


def read(name_or_file: str, form: Form) -> Mapping:
    """A mapping: a file, or the name of one that is shipped, for a table of some format.

    Raises:
        ExperimentError: there is none, or it breaks rules; the message has a line for each mistake.
    """
    path = _find(name_or_file, form)
    raw = reading.parse(path)
    if not isinstance(raw, dict):
        raise ExperimentError(f"{path}:1: a mapping says where time, latency and arm are; this one is no YAML mapping.")
    base = reading.parse(_shipped(str(raw["like"]), form, f"{path}: like")) if "like" in raw else {}
    try:
        return Mapping.model_validate({**base, **raw}, context={"file": True})
    except ValidationError as error:
        raise reading.refusal(error, raw, str(path)) from error


def _find(name_or_file: str, form: Form) -> Path:
    as_file = Path(name_or_file)
    return as_file if as_file.is_file() else _shipped(name_or_file, form, "--mapping")


def _shipped(name: str, form: Form, where: str) -> Path:
    path = SHIPPED / f"{name}.{form}.yaml"
    if name not in names():
        raise ExperimentError(
            f"{where} {name}: no such file, and no such shipped mapping; there are: {', '.join(names())}."
        )
    if not path.is_file():
        forms = sorted(one.name.split(".")[1] for one in SHIPPED.glob(f"{name}.*.yaml"))
        raise ExperimentError(f"{where} {name}: is for {' or '.join(forms)} tables; this one is {form}.")
    return path
