"""What the pictures of a run show, as rows: all that a process which only draws must know beside the report."""

from dataclasses import dataclass
from typing import Any

UNATTRIBUTED = "unattributed"

Row = dict[str, Any]


@dataclass(frozen=True)
class Pictures:
    """Rows for charts; each list is empty where there is nothing to show."""

    spans: list[Row]
    shares: list[Row]
    evidence: list[Row]
    quantiles: list[Row]
    heat: list[Row]
    failures: list[Row]
    signatures: list[Row]
    routes: list[Row]
