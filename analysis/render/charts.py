"""Rows → Vega-Lite, by Altair: one function a picture, every parameter named, colours that survive colour blindness.

Text and lines are drawn in `currentColor`, so that the page decides about light and dark.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from analysis.pictures.data import Pictures
from analysis.pictures.rest import UNATTRIBUTED
from analysis.render.labels import labelled
from analysis.render.text import safe
from analysis.report import Report

PALETTE = ("#0a7ac2", "#d55e00", "#009e73", "#c46a9d", "#8a7a00", "#7a5fd0", "#b0503c", "#2f8f9d", "#7d7d7d", "#a0651c")
"""After Okabe & Ito (2008), each at least 3 : 1 against white and against the dark page."""

STRANGE = "#808080"
WIDTH = 640
_MOST_CLAIMS = 8
_FEW_PHASES = 9
_LETTER = 7
"""Pixels for a letter of a label, so that what does not fit is shortened or left out."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """One chart: its name in the page, what it shows, its Vega-Lite specification and what a reader may switch."""

    name: str
    title: str
    text: str
    spec: dict[str, Any]
    switches: dict[str, list[str]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)


def charts(report: Report, data: Pictures) -> list[Picture]:
    """Every picture that has something to show, the most telling first."""
    made = [
        _shares(report, data),
        _quantiles(report, data),
        _routes(report, data),
        _heat(report, data),
        _failures(data),
        _signatures(report, data),
        _evidence(report, data),
    ]
    return [picture for picture in made if picture is not None]


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


def _clean(rows: Sequence[Row]) -> list[Row]:
    """Names made harmless: they come from a file that somebody else wrote."""
    return [{key: safe(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows]


@dataclass(frozen=True)
class Sets:
    """The rows of one picture by name: layers that share them name them, and Altair has nothing to copy."""

    rows: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, rows: Sequence[Row]) -> alt.NamedData:
        """Rows as data for a chart; names in them are made harmless."""
        name = f"rows{len(self.rows)}"
        self.rows[name] = _clean(rows)
        return alt.NamedData(name=name)


def _arm_scale(report: Report, *, strange: bool = False) -> alt.Scale:
    arms = [safe(arm) for arm in report.subject.arms]
    extra = [UNATTRIBUTED] if strange else []
    return alt.Scale(domain=[*arms, *extra], range=[*palette(arms), *([STRANGE] if strange else [])])


def _finished(chart: Any, height: int, sets: Sets) -> dict[str, Any]:
    """The specification with the looks that all pictures share."""
    styled = (
        chart.properties(width="container", height=height, background="transparent")
        .configure(font="system-ui, sans-serif", aria=False, padding=4)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor="currentColor",
            titleColor="currentColor",
            tickColor="currentColor",
            domainColor="currentColor",
            gridColor="currentColor",
            gridOpacity=0.12,
            labelFontSize=11,
            titleFontSize=11,
            titleFontWeight="normal",
            domainOpacity=0.4,
            tickOpacity=0.4,
        )
        .configure_legend(
            labelColor="currentColor",
            titleColor="currentColor",
            orient="top",
            direction="horizontal",
            labelFontSize=12,
            title=None,
            symbolStrokeWidth=3,
            symbolOpacity=1,
            columnPadding=16,
            labelLimit=220,
            columns=alt.ExprRef(f"max(1, floor(width / {_widest(sets)}))"),
        )
        .configure_text(color="currentColor", fontSize=11)
    )
    made: dict[str, Any] = styled.to_dict(validate=False)
    made.pop("$schema", None)
    # Altair's schema takes no layout here, Vega does: one legend below the other, so that none is cut.
    made["config"]["legend"]["layout"] = {"top": {"anchor": "start", "direction": "vertical", "margin": 2}}
    made["datasets"] = sets.rows
    return made


def _widest(sets: Sets) -> int:
    """Room for one entry of a legend, in pixels: as long as the longest name that it may have to show."""
    keys = ("arm", "claim", "kind", "start")
    names = (str(row.get(key, "")) for rows in sets.rows.values() for row in rows for key in keys)
    return min(_LETTER * max(map(len, names), default=8), 220) + 30


def _choice(name: str, value: str) -> alt.Parameter:
    return alt.param(name=name, value=value)


def _seconds(title: str = "seconds since the load began") -> alt.Axis:
    return alt.Axis(title=title, grid=False, tickCount=8, format=",.6~r")


def _shares(report: Report, data: Pictures) -> Picture | None:
    sets = Sets()
    if not data.shares:
        return None
    cohorts = [safe(name) for name in dict.fromkeys(row["cohort"] for row in data.shares)]
    arms = [safe(arm) for arm in report.subject.arms]
    cohort, arm = _opening(report, cohorts, arms)
    chosen = "datum.cohort == cohort && datum.arm == arm"
    base = alt.Chart(sets.add(data.shares)).transform_filter(chosen)
    at, until = alt.X("at:Q", axis=_seconds(), scale=alt.Scale(nice=False, zero=False)), alt.X2("until:Q")
    y = alt.Y("share:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", title=None, tickCount=5))
    end = alt.X("until:Q", axis=_seconds(), scale=alt.Scale(nice=False, zero=False))
    colour = alt.Color("arm:N", scale=_arm_scale(report), legend=None)
    hover = [
        alt.Tooltip("phase:N"),
        alt.Tooltip("n:Q", format=",", title="requests so far"),
        alt.Tooltip("share:Q", format=".2%"),
        alt.Tooltip("low:Q", format=".2%"),
        alt.Tooltip("high:Q", format=".2%"),
        alt.Tooltip("expected:Q", format=".1%", title="configured"),
        alt.Tooltip("seen:Q", format=".1%", title="then"),
    ]
    allowed = base.mark_rect(opacity=0.13, color="currentColor").encode(at, until, alt.Y("from:Q"), alt.Y2("to:Q"))
    configured = base.mark_rule(strokeWidth=1.6, strokeDash=[5, 3], color="currentColor").encode(
        at, until, alt.Y("expected:Q")
    )
    band = base.mark_area(opacity=0.28, interpolate="step-before").encode(
        end, alt.Y("low:Q"), alt.Y2("high:Q"), colour, alt.Detail("phase:N")
    )
    line = base.mark_line(strokeWidth=2.4, interpolate="step-before").encode(end, y, colour, alt.Detail("phase:N"))
    dots = base.mark_circle(size=22, opacity=0.55).encode(end, alt.Y("seen:Q"), colour, tooltip=hover)
    layers = alt.layer(*_grounds(data, sets), allowed, band, configured, line, dots).add_params(
        _choice("cohort", cohort), _choice("arm", arm)
    )
    text = (
        "Share of one arm over time. Line: share of the phase so far; band: its confidence sequence, valid whenever "
        "you look; dots: each moment alone; dashes: what is configured, with the tolerance shaded; grey bars: "
        "transitions, not judged."
    )
    return Picture(
        "shares",
        "Was the traffic split as configured?",
        text,
        _finished(layers, 230, sets),
        {"arm": arms, "cohort": cohorts},
        {"arm": arm, "cohort": cohort},
    )


def _opening(report: Report, cohorts: Sequence[str], arms: Sequence[str]) -> tuple[str, str]:
    """The cohort and arm to begin with: those of the worst claim, else the first cohort and the first canary."""
    claim = told_claim(report, "split")
    arm = safe(claim.arm) if claim and claim.arm and claim.state != "shown" else arms[1]
    named = claim.id.rpartition("/")[2].split("+") if claim else []
    known = [safe(name) for name in named if safe(name) in cohorts]
    return (known or list(cohorts))[0], arm if arm in arms else arms[1]


def _grounds(data: Pictures, sets: Sets) -> Iterator[Any]:
    """Transitions shaded, and the phases' names above."""
    spans = _clean(data.spans)
    gaps = [row for row in spans if row["kind"] == "transition"]
    at, until = alt.X("at:Q", axis=_seconds(), scale=alt.Scale(nice=False, zero=False)), alt.X2("until:Q")
    if gaps:
        yield (
            alt.Chart(sets.add(gaps))
            .mark_rect(color="currentColor", opacity=0.35, stroke="currentColor", strokeWidth=1, strokeOpacity=0.35)
            .encode(at, until, tooltip=[alt.Tooltip("phase:N", title="transition")])
        )
    periods = [row for row in spans if row["kind"] == "period"]
    if 0 < len(periods) <= _FEW_PHASES:
        whole = max(row["until"] for row in periods) - min(row["at"] for row in periods) or 1
        room = f"floor((datum.until - datum.at) / {whole:.6g} * width / {_LETTER})"
        yield (
            alt.Chart(sets.add(periods))
            .transform_calculate(label=f"{room} < 4 ? '' : truncate(datum.phase, {room})")
            .mark_text(align="left", baseline="bottom", dx=3, dy=-2, fontSize=11, fontWeight="bold", opacity=0.8)
            .encode(alt.X("at:Q"), y=alt.value(0), text="label:N", tooltip=[alt.Tooltip("phase:N")])
        )


