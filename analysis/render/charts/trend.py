"""One claim's figure from run to run."""

from collections.abc import Iterator, Sequence

import altair as alt

from analysis.render.charts.looks import PALETTE, STRANGE, Row, Sets, finished
from analysis.render.picture import Picture
from analysis.render.text import named

_COLOURS = [PALETTE[1], PALETTE[2], STRANGE, PALETTE[0]]
"""Of broken, void, undecided and shown."""

_UNITS = (
    "indexof(claim, 'latency/') == 0 ? format(datum.value, '.3~f') + 'x'"
    " : indexof(claim, 'split/') == 0 ? format(datum.value, '.4~%')"
    " : format(100 * datum.value, '.4~g') + ' pp'"
)
"""The axis in the unit in which the table gives a claim: times as slow, a share, or a difference of shares."""


def trend_chart(rows: Sequence[Row]) -> Picture | None:
    """One claim's figure from run to run, with its interval and the margin."""
    sets = Sets()
    kept = [
        {
            key: row[key]
            for key in ("at", "run", "claim", "state", "estimate", "low", "high", "margin_low", "margin_high")
        }
        for row in rows
        if row["estimate"] is not None
    ]
    if not kept:
        return None
    claims = [named(name) for name in dict.fromkeys(row["claim"] for row in kept)]
    kept = [{**row, "claim": named(row["claim"])} for row in kept]
    rank = {"broken": 0, "void": 1, "undecided": 2, "shown": 3}
    first = min(kept, key=lambda row: rank[row["state"]])["claim"]
    base = alt.Chart(sets.add([{**row, "run": named(row["run"])} for row in kept])).transform_filter(
        "datum.claim == claim"
    )
    x = alt.X("at:O", axis=alt.Axis(title="run", labelAngle=0))
    y = alt.Y("estimate:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title="found", tickCount=5, labelExpr=_UNITS))
    states = alt.Color("state:N", scale=alt.Scale(domain=list(rank), range=_COLOURS))
    hover = [
        alt.Tooltip("run:N"),
        alt.Tooltip("state:N"),
        alt.Tooltip("estimate:Q", format=".4~g"),
        alt.Tooltip("low:Q", format=".4~g"),
        alt.Tooltip("high:Q", format=".4~g"),
    ]
    bars = base.mark_rule(strokeWidth=3, opacity=0.6).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), states)
    dots = base.mark_point(filled=True, size=90).encode(
        x, y, states, alt.Shape("state:N", scale=alt.Scale(domain=list(rank))), tooltip=hover
    )
    layers = alt.layer(*_margins(base, x), bars, dots)
    return Picture(
        "trend",
        "One claim from run to run",
        "Dots: what was found; bars: the interval; dashes: the margin.",
        finished(layers, 230, sets, {"claim": first}),
        {"claim": claims},
        {"claim": first},
    )


def _margins(base: alt.Chart, x: alt.X) -> Iterator[alt.Chart]:
    """A tick at each margin; where a claim has none it is at the dot and not drawn, for no scale is of nothing."""
    for name in ("margin_low", "margin_high"):
        placed = base.transform_calculate(has=f"isValid(datum.{name})").transform_calculate(
            **{name: f"datum.has ? datum.{name} : datum.estimate"}
        )
        shown = alt.condition("datum.has", alt.value(0.7), alt.value(0))
        yield placed.mark_tick(thickness=2, size=26, color="currentColor").encode(x, alt.Y(f"{name}:Q"), opacity=shown)
