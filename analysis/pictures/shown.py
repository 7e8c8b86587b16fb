"""What the pictures of a run show, as rows: all that a process which only draws must know."""

from dataclasses import dataclass, field
from typing import Any

from analysis.report import Report, Subject

UNATTRIBUTED = "unattributed"

Row = dict[str, Any]


@dataclass(frozen=True)
class Pictures:
    """Rows for charts; each list is empty where there is nothing to show."""

    spans: list[Row] = field(default_factory=list)
    shares: list[Row] = field(default_factory=list)
    evidence: list[Row] = field(default_factory=list)
    quantiles: list[Row] = field(default_factory=list)
    heat: list[Row] = field(default_factory=list)
    frame: list[Row] = field(default_factory=list)
    failures: list[Row] = field(default_factory=list)
    signatures: list[Row] = field(default_factory=list)
    routes: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Sheet:
    """Some pictures of a run; those that open where the verdict is worst need its report."""

    subject: Subject
    rows: Pictures
    report: Report | None = None