_MARKS = {"p50": 0.301, "p90": 1.0, "p95": 1.301, "p99": 2.0, "p99.9": 3.0, "p99.99": 4.0}


def _quantiles(report: Report, data: Pictures) -> Picture | None:
    sets = Sets()
    if not data.quantiles:
        return None
    phases = [safe(name) for name in dict.fromkeys(row["phase"] for row in data.quantiles)]
    claim = told_claim(report, "latency")
    phase = safe(claim.phase) if claim and claim.phase and safe(claim.phase) in phases else phases[0]
    base = alt.Chart(sets.add(data.quantiles)).transform_filter("datum.phase == phase")
    named = " : ".join(f"abs(datum.value - {place}) < 0.01 ? '{name}'" for name, place in _MARKS.items()) + " : ''"
    x = alt.X(
        "tail:Q",
        scale=alt.Scale(nice=False, zero=True),
        axis=alt.Axis(values=list(_MARKS.values()), labelExpr=named, title="quantile (tail stretched)", grid=True),
    )
    y = alt.Y(
        "ms:Q",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(title="ms, log scale", format=",.4~r", tickCount=5),
    )
    colour = alt.Color("arm:N", scale=_arm_scale(report))
    hover = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("p:N", title="quantile"),
        alt.Tooltip("ms:Q", format=",.4~g", title="ms"),
        alt.Tooltip("low:Q", format=",.4~g"),
        alt.Tooltip("high:Q", format=",.4~g"),
        alt.Tooltip("start:N"),
        alt.Tooltip("n:Q", format=",", title="answers"),
    ]
    actual = base.transform_filter("datum.start == 'actual'")
    band = (
        actual.transform_filter("datum.low != null")
        .mark_area(opacity=0.2)
        .encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), colour)
    )
    dash = alt.StrokeDash(
        "start:N",
        scale=alt.Scale(domain=["actual", "intended"], range=[[1, 0], [3, 3]]),
        legend=alt.Legend(
            title=None,
            symbolType="stroke",
            columns=alt.ExprRef("max(1, floor(width / 190))"),
            labelExpr="'from the ' + datum.label + ' start'",
        ),
    )
    line = base.mark_line(strokeWidth=2.2).encode(x, y, colour, dash)
    dots = actual.mark_point(filled=True, size=42).encode(
        x,
        y,
        colour,
        alt.Shape("arm:N", scale=alt.Scale(domain=[safe(arm) for arm in report.subject.arms])),
        tooltip=hover,
    )
    layers = alt.layer(band, line, dots).add_params(_choice("phase", phase))
    text = (
        "Latency of successful answers by quantile and arm; the lower curve is the faster arm. Band: 95 % for each "
        "quantile by itself, from its variation over time batches. Dotted: from the intended start, which counts "
        "the wait for a late sender."
    )
    return Picture(
        "quantiles", "Is it as fast?", text, _finished(layers, 230, sets), {"phase": phases}, {"phase": phase}
    )


