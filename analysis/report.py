"""Everything that a report says, whatever its form: renderings only lay it out."""

import msgspec

from analysis.findings import Check, Claim, Dispersion, Drift, Failures, Latency, Outputs, Secondary, Share
from analysis.verdict import Verdict

SCHEMA_VERSION = 1


class Subject(msgspec.Struct, frozen=True):
    """Which run this is about."""

    run: str
    experiment: str
    experiment_hash: str
    description: str
    target: str
    started_us: int
    baseline: str
    arms: list[str]
    attribution: str
    ended: str | None
    weights: dict[str, str]


class Records(msgspec.Struct, frozen=True):
    """Every recorded request, by whether it counts."""

    requests: int
    judged: int
    warm_up: int
    transition: int
    unfinished: int
    outside: int
    shards: int
    complete: bool
    lost_at_most: int


class PeriodLine(msgspec.Struct, frozen=True):
    """One routing in force; offsets are from the schedule's time zero."""

    index: int
    phase: str
    start_s: float
    end_s: float
    requests: int


class Report(msgspec.Struct, frozen=True):
    """A verdict with its evidence."""

    schema_version: int
    subject: Subject
    verdict: Verdict
    remarks: list[str]
    claims: list[Claim]
    shares: list[Share]
    dispersions: list[Dispersion]
    failures: list[Failures]
    latencies: list[Latency]  # from the actual start
    outputs: list[Outputs]
    outputs_applicable: bool
    checks: list[Check]
    records: Records
    periods: list[PeriodLine]
    alpha: float
    drifts: list[Drift] = []
    secondary: list[Secondary] = []
    waited: list[Latency] = []  # the same answers from their intended start, which counts the wait for a late sender
