"""What others have written programs against stays: no key goes away or changes its type within a schema version.

`frozen/` holds what an earlier version wrote, and the schemas that it wrote by. A change that must break them raises
`schema_version`, and freezes the new one beside the old.
"""

import copy
import json

import jsonschema
import pytest

from analysis import look, report, trend
from analysis.render import json_report
from experiments.core.home import CHECKOUT

FROZEN = CHECKOUT / "tests" / "analysis" / "frozen"
FORMS = {
    "report": (report.SCHEMA_VERSION, json_report.json_schema()),
    "look": (look.SCHEMA_VERSION, look.json_schema()),
    "comparison": (trend.SCHEMA_VERSION, trend.json_schema()),
}
TOLD = ("title", "description", "default")
"""What a schema says to people, which may change."""


def frozen(form, kind):
    version, _ = FORMS[form]
    return json.loads((FROZEN / f"{form}-v{version}.{kind}").read_text(encoding="utf-8"))


def shape(schema):
    """A schema without what it says to people."""
    if isinstance(schema, dict):
        return {key: shape(one) for key, one in schema.items() if key not in TOLD}
    return [shape(one) for one in schema] if isinstance(schema, list) else schema


def breaks(old, new):
    """What of an old schema a new one no longer keeps; what is new must not be needed."""
    found = [] if old.get("$ref") == new.get("$ref") else ["another type at the top"]
    for name, before in old["$defs"].items():
        after = new["$defs"].get(name)
        if after is None:
            found.append(f"{name} is gone")
            continue
        for key, kind in before["properties"].items():
            if key not in after["properties"]:
                found.append(f"{name}.{key} is gone")
            elif shape(kind) != shape(after["properties"][key]):
                found.append(f"{name}.{key} is of another type")
        needed = set(before.get("required", [])), set(after.get("required", []))
        found += [f"{name}.{key} may be missing now" for key in sorted(needed[0] - needed[1])]
        found += [f"{name}.{key} is needed now" for key in sorted(needed[1] - needed[0])]
    return found


@pytest.mark.parametrize("form", FORMS)
def test_what_an_earlier_version_wrote_is_valid_today(form):
    _, schema = FORMS[form]
    jsonschema.validate(frozen(form, "json"), schema)


@pytest.mark.parametrize("form", FORMS)
def test_no_key_goes_away_or_changes_its_type_within_a_version(form):
    _, schema = FORMS[form]
    assert breaks(frozen(form, "schema.json"), schema) == [], "raise schema_version, and freeze what is written then"


def without(schema):
    del schema["$defs"]["Claim"]["properties"]["phase"]


def narrowed(schema):
    schema["$defs"]["Claim"]["properties"]["phase"] = {"type": "string"}


def deep(schema):
    schema["$defs"]["Latency"]["properties"]["quantiles_us"]["additionalProperties"] = {"type": "integer"}


def needed(schema):
    schema["$defs"]["Claim"]["required"].append("certain")


def no_longer_needed(schema):
    schema["$defs"]["Share"]["required"].remove("count")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without, "Claim.phase is gone"),
        (narrowed, "Claim.phase is of another type"),
        (deep, "Latency.quantiles_us is of another type"),
        (needed, "Claim.certain is needed now"),
        (no_longer_needed, "Share.count may be missing now"),
        (lambda schema: schema["$defs"].pop("Need"), "Need is gone"),
    ],
)
def test_a_break_would_be_noticed(change, said):
    changed = copy.deepcopy(json_report.json_schema())
    change(changed)
    assert breaks(frozen("report", "schema.json"), changed) == [said]


def test_what_is_new_and_not_needed_breaks_nothing():
    changed = copy.deepcopy(json_report.json_schema())
    changed["$defs"]["Claim"]["properties"]["colour"] = {"type": "string"}
    changed["$defs"]["Claim"]["description"] = "Other words."
    changed["$defs"]["New"] = {"type": "object", "properties": {}}
    assert breaks(frozen("report", "schema.json"), changed) == []


@pytest.mark.parametrize("form", FORMS)
def test_the_shipped_schema_is_the_one_of_the_code(form):
    _, schema = FORMS[form]
    assert json.loads((CHECKOUT / "analysis" / f"{form}.schema.json").read_text(encoding="utf-8")) == schema
