"""The routing as a diagram: who sends, which rule takes the request, and where it went."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import altair as alt

from analysis.pictures.shown import UNATTRIBUTED, Pictures
from analysis.render.charts.looks import Row, Sets, arm_scale, finished, told_claim
from analysis.render.labels import labelled
from analysis.render.picture import Picture
from analysis.render.text import named
from analysis.report import Report

_LEFT, _MIDDLE, _RIGHT = 0.2, 0.46, 0.84
_NOBODY = "unknown"
_HIDDEN = alt.Axis(labels=False, ticks=False, domain=False, grid=False, title=None)
_X = alt.X("x:Q", scale=alt.Scale(domain=[-0.02, 1.02], nice=False), axis=_HIDDEN)
_Y = alt.Y("y:Q", scale=alt.Scale(domain=[0, 1], nice=False), axis=_HIDDEN)
_SHIFTS: dict[Literal["left", "center", "right"], tuple[int, int]] = {
    "left": (8, 0),
    "center": (-30, -12),
    "right": (-8, 0),
}
TEXT = (
    "Who sends, which rule takes the request, and where it went: the observed share of each cohort, with the "
    "configured one in brackets."
)


def routes(report: Report, data: Pictures) -> Picture | None:
    """Cohorts, rules and arms with the shares on the arrows; None without requests."""
    if not any(row["n"] for row in data.routes):
        return None
    sets = Sets()
    phases = [named(name) for name in dict.fromkeys(row["phase"] for row in data.routes)]
    claim = told_claim(report, "split")
    phase = named(claim.phase) if claim and claim.phase and named(claim.phase) in phases else phases[0]
    places = _Places(report, data.routes)
    colour = alt.Color("arm:N", scale=arm_scale(report.subject, strange=True), legend=None)
    nodes = list(_nodes(data.routes, places))
    middles = [node for node in nodes if node["align"] == "center"]
    edges = labelled(list(_edges(data.routes, places)), middles, places.height)
    arrow, told = _arrows(alt.Chart(sets.add(edges)), colour)
    dots, *names = _names(alt.Chart(sets.add(nodes)), colour)
    layers = alt.layer(arrow, dots, told, *names)
    chosen = {"phase": phase}
    spec = finished(layers, places.height, sets, chosen)
    return Picture("routes", "What did the routing do?", TEXT, spec, {"phase": phases}, chosen)


def _arrows(drawn: alt.Chart, colour: alt.Color) -> tuple[alt.Chart, alt.Chart]:
    """The arrows and what is written on them."""
    chosen = drawn.transform_filter("datum.phase == phase")
    hover = [
        alt.Tooltip("cohort:N"),
        alt.Tooltip("rule:N"),
        alt.Tooltip("arm:N"),
        alt.Tooltip("n:Q", format=","),
        alt.Tooltip("share:Q", format=".2%"),
        alt.Tooltip("expected:Q", format=".1%", title="configured"),
    ]
    width = alt.StrokeWidth("width:Q", scale=None, legend=None)
    arrow = chosen.mark_rule(opacity=0.65, strokeCap="round").encode(
        _X, _Y, alt.X2("x2:Q"), alt.Y2("y2:Q"), colour, strokeWidth=width, tooltip=hover
    )
    told = (
        chosen.transform_filter("datum.label != ''")
        .mark_text(fontSize=12, fontWeight="bold", dy=-8, align="center")
        .encode(alt.X("lx:Q"), alt.Y("ly:Q"), text="label:N")
    )
    return arrow, told


def _names(drawn: alt.Chart, colour: alt.Color) -> Iterator[alt.Chart]:
    """A dot for each cohort, rule and arm, then their names on the side where there is room."""
    boxes = drawn.transform_filter("datum.phase == phase || datum.phase == '*'")
    yield boxes.mark_circle(size=70, opacity=1).encode(_X, _Y, colour)
    for side, (dx, dy) in _SHIFTS.items():
        room = 0.16 if side == "left" else 0.19
        yield (
            boxes.transform_filter(f"datum.align == '{side}'")
            .mark_text(align=side, fontSize=12.5, dx=dx, dy=dy, limit=alt.ExprRef(f"width * {room} - 8"))
            .encode(_X, _Y, text="name:N")
        )


class _Places:
    """Heights of cohorts on the left and arms on the right, each spread evenly from the top down."""

    def __init__(self, report: Report, rows: Sequence[Row]) -> None:
        extra = [_NOBODY] if any(row["arm"] == _NOBODY for row in rows) else []
        self.arms = _spread([*report.subject.arms, *extra])
        self.cohorts = _spread(list(dict.fromkeys(row["cohort"] for row in rows)))
        self.height = max(170, 75 * max(len(self.cohorts), len(self.arms) // 2 + 1))


def _spread(names: Sequence[str]) -> Mapping[str, float]:
    return {name: 1 - (place + 0.5) / len(names) for place, name in enumerate(names)}


def _coloured(arm: str) -> str:
    return UNATTRIBUTED if arm == _NOBODY else arm


def _met(rows: Sequence[Row]) -> list[Row]:
    """One row for each phase and cohort: what its requests met is the same whatever arm they went to."""
    return list({(row["phase"], row["cohort"]): row for row in reversed(rows)}.values())[::-1]


def _nodes(rows: Sequence[Row], places: _Places) -> Iterator[Row]:
    for name, y in places.cohorts.items():
        yield {"phase": "*", "x": _LEFT, "y": y, "name": name, "align": "right", "arm": UNATTRIBUTED}
    for name, y in places.arms.items():
        yield {"phase": "*", "x": _RIGHT, "y": y, "name": name, "align": "left", "arm": _coloured(name)}
    for row in _met(rows):
        rule = {"x": _MIDDLE, "y": places.cohorts[row["cohort"]], "name": row["rule"], "align": "center"}
        yield {"phase": row["phase"], **rule, "arm": UNATTRIBUTED}


def _edges(rows: Sequence[Row], places: _Places) -> Iterator[Row]:
    for row in _met(rows):
        y = places.cohorts[row["cohort"]]
        line = {"x": _LEFT, "y": y, "x2": _MIDDLE, "y2": y, "width": 2.5, "label": ""}
        yield {**row, "arm": UNATTRIBUTED, **line, "share": None, "expected": None}
    for row in rows:
        y, to = places.cohorts[row["cohort"]], places.arms.get(row["arm"], 0.5)
        yield {
            **row,
            "arm": _coloured(row["arm"]),
            "x": _MIDDLE,
            "y": y,
            "x2": _RIGHT,
            "y2": to,
            "width": round(1.5 + 10 * (row["share"] or 0), 2),
            "label": _arrow_label(row),
        }


def _arrow_label(row: Row) -> str:
    configured = "" if row["expected"] is None else f" ({100 * row['expected']:.4g}%)"
    return f"no request{configured}" if row["share"] is None else f"{100 * row['share']:.3g}%{configured}"
