"""What a page needs of a chart: apart from what makes charts, which takes long to import."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Picture:
    """One chart: its name in the page, what it shows, its Vega-Lite specification and what a reader may switch."""

    name: str
    title: str
    text: str
    spec: dict[str, Any]
    switches: dict[str, list[str]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
