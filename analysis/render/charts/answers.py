"""Failures over time, and every distinct answer by its distance to the references."""

import altair as alt

from analysis.pictures.shown import UNATTRIBUTED, Pictures
from analysis.render.charts.looks import COUNTS, PALETTE, Sets, arm_scale, finished, seconds
from analysis.render.picture import Picture
from analysis.render.text import named, safe
from analysis.report import Subject

_TITLED = 20
"""Letters of a name that the title of an axis has room for."""


def failures(data: Pictures) -> Picture | None:
    """Failed requests over time, by kind; None where nothing failed."""
    sets = Sets()
    if not data.failures:
        return None
    kinds = [named(kind) for kind in sorted({row["kind"] for row in data.failures})]
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
            alt.X("at:Q", axis=seconds(), scale=alt.Scale(nice=False, zero=False)),
            alt.X2("until:Q"),
            alt.Y("below:Q", axis=alt.Axis(title="failed requests", tickMinStep=1, labelExpr=COUNTS)),
            alt.Y2("above:Q"),
            alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=list(PALETTE[1 : len(kinds) + 1]))),
            tooltip=[alt.Tooltip("kind:N"), alt.Tooltip("failed:Q", format=","), alt.Tooltip("at:Q", format=".1f")],
        )
    )
    frame = alt.Chart(sets.add(data.frame)).mark_rect(opacity=0).encode(alt.X("at:Q"), alt.X2("until:Q"))
    return Picture(
        "failures", "Failures over time", "Failed requests by kind.", finished(alt.layer(frame, chart), 160, sets)
    )


def signatures(subject: Subject, data: Pictures) -> Picture | None:
    """Distinct answers by their distance to the references; None without any."""
    sets = Sets()
    if not data.signatures:
        return None
    strange = any(row["arm"] == UNATTRIBUTED for row in data.signatures)
    domain = [*[named(arm) for arm in subject.arms], *([UNATTRIBUTED] if strange else [])]
    base = safe(subject.baseline, _TITLED)
    chart = (
        alt.Chart(sets.add(data.signatures))
        .mark_point(filled=True, size=50, opacity=0.7)
        .encode(
            alt.X("baseline:Q", axis=alt.Axis(title=f"distance to what {base} answers", tickCount=5)),
            alt.Y("other:Q", axis=alt.Axis(title="distance to another arm's answer", tickCount=5)),
            alt.Color("arm:N", scale=arm_scale(subject, strange=strange)),
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
    return Picture("signatures", "Which model gave which answer?", text, finished(chart, 240, sets))
