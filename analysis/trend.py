"""Several runs beside one another: a verdict each, and how every claim's figure went from run to run."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from analysis.judge import judge
from analysis.patience import patience
from analysis.publish import show, write
from analysis.render import lines
from analysis.render.html import render_comparison
from analysis.render.json_report import rounded, schema_of
from analysis.render.markdown import table, text, within_limit
from analysis.render.terminal import print_trend
from analysis.report import Report
from experiments.core.records import RunDir

SCHEMA_VERSION = 1

Row = dict[str, Any]


class Run(msgspec.Struct, frozen=True):
    """One of the runs that are compared, and its verdict."""

    run: str
    experiment: str
    started_us: int
    verdict: str
    cause: str | None
    sentence: str
    exit_code: int


class RunClaim(msgspec.Struct, frozen=True):
    """A claim as one run has it; `at` counts the runs from 1.

    `estimate`, `low` and `high` are in the claim's `unit`, null where there is none.
    """

    at: int
    run: str
    claim: str
    kind: str
    state: str
    unit: str
    estimate: float | None
    low: float | None
    high: float | None
    margin_low: float | None
    margin_high: float | None


class Comparison(msgspec.Struct, frozen=True):
    """Several runs beside one another, in the order in which they were named."""

    schema_version: int
    runs: list[Run]
    claims: list[RunClaim]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a comparison, from the types that make it; shipped as `analysis/comparison.schema.json`."""
    return schema_of(Comparison, "Splitproof comparison of runs")


def compare(runs: Sequence[RunDir], wanted: Mapping[str, Path], *, quiet: bool = False) -> int:
    """Judge runs, print and write their comparison, and return the exit code of the last one's verdict.

    Raises:
        RecordsError: a run cannot be read, or a file not be written.
        click.UsageError: a form that shows one run only was asked for.
    """
    unknown = sorted(set(wanted) - set(RENDERERS))
    if unknown:
        raise click.UsageError(f"--{unknown[0]} shows one run; name one, or ask for {', '.join(sorted(RENDERERS))}.")
    reports = []
    with patience() as told:
        for run in runs:
            told.doing(f"judging {run.path}")
            reports.append(judge(run))
    if not write(dict(wanted), lambda form: RENDERERS[form](reports)):
        for report in reports if quiet else []:
            show(report, quiet=True)
        if not quiet:
            print_trend(reports, trend(reports), sys.stdout)
    return int(reports[-1].verdict.exit_code)


def trend(reports: Sequence[Report]) -> list[Row]:
    """A row for each claim of each run, in the order of the runs.

    `at` counts runs from 1; `estimate`, `low` and `high` are in the claim's `unit`, None where there is none.
    """
    return [
        {
            "at": place,
            "run": report.subject.run,
            "claim": claim.id,
            "kind": claim.kind,
            "state": claim.state,
            "unit": claim.unit,
            "estimate": claim.interval.estimate if claim.interval else None,
            "low": claim.interval.low if claim.interval else None,
            "high": claim.interval.high if claim.interval else None,
            "margin_low": claim.margin_low,
            "margin_high": claim.margin_high,
            "told": lines.effect(claim),
        }
        for place, report in enumerate(reports, 1)
        for claim in report.claims
    ]


def _json(reports: Sequence[Report]) -> str:
    told = [
        Run(
            run=report.subject.run,
            experiment=report.subject.experiment,
            started_us=report.subject.started_us,
            verdict=report.verdict.word,
            cause=report.verdict.cause,
            sentence=report.verdict.sentence,
            exit_code=report.verdict.exit_code,
        )
        for report in reports
    ]
    claims = [RunClaim(**{key: value for key, value in row.items() if key != "told"}) for row in trend(reports)]
    value = rounded(msgspec.to_builtins(Comparison(SCHEMA_VERSION, told, claims)))
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _markdown(reports: Sequence[Report]) -> str:
    runs = [
        (str(place), one.subject.run, one.verdict.word, one.verdict.sentence) for place, one in enumerate(reports, 1)
    ]
    rows = [(row["claim"], str(row["at"]), row["state"], row["told"]) for row in _by_claim(trend(reports))]
    head = f"## {text(reports[-1].verdict.sentence, 600)}"
    parts = [head, table(("", "run", "verdict", "sentence"), runs), table(("claim", "run", "state", "found"), rows)]
    return within_limit(parts[:1], [part for part in parts[1:] if part])


def _by_claim(rows: Sequence[Row]) -> list[Row]:
    order = {claim: place for place, claim in enumerate(dict.fromkeys(row["claim"] for row in rows))}
    return sorted(rows, key=lambda row: (order[row["claim"]], row["at"]))


def _html(reports: Sequence[Report]) -> str:
    return render_comparison(reports, _by_claim(trend(reports)))


RENDERERS = {"json": _json, "markdown": _markdown, "html": _html}
