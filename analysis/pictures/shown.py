"""What the pictures of a run show, as rows: all that a process which only draws must know beside the report."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

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
    failures: list[Row] = field(default_factory=list)
    signatures: list[Row] = field(default_factory=list)
    routes: list[Row] = field(default_factory=list)


def together(parts: Iterable[Pictures]) -> Pictures:
    """Parts as one: of each list those that are not empty, one after another."""
    whole: dict[str, list[Row]] = {}
    for part in parts:
        for name, rows in vars(part).items():
            whole.setdefault(name, []).extend(rows)
    return Pictures(**whole)
