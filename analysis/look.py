"""What one look says: the report on the requests issued before its watermark, ready for JSON."""

from typing import Any

import msgspec

from analysis.render.json_report import rounded, schema_of
from analysis.report import Report

SCHEMA_VERSION = 1
WAITING, LIVE, ENDED = "waiting", "live", "ended"


class Point(msgspec.Struct, frozen=True):
    """One look in short, for pictures over time; `t_s` counts from the schedule's time zero.

    `shares` are `[cohorts, arm, estimate, low, high]` in the phase then in force; `p50_us` is by arm.
    """

    t_s: float
    phase: str
    verdict: str
    shares: list[tuple[str, str, float | None, float, float | None]]
    p50_us: dict[str, float]


class Gate(msgspec.Struct, frozen=True):
    """Whether a gated phase may be left for the next one.

    `state` is `open` (go on), `shut` (something is broken: roll back) or `waiting`; `lacking` names the claims that are
    waited for. `ln_e` is the evidence, over this and every earlier gated phase, that the canary's failures keep to the
    margin; the gate opens at `ln_e_needed`.
    """

    phase: str
    state: str
    sentence: str
    lacking: list[str]
    ln_e: float | None
    ln_e_needed: float


class Look(msgspec.Struct, frozen=True):
    """One look at a run that may still be going on.

    `state` is `waiting` (`message` says for what), `live` or `ended`; the report of an ended run is the final one.
    `phase` is the routing last applied; `phase_s` says for how many seconds it was in force at the watermark.
    """

    look: int
    state: str
    run: str
    at_us: int
    message: str = ""
    watermark_us: int | None = None
    phase: str | None = None
    phase_s: float = 0.0
    gates: list[Gate] = []
    report: Report | None = None
    history: list[Point] = []
    schema_version: int = SCHEMA_VERSION


def to_json(look: Look) -> bytes:
    """One line of JSON, every number to 12 significant digits."""
    return msgspec.json.encode(rounded(msgspec.to_builtins(look)))


def from_json(line: bytes) -> Look:
    """What `to_json` wrote; raises msgspec.MsgspecError where it is something else."""
    return msgspec.json.decode(line, type=Look)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a look, from the types that make it; it is shipped as `analysis/look.schema.json`."""
    return schema_of(Look, "Splitproof look")