def _heat(report: Report, data: Pictures) -> Picture | None:
    sets = Sets()
    if not data.heat:
        return None
    arms = [safe(arm) for arm in report.subject.arms if any(row["arm"] == arm for row in data.heat)]
    arm = arms[1] if len(arms) > 1 else arms[0]
    limits = [min(row["ms"] for row in data.heat), max(row["ms_to"] for row in data.heat)]
    times = [min(row["at"] for row in data.heat), max(row["until"] for row in data.heat)]
    limits[0] = max(limits[0], 1e-3)
    chart = (
        alt.Chart(sets.add(data.heat))
        .transform_filter("datum.arm == arm")
        .mark_rect()
        .encode(
            alt.X("at:Q", axis=_seconds(), scale=alt.Scale(domain=times, nice=False)),
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
        .add_params(_choice("arm", arm))
    )
    text = "When answers took how long: each column is a moment, bright where most answers of the arm fell."
    return Picture("heat", "Latency over time", text, _finished(chart, 220, sets), {"arm": arms}, {"arm": arm})


def _failures(data: Pictures) -> Picture | None:
    sets = Sets()
    if not data.failures:
        return None
    kinds = [safe(kind) for kind in sorted({row["kind"] for row in data.failures})]
    base: dict[float, int] = {}
    stacked = []
    for row in data.failures:
        below = base.get(row["at"], 0)
        base[row["at"]] = below + row["failed"]
        stacked.append({**row, "below": below, "above": base[row["at"]]})
    chart = (
        alt.Chart(sets.add(stacked))
        .mark_rect(stroke="currentColor", strokeWidth=0.3)
        .encode(
            alt.X("at:Q", axis=_seconds(), scale=alt.Scale(nice=False, zero=False)),
            alt.X2("until:Q"),
            alt.Y("below:Q", axis=alt.Axis(title="failed requests", tickMinStep=1, format="~s")),
            alt.Y2("above:Q"),
            alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=list(PALETTE[1 : len(kinds) + 1]))),
            tooltip=[alt.Tooltip("kind:N"), alt.Tooltip("failed:Q", format=","), alt.Tooltip("at:Q", format=".1f")],
        )
    )
    spans = data.spans
    frame = (
        alt.Chart(sets.add([{"at": spans[0]["at"], "until": spans[-1]["until"]}] if spans else []))
        .mark_rect(opacity=0)
        .encode(alt.X("at:Q"), alt.X2("until:Q"))
    )
    return Picture(
        "failures", "Failures over time", "Failed requests by kind.", _finished(alt.layer(frame, chart), 160, sets)
    )


