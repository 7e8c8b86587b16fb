"""Report → JSON: every number to 12 significant digits, the same bytes for the same report."""

import json
import math
from pathlib import Path
from typing import Any

import msgspec

from analysis.report import Report

SCHEMA_FILE = Path(__file__).resolve().parent.parent / "report.schema.json"
_DIGITS = 12


def render_json(report: Report) -> str:
    """The report as JSON text; its JSON Schema is `analysis/report.schema.json`."""
    return json.dumps(rounded(msgspec.to_builtins(report)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def rounded(value: Any) -> Any:
    """Floats to 12 significant digits; what is no finite number becomes null.

    >>> rounded({"a": [1 / 3, float("nan")]})
    {'a': [0.333333333333, None]}
    """
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a report, from the types that make it."""
    return schema_of(Report, "Splitproof report")


def schema_of(kind: type[msgspec.Struct], title: str) -> dict[str, Any]:
    """The JSON Schema of what one of our types is written as."""
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **schema,
        "$defs": dict(sorted(components.items())),
    }
