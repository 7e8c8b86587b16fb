"""Shares over time with their confidence sequences, and the evidence against each claim."""

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt

from analysis.pictures.shown import Pictures
from analysis.render.charts.looks import (
    COUNTS,
    LETTER,
    PALETTE,
    Row,
    Sets,
    arm_scale,
    clean,
    finished,
    seconds,
    told_claim,
)
from analysis.render.picture import Picture
from analysis.render.text import named
from analysis.report import Report

_MOST_CLAIMS = 8
_FEW_PHASES = 9


def shares(report: Report, data: Pictures) -> Picture | None:
    """Shares over time; None where no share was configured."""
    sets = Sets()
    if not data.shares:
        return None
    cohorts = [named(name) for name in dict.fromkeys(row["cohort"] for row in data.shares)]
    arms = [named(arm) for arm in report.subject.arms]
    cohort, arm = _opening(report, cohorts, arms)
    opening = {"cohort": cohort, "arm": arm}
    chosen = "datum.cohort == cohort && datum.arm == arm"
    base = alt.Chart(sets.add(data.shares)).transform_filter(chosen)
    at, until = alt.X("at:Q", axis=seconds(), scale=alt.Scale(nice=False, zero=False)), alt.X2("until:Q")
    y = alt.Y("share:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", title=None, tickCount=5))
    end = alt.X("until:Q", axis=seconds(), scale=alt.Scale(nice=False, zero=False))
    colour = alt.Color("arm:N", scale=arm_scale(report.subject), legend=None)
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
    layers = alt.layer(*_grounds(data, sets), allowed, band, configured, line, dots)
    text = (
        "Share of one arm over time. Line: share of the phase so far; band: its confidence sequence, valid whenever "
        "you look; dots: each moment alone; dashes: what is configured, with the tolerance shaded; grey bars: "
        "transitions, not judged; every other phase is shaded."
    )
    return Picture(
        "shares",
        "Was the traffic split as configured?",
        text,
        finished(layers, 230, sets, opening),
        {"arm": arms, "cohort": cohorts},
        opening,
    )


def _opening(report: Report, cohorts: Sequence[str], arms: Sequence[str]) -> tuple[str, str]:
    """The cohort and arm to begin with: those of the worst claim, else the first cohort and the first canary."""
    claim = told_claim(report, "split")
    arm = named(claim.arm) if claim and claim.arm and claim.state != "shown" else arms[1]
    of_claim = claim.id.rpartition("/")[2].split("+") if claim else []
    known = [named(name) for name in of_claim if named(name) in cohorts]
    return (known or list(cohorts))[0], arm if arm in arms else arms[1]


def _grounds(data: Pictures, sets: Sets) -> Iterator[Any]:
    """Every other period shaded lightly, transitions darkly, and the phases' names above."""
    spans = clean(data.spans)
    periods, gaps = ([row for row in spans if row["kind"] == kind] for kind in ("period", "transition"))
    shades = ((periods[1::2], "phase", 0.06, 0.0), (gaps, "transition", 0.35, 0.35))
    at, until = alt.X("at:Q", axis=seconds(), scale=alt.Scale(nice=False, zero=False)), alt.X2("until:Q")
    for rows, title, dark, edge in shades:
        if rows:
            yield (
                alt.Chart(sets.add(rows))
                .mark_rect(color="currentColor", opacity=dark, stroke="currentColor", strokeWidth=1, strokeOpacity=edge)
                .encode(at, until, tooltip=[alt.Tooltip("phase:N", title=title)])
            )
    if 0 < len(periods) <= _FEW_PHASES:
        yield _phase_names(periods, sets)


def _phase_names(periods: Sequence[Row], sets: Sets) -> Any:
    """The names of phases at the top, each cut in its middle to the room that it has: numbers stand at an end."""
    whole = max(row["until"] for row in periods) - min(row["at"] for row in periods) or 1
    room = f"floor((datum.until - datum.at) / {whole:.6g} * width / {LETTER})"
    return (
        alt.Chart(sets.add(periods))
        .transform_calculate(label=f"{room} < 4 ? '' : truncate(datum.phase, {room}, 'center')")
        .mark_text(align="left", baseline="bottom", dx=3, dy=-2, fontSize=11, fontWeight="bold", opacity=0.8)
        .encode(alt.X("at:Q"), y=alt.value(0), text="label:N", tooltip=[alt.Tooltip("phase:N")])
    )


def evidence(data: Pictures) -> Picture | None:
    """The evidence against the claims that come nearest to being broken; None without any."""
    sets = Sets()
    if not data.evidence:
        return None
    last = {row["claim"]: row["part"] for row in data.evidence}
    kept = sorted(last, key=lambda name: (-last[name], name))[:_MOST_CLAIMS]
    rows = [row for row in data.evidence if row["claim"] in kept]
    names = [named(name) for name in last if name in kept]
    hover = [
        alt.Tooltip("claim:N"),
        alt.Tooltip("n:Q", format=",", title="requests"),
        alt.Tooltip("ln_e:Q", format=".3~g", title="ln e"),
        alt.Tooltip("part:Q", format=".0%", title="of what is needed"),
    ]
    scale = alt.Scale(domain=names, range=list(PALETTE[: len(names)]))
    base = alt.Chart(sets.add(rows))
    x = alt.X("n:Q", axis=alt.Axis(title="requests judged", tickCount=6, labelExpr=COUNTS))
    y = alt.Y("part:Q", axis=alt.Axis(title="ln e, of what is needed", format=".2~g", tickCount=5))
    # Cut in the middle: what tells claims apart stands at either end.
    legend = alt.Legend(labelExpr="truncate(datum.label, 30, 'center')")
    colour = alt.Color("claim:N", scale=scale, legend=legend)
    line = base.mark_line(strokeWidth=2, clip=True).encode(x, y, colour)
    dots = base.mark_circle(size=20).encode(x, y, colour, tooltip=hover)
    rule = (
        alt.Chart(sets.add([{"limit": 1}]))
        .mark_rule(strokeDash=[5, 3], strokeWidth=1.6, color="currentColor")
        .encode(alt.Y("limit:Q"))
    )
    label = (
        alt.Chart(sets.add([{"limit": 1, "label": "broken for certain above this line"}]))
        .mark_text(align="left", baseline="bottom", dx=4, dy=-3)
        .encode(alt.Y("limit:Q"), x=alt.value(0), text="label:N")
    )
    text = (
        "Evidence that a claim is broken, as the requests came in (infinite, from a request where none may go, is "
        "drawn at ln e = 60). 1 is what the strictest step of Holm's procedure over all claims of the kind asks for."
    )
    return Picture(
        "evidence",
        "How strong is the evidence against it?",
        text,
        finished(alt.layer(rule, label, line, dots), 200, sets),
    )