def _signatures(report: Report, data: Pictures) -> Picture | None:
    sets = Sets()
    if not data.signatures:
        return None
    strange = any(row["arm"] == UNATTRIBUTED for row in data.signatures)
    domain = [*[safe(arm) for arm in report.subject.arms], *([UNATTRIBUTED] if strange else [])]
    base = safe(report.subject.baseline)
    chart = (
        alt.Chart(sets.add(data.signatures))
        .mark_point(filled=True, size=50, opacity=0.7)
        .encode(
            alt.X("baseline:Q", axis=alt.Axis(title=f"distance to what {base} answers", tickCount=5)),
            alt.Y("other:Q", axis=alt.Axis(title="distance to another arm's answer", tickCount=5)),
            alt.Color("arm:N", scale=_arm_scale(report, strange=strange)),
            alt.Shape("arm:N", scale=alt.Scale(domain=domain)),
            tooltip=[
                alt.Tooltip("payload:N"),
                alt.Tooltip("arm:N", title="given by"),
                alt.Tooltip("reason:N"),
                alt.Tooltip("baseline:Q", format=".3~g", title=f"to {base}"),
                alt.Tooltip("other:Q", format=".3~g", title="to another arm"),
            ],
        )
    )
    text = (
        "Every distinct answer by its distance to what each model answers to the same payload (0 the same, 1 nothing "
        "in common). Dots on an axis are an arm's own answers; dots off both axes could not be given to any arm."
    )
    return Picture("signatures", "Which model gave which answer?", text, _finished(chart, 240, sets))


