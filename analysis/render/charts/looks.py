"""What all pictures share: colours that survive colour blindness, axes, data by name, and the frame around them.

Text and lines are drawn in `currentColor`, so that the page decides about light and dark.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import altair as alt

from analysis.pictures.shown import UNATTRIBUTED
from analysis.render.text import named
from analysis.report import Report, Subject

PALETTE = ("#0a7ac2", "#d55e00", "#b41e87", "#78965a", "#1ea5a5", "#c31e1e", "#00785a", "#8787ff", "#e16996", "#5a3cff")
"""Searched for being far from one another and from `STRANGE` to every eye, the first ones most; each at least 3 : 1
against the page, light and dark."""

STRANGE = "#808080"

LETTER = 7
"""Pixels for a letter of a label, so that what does not fit is shortened or left out."""

COUNTS = "datum.value < 10000 ? format(datum.value, ',') : format(datum.value, '~s')"
"""How an axis names counts: all digits while they are few, and 0 without a unit."""

Row = dict[str, Any]


def palette(arms: Sequence[str]) -> list[str]:
    """A colour for each arm, the same on the whole page."""
    return [PALETTE[place % len(PALETTE)] for place in range(len(arms))]


def told_claim(report: Report, kind: str) -> Any:
    """The claim of a kind that the page should open with: broken before undecided before shown."""
    rank = {"broken": 0, "void": 1, "undecided": 2, "shown": 3}
    claims = [claim for claim in report.claims if claim.kind == kind]
    mixed = {(share.phase) for share in report.shares if share.expected is not None and 0 < share.expected < 1}
    ordered = sorted(claims, key=lambda claim: (rank[claim.state], claim.phase not in mixed))
    return ordered[0] if ordered else None


def clean(rows: Sequence[Row]) -> list[Row]:
    """Names made harmless: they come from a file that somebody else wrote."""
    return [{key: named(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows]


@dataclass(frozen=True)
class Sets:
    """The rows of one picture by name: layers that share them name them, and Altair has nothing to copy."""

    rows: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, rows: Sequence[Row]) -> alt.NamedData:
        """Rows as data for a chart; names in them are made harmless."""
        name = f"rows{len(self.rows)}"
        self.rows[name] = clean(rows)
        return alt.NamedData(name=name)


def arm_scale(subject: Subject, *, strange: bool = False) -> alt.Scale:
    """The same colours for the arms in every picture; `strange` adds the one of what no arm is named for."""
    arms = [named(arm) for arm in subject.arms]
    extra = [UNATTRIBUTED] if strange else []
    return alt.Scale(domain=[*arms, *extra], range=[*palette(arms), *([STRANGE] if strange else [])])


_AXES = {
    "labelColor": "currentColor",
    "titleColor": "currentColor",
    "tickColor": "currentColor",
    "domainColor": "currentColor",
    "gridColor": "currentColor",
    "gridOpacity": 0.12,
    "labelFontSize": 11,
    "titleFontSize": 11,
    "titleFontWeight": "normal",
    "domainOpacity": 0.4,
    "tickOpacity": 0.4,
}
_LEGENDS = {
    "labelColor": "currentColor",
    "titleColor": "currentColor",
    "orient": "top",
    "direction": "horizontal",
    "labelFontSize": 12,
    "title": None,
    "symbolStrokeWidth": 3,
    "symbolOpacity": 1,
    # A reader's font may be wider than the one that a still picture was measured with.
    "columnPadding": 30,
    "labelLimit": 220,
    # One legend below the other, so that none is cut; Vega takes this, Altair's schema does not.
    "layout": {"top": {"anchor": "start", "direction": "vertical", "margin": 2}},
}
_CONFIG = {
    "font": "system-ui, sans-serif",
    "aria": False,
    "padding": 4,
    "axis": _AXES,
    "text": {"color": "currentColor", "fontSize": 11},
}


def finished(chart: Any, height: int, sets: Sets, chosen: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """The specification with the looks that all pictures share; Altair's methods for them copy all that there is.

    Args:
        chart: What Altair made.
        height: In pixels.
        sets: Its rows.
        chosen: What a reader may switch, and where it begins.
    """
    made: dict[str, Any] = chart.to_dict(validate=False)
    made.pop("$schema", None)
    view = {**made.pop("config")["view"], "stroke": None}
    legend = {**_LEGENDS, "columns": {"expr": f"max(1, floor(width / {_widest(sets)}))"}}
    return {
        **made,
        "width": "container",
        "height": height,
        "background": "transparent",
        "config": {**_CONFIG, "view": view, "legend": legend},
        "datasets": sets.rows,
        **({"params": [{"name": name, "value": value} for name, value in chosen.items()]} if chosen else {}),
    }


def _widest(sets: Sets) -> int:
    """Room for one entry of a legend, in pixels: as long as the longest name that it may have to show."""
    keys = ("arm", "claim", "kind", "start")
    names = (str(row.get(key, "")) for rows in sets.rows.values() for row in rows for key in keys)
    return min(LETTER * max(map(len, names), default=8), 220) + 44


def seconds(title: str = "seconds since the load began") -> alt.Axis:
    """The axis of time."""
    return alt.Axis(title=title, grid=False, tickCount=8, format=",.6~r")
