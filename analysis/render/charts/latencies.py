"""Latency by quantile and arm, and over time."""

from collections.abc import Iterator

import altair as alt

from analysis.pictures.shown import Pictures
from analysis.render.charts.looks import Sets, arm_scale, finished, seconds, told_claim
from analysis.render.picture import Picture
from analysis.render.text import named
from analysis.report import Report, Subject

_MARKS = {"p50": 0.301, "p90": 1.0, "p95": 1.301, "p99": 2.0, "p99.9": 3.0, "p99.99": 4.0}
_CURVES = (
    "Latency of successful answers by quantile and arm; the lower curve is the faster arm. Band: 95 % for each "
    "quantile by itself, from its variation over time batches. Dotted: from the intended start, which counts "
    "the wait for a late sender."
)


def quantiles(report: Report, data: Pictures) -> Picture | None:
    """Latency by quantile and arm, from either start; None without answers."""
    if not data.quantiles:
        return None
    sets = Sets()
    phases = [named(name) for name in dict.fromkeys(row["phase"] for row in data.quantiles)]
    claim = told_claim(report, "latency")
    phase = named(claim.phase) if claim and claim.phase and named(claim.phase) in phases else phases[0]
    base = alt.Chart(sets.add(data.quantiles)).transform_filter("datum.phase == phase")
    layers = alt.layer(*_curves(base, report))
    chosen = {"phase": phase}
    spec = finished(layers, 230, sets, chosen)
    return Picture("quantiles", "Is it as fast?", _CURVES, spec, {"phase": phases}, chosen)


def _curves(base: alt.Chart, report: Report) -> Iterator[alt.Chart]:
    """The band, a line for each arm and start, and dots that tell their numbers."""
    x, y, colour = _tail(), _milliseconds(), alt.Color("arm:N", scale=arm_scale(report.subject))
    actual = base.transform_filter("datum.start == 'actual'")
    banded = actual.transform_filter("datum.low != null").mark_area(opacity=0.2)
    yield banded.encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), colour)
    dash = alt.StrokeDash(
        "start:N",
        scale=alt.Scale(domain=["actual", "intended"], range=[[1, 0], [3, 3]]),
        legend=alt.Legend(
            title=None,
            symbolType="stroke",
            columns=alt.ExprRef("max(1, floor(width / 204))"),
            labelExpr="'from the ' + datum.label + ' start'",
        ),
    )
    yield base.mark_line(strokeWidth=2.2).encode(x, y, colour, dash)
    shape = alt.Shape("arm:N", scale=alt.Scale(domain=[named(arm) for arm in report.subject.arms]))
    hover = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("p:N", title="quantile"),
        alt.Tooltip("ms:Q", format=",.4~g", title="ms"),
        alt.Tooltip("low:Q", format=",.4~g"),
        alt.Tooltip("high:Q", format=",.4~g"),
        alt.Tooltip("start:N"),
        alt.Tooltip("n:Q", format=",", title="answers"),
    ]
    yield actual.mark_point(filled=True, size=42).encode(x, y, colour, shape, tooltip=hover)


def _tail() -> alt.X:
    """Quantiles by −log10 of what lies beyond: the tail has as much room as the middle."""
    named = " : ".join(f"abs(datum.value - {place}) < 0.01 ? '{name}'" for name, place in _MARKS.items()) + " : ''"
    axis = alt.Axis(values=list(_MARKS.values()), labelExpr=named, title="quantile (tail stretched)", grid=True)
    return alt.X("tail:Q", scale=alt.Scale(nice=False, zero=True), axis=axis)


def _milliseconds() -> alt.Y:
    axis = alt.Axis(title="ms, log scale", format=",.4~r", tickCount=5)
    return alt.Y("ms:Q", scale=alt.Scale(type="log", nice=False), axis=axis)


def heat(subject: Subject, data: Pictures) -> Picture | None:
    """How many answers of one arm took how long when; None without answers."""
    sets = Sets()
    if not data.heat:
        return None
    arms = [named(arm) for arm in subject.arms if any(row["arm"] == arm for row in data.heat)]
    arm = arms[1] if len(arms) > 1 else arms[0]
    limits = [min(row["ms"] for row in data.heat), max(row["ms_to"] for row in data.heat)]
    times = [min(row["at"] for row in data.heat), max(row["until"] for row in data.heat)]
    limits[0] = max(limits[0], 1e-3)
    chart = (
        alt.Chart(sets.add(data.heat))
        .transform_filter("datum.arm == arm")
        .mark_rect()
        .encode(
            alt.X("at:Q", axis=seconds(), scale=alt.Scale(domain=times, nice=False)),
            alt.X2("until:Q"),
            alt.Y(
                "ms:Q",
                scale=alt.Scale(type="log", domain=limits, nice=False),
                axis=alt.Axis(title="ms, log scale", format=",.4~r", tickCount=5, grid=False),
            ),
            alt.Y2("ms_to:Q"),
            alt.Color(
                "part:Q",
                scale=alt.Scale(scheme="viridis"),
                legend=alt.Legend(
                    format="%", title="of the answers then", gradientLength=140, titleFontWeight="normal"
                ),
            ),
            tooltip=[
                alt.Tooltip("arm:N"),
                alt.Tooltip("at:Q", format=".1f", title="from s"),
                alt.Tooltip("ms:Q", format=".4~g", title="from ms"),
                alt.Tooltip("ms_to:Q", format=".4~g", title="to ms"),
                alt.Tooltip("n:Q", format=",", title="answers"),
                alt.Tooltip("part:Q", format=".1%", title="of then"),
            ],
        )
    )
    text = "When answers took how long: each column is a moment, bright where most answers of the arm fell."
    chosen = {"arm": arm}
    return Picture("heat", "Latency over time", text, finished(chart, 220, sets, chosen), {"arm": arms}, chosen)