def _evidence(report: Report, data: Pictures) -> Picture | None:
    sets = Sets()
    if not data.evidence:
        return None
    last = {row["claim"]: row["ln_e"] for row in data.evidence}
    kept = sorted(last, key=lambda name: (-last[name], name))[:_MOST_CLAIMS]
    rows = [row for row in data.evidence if row["claim"] in kept]
    m = max(sum(len(share.cohorts) for share in report.shares if share.arm == report.subject.baseline), 1)
    limit = round(math.log(m / (report.alpha / 2)), 3)
    names = [safe(name) for name in last if name in kept]
    hover = [
        alt.Tooltip("claim:N"),
        alt.Tooltip("n:Q", format=",", title="requests"),
        alt.Tooltip("ln_e:Q", format=".3~g", title="ln e"),
    ]
    scale = alt.Scale(domain=names, range=list(PALETTE[: len(names)]))
    base = alt.Chart(sets.add(rows))
    x = alt.X("n:Q", axis=alt.Axis(title="requests judged", format="~s", tickCount=6))
    y = alt.Y("ln_e:Q", axis=alt.Axis(title="ln e against the claim", tickCount=5))
    line = base.mark_line(strokeWidth=2, clip=True).encode(x, y, alt.Color("claim:N", scale=scale))
    dots = base.mark_circle(size=20).encode(x, y, alt.Color("claim:N", scale=scale), tooltip=hover)
    rule = (
        alt.Chart(sets.add([{"limit": limit}]))
        .mark_rule(strokeDash=[5, 3], strokeWidth=1.6, color="currentColor")
        .encode(alt.Y("limit:Q"))
    )
    label = (
        alt.Chart(sets.add([{"limit": limit, "label": "broken for certain above this line"}]))
        .mark_text(align="left", baseline="bottom", dx=4, dy=-3)
        .encode(alt.Y("limit:Q"), x=alt.value(0), text="label:N")
    )
    text = (
        "Evidence that a claim is broken, as the requests came in (an infinite value, from a request where none may "
        f"go, is drawn at 60). The line is where even the strictest step of Holm's procedure over {m} split tests "
        "calls it broken."
    )
    return Picture(
        "evidence",
        "How strong is the evidence against it?",
        text,
        _finished(alt.layer(rule, label, line, dots), 200, sets),
    )


def _routes(report: Report, data: Pictures) -> Picture | None:
    sets = Sets()
    if not any(row["n"] for row in data.routes):
        return None
    phases = [safe(name) for name in dict.fromkeys(row["phase"] for row in data.routes)]
    claim = told_claim(report, "split")
    phase = safe(claim.phase) if claim and claim.phase and safe(claim.phase) in phases else phases[0]
    nodes, edges, height = _diagram(report, data)
    hidden = alt.Axis(labels=False, ticks=False, domain=False, grid=False, title=None)
    x = alt.X("x:Q", scale=alt.Scale(domain=[-0.02, 1.02], nice=False), axis=hidden)
    y = alt.Y("y:Q", scale=alt.Scale(domain=[0, 1], nice=False), axis=hidden)
    colour = alt.Color("arm:N", scale=_arm_scale(report, strange=True), legend=None)
    hover = [
        alt.Tooltip("cohort:N"),
        alt.Tooltip("rule:N"),
        alt.Tooltip("arm:N"),
        alt.Tooltip("n:Q", format=","),
        alt.Tooltip("share:Q", format=".2%"),
        alt.Tooltip("expected:Q", format=".1%", title="configured"),
    ]
    arrows = alt.Chart(sets.add(edges)).transform_filter("datum.phase == phase")
    arrow = arrows.mark_rule(opacity=0.65, strokeCap="round").encode(
        x,
        y,
        alt.X2("x2:Q"),
        alt.Y2("y2:Q"),
        colour,
        strokeWidth=alt.StrokeWidth("width:Q", scale=None, legend=None),
        tooltip=hover,
    )
    told = (
        arrows.transform_filter("datum.label != ''")
        .mark_text(fontSize=12, fontWeight="bold", dy=-8, align="center")
        .encode(alt.X("lx:Q"), alt.Y("ly:Q"), text="label:N")
    )
    boxes = alt.Chart(sets.add(nodes)).transform_filter("datum.phase == phase || datum.phase == '*'")
    names = [
        boxes.transform_filter(f"datum.align == '{side}'")
        .mark_text(
            align=side,
            fontSize=12.5,
            dx={"left": 8, "right": -8, "center": -30}[side],
            dy=0 if side != "center" else -12,
            limit=alt.ExprRef(f"width * {0.16 if side == 'left' else 0.19} - 8"),
        )
        .encode(x, y, text="name:N")
        for side in ("left", "center", "right")
    ]
    dots = boxes.mark_circle(size=70, opacity=1).encode(x, y, colour)
    layers = alt.layer(arrow, dots, told, *names).add_params(_choice("phase", phase))
    text = (
        "Who sends, which rule takes the request, and where it went: the observed share of each cohort, with the "
        "configured one in brackets."
    )
    return Picture(
        "routes", "What did the routing do?", text, _finished(layers, height, sets), {"phase": phases}, {"phase": phase}
    )


