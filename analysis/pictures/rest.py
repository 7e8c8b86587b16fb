"""Failures over time, the map of outputs, and the routing with what it did."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from analysis import draws
from analysis.judge import Examined, Found
from analysis.pictures.shown import UNATTRIBUTED
from analysis.pictures.slots import slots
from analysis.tally import OK
from experiments.core.attribution import Reference, attribute
from experiments.core.records import PayloadReference, read_outputs
from experiments.core.routing import Request, matching_route, predict_path

_MOST_DOTS = 300
_MOST_KINDS = 6

Row = dict[str, Any]


def failure_rows(found: Found) -> list[Row]:
    """Failures over time: `at`, `until` (s), `kind`, `failed`; the rarest kinds are put together."""
    cells = found.evidence.tally.judged
    cells = cells[cells["outcome"] != OK]
    fitted = slots(found.periods, found.evidence.registered.batch_seconds)
    common = cells.groupby("outcome")["n"].sum().sort_values(ascending=False, kind="stable").index[:_MOST_KINDS]
    placed = fitted.place(cells.assign(kind=cells["outcome"].where(cells["outcome"].isin(common), "others")))
    sums = placed.groupby(["period", "slot", "kind"])["n"].sum()
    return [
        {"at": fitted.span(period, slot)[0], "until": fitted.span(period, slot)[1], "kind": kind, "failed": int(n)}
        for (period, slot, kind), n in sums.items()
    ]


def signature_rows(found: Found) -> list[Row]:
    """Every distinct output by its distance to the references: `baseline`, `other` (the nearest other arm), `arm`.

    At most 300: what no arm could be named for comes first, the rest is thinned evenly.
    """
    references = found.evidence.references
    if references is None:
        return []
    base = found.subject.baseline
    rows: dict[tuple[str, str], Row] = {}
    for path in found.run.outputs():
        for output in read_outputs(path):
            known = references.payloads.get(output.payload)
            if known is not None and (output.payload, output.signature) not in rows:
                near = _dot(output.values, known, base)
                if near:
                    rows[output.payload, output.signature] = {"payload": output.payload, **near}
    ordered = [rows[key] for key in sorted(rows)]
    strange = _thinned([row for row in ordered if row["arm"] == UNATTRIBUTED], _MOST_DOTS // 2)
    return strange + _thinned([row for row in ordered if row["arm"] != UNATTRIBUTED], _MOST_DOTS - len(strange))


def _dot(values: list[float | None], known: PayloadReference, base: str) -> Row | None:
    vector = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    references = {
        arm: Reference(np.asarray(reference.output, dtype=np.float64), reference.noise)
        for arm, reference in known.arms.items()
    }
    outcome = attribute(vector, references)
    others = {arm: gap for arm, gap in outcome.distances.items() if arm != base}
    if base not in outcome.distances or not others or not np.isfinite(list(outcome.distances.values())).all():
        return None
    return {
        "arm": outcome.arm or UNATTRIBUTED,
        "reason": outcome.reason,
        "baseline": round(outcome.distances[base], 6),
        "other": round(min(others.values()), 6),
    }


def _thinned(rows: list[Row], most: int) -> list[Row]:
    if len(rows) <= most:
        return rows
    return [rows[index] for index in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def route_rows(examined: Examined) -> list[Row]:
    """What each cohort's requests met in each phase: `phase`, `cohort`, `rule`, `arm`, `share`, `n`, `expected`."""
    rows: list[Row] = []
    https = {change.phase: change.http for change in examined.evidence.changes}
    expected = {
        (share.phase, cohort, share.arm): share.expected for share in examined.report.shares for cohort in share.cohorts
    }
    for phase, http in https.items():
        cells = draws.with_arm(examined.evidence.tally.in_phase(phase))
        for name, cohort in examined.experiment.cohorts.items():
            place = matching_route(http, Request(predict_path(examined.experiment.model), cohort.headers))
            sums = cells[cells["cohort"] == name].groupby("arm")["n"].sum()
            rule = _rule(http, place)
            rows += _arrows(sums, {"phase": phase, "cohort": name, "rule": rule}, expected)
    return rows


def _arrows(sums: Any, where: Row, expected: dict[tuple[str, str, str], float | None]) -> Iterator[Row]:
    whole = float(sums.sum())
    configured = {
        arm: share
        for (phase, cohort, arm), share in expected.items()
        if (phase, cohort) == (where["phase"], where["cohort"]) and share
    }
    for arm in sorted({*map(str, sums.index), *configured}):
        n = int(sums.get(arm, 0))
        key = where["phase"], where["cohort"], arm
        yield {
            **where,
            "arm": arm or "unknown",
            "n": n,
            "share": round(n / whole, 4) if whole else None,
            "expected": expected.get(key),
        }


def _rule(http: Any, place: int | None) -> str:
    """What a route asks for, as people say it."""
    if place is None:
        return "no rule"
    blocks = http[place].get("match") or []
    told = [" and ".join(_conditions(block)) for block in blocks]
    return " or ".join(told) if told else "the rest" if place else "every request"


def _conditions(block: Any) -> Iterator[str]:
    for name, match in (block.get("headers") or {}).items():
        yield f"{name} {_match(match)}"
    for name, match in (block.get("withoutHeaders") or {}).items():
        yield f"not {name} {_match(match)}"
    if block.get("uri"):
        yield f"path {_match(block['uri'])}"


def _match(match: Any) -> str:
    kind, value = next(iter((match or {}).items()), ("", "is there"))
    return {"exact": f"= {value}", "prefix": f"starts {value}", "regex": f"~ {value}"}.get(kind, str(value))