def _diagram(report: Report, data: Pictures) -> tuple[list[Row], list[Row], int]:
    """Places of names and arrows: cohorts on the left, their rules in the middle, arms on the right."""
    arms = [*report.subject.arms]
    if any(row["arm"] == "unknown" for row in data.routes):
        arms.append("unknown")
    cohorts = list(dict.fromkeys(row["cohort"] for row in data.routes))
    arm_y = {arm: 1 - (place + 0.5) / len(arms) for place, arm in enumerate(arms)}
    cohort_y = {cohort: 1 - (place + 0.5) / len(cohorts) for place, cohort in enumerate(cohorts)}
    colours = {"unknown": UNATTRIBUTED}
    left, middle, right = 0.2, 0.46, 0.84
    nodes = [
        {"phase": "*", "x": left, "y": y, "name": name, "align": "right", "arm": UNATTRIBUTED}
        for name, y in cohort_y.items()
    ]
    nodes += [
        {"phase": "*", "x": right, "y": y, "name": name, "align": "left", "arm": colours.get(name, name)}
        for name, y in arm_y.items()
    ]
    edges: list[Row] = []
    for row in data.routes:
        y = cohort_y[row["cohort"]]
        if not any(edge["phase"] == row["phase"] and edge["cohort"] == row["cohort"] for edge in edges):
            nodes.append(
                {
                    "phase": row["phase"],
                    "x": middle,
                    "y": y,
                    "name": row["rule"],
                    "align": "center",
                    "arm": UNATTRIBUTED,
                }
            )
            edges.append(
                {
                    **row,
                    "arm": UNATTRIBUTED,
                    "x": left,
                    "y": y,
                    "x2": middle,
                    "y2": y,
                    "width": 2.5,
                    "label": "",
                    "share": None,
                    "expected": None,
                }
            )
        to = arm_y.get(row["arm"], 0.5)
        edges.append(
            {
                **row,
                "arm": colours.get(row["arm"], row["arm"]),
                "x": middle,
                "y": y,
                "x2": right,
                "y2": to,
                "width": round(1.5 + 10 * (row["share"] or 0), 2),
                "label": _arrow_label(row),
            }
        )
    height = max(170, 75 * max(len(cohorts), len(arms) // 2 + 1))
    middles = [node for node in nodes if node["align"] == "center"]
    return nodes, labelled(edges, middles, height), height


def _arrow_label(row: Row) -> str:
    configured = "" if row["expected"] is None else f" ({100 * row['expected']:.4g}%)"
    return f"no request{configured}" if row["share"] is None else f"{100 * row['share']:.3g}%{configured}"


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
    claims = [safe(name) for name in dict.fromkeys(row["claim"] for row in kept)]
    kept = [{**row, "claim": safe(row["claim"])} for row in kept]
    rank = {"broken": 0, "void": 1, "undecided": 2, "shown": 3}
    first = min(kept, key=lambda row: rank[row["state"]])["claim"]
    base = alt.Chart(sets.add([{**row, "run": safe(row["run"])} for row in kept])).transform_filter(
        "datum.claim == claim"
    )
    x = alt.X("at:O", axis=alt.Axis(title="run", labelAngle=0))
    y = alt.Y("estimate:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title="found, in the claim's unit", tickCount=5))
    states = alt.Color(
        "state:N", scale=alt.Scale(domain=list(rank), range=["#d55e00", "#c46a9d", "#8a7a00", "#0a7ac2"])
    )
    hover = [
        alt.Tooltip("run:N"),
        alt.Tooltip("state:N"),
        alt.Tooltip("estimate:Q", format=".4~g"),
        alt.Tooltip("low:Q", format=".4~g"),
        alt.Tooltip("high:Q", format=".4~g"),
    ]
    margins = [
        base.transform_filter(f"datum.{name} != null")
        .mark_line(strokeDash=[5, 3], color="currentColor", opacity=0.7)
        .encode(x, alt.Y(f"{name}:Q"))
        for name in ("margin_low", "margin_high")
    ]
    bars = base.mark_rule(strokeWidth=3, opacity=0.6).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), states)
    dots = base.mark_point(filled=True, size=90).encode(
        x, y, states, alt.Shape("state:N", scale=alt.Scale(domain=list(rank))), tooltip=hover
    )
    layers = alt.layer(*margins, bars, dots).add_params(_choice("claim", first))
    return Picture(
        "trend",
        "One claim from run to run",
        "Dots: what was found; bars: the interval; dashes: the margin.",
        _finished(layers, 230, sets),
        {"claim": claims},
        {"claim": first},
    )
