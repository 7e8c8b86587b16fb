"""Report → JUnit XML: a case for every claim and every check of validity, as CI servers read it.

Broken is a failure, void and a check that does not hold are errors, undecided is skipped: "cannot tell" is no success
and no failure.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from analysis.findings import BROKEN, SHOWN, UNDECIDED, VOID, Check, Claim
from analysis.render import lines
from analysis.render.json_report import rounded
from analysis.render.text import safe
from analysis.report import Report

_LONG = 2000
OUTCOMES = {BROKEN: "failure", VOID: "error", UNDECIDED: "skipped"}
"""The element that a claim's state becomes; a claim that is shown has none."""


def render_junit(report: Report) -> str:
    """The report as JUnit XML with two suites, `claims` and `validity`."""
    name = f"splitproof.{safe(report.subject.experiment)}"
    suites = [
        _suite("claims", [_claim_case(name, claim) for claim in report.claims], report),
        _suite("validity", [_check_case(name, check) for check in report.checks], report),
    ]
    root = ET.Element(
        "testsuites", {"name": name, **_counts([case for suite in suites for case in suite.iter("testcase")])}
    )
    root.extend(suites)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _counts(cases: Sequence[ET.Element], *, skipped: bool = False) -> dict[str, str]:
    wanted = {"failures": "failure", "errors": "error", **({"skipped": "skipped"} if skipped else {})}
    found = {plural: sum(case.find(one) is not None for case in cases) for plural, one in wanted.items()}
    return {"tests": str(len(cases)), **{name: str(number) for name, number in found.items()}}


def _suite(name: str, cases: Sequence[ET.Element], report: Report) -> ET.Element:
    moment = datetime.fromtimestamp(report.subject.started_us / 1e6, UTC)
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%S")
    suite = ET.Element("testsuite", {"name": name, **_counts(cases, skipped=True), "timestamp": stamp})
    properties = ET.SubElement(suite, "properties")
    told = {
        "verdict": report.verdict.word,
        "cause": report.verdict.cause or "",
        "sentence": report.verdict.sentence,
        "run": report.subject.run,
        "experiment_hash": report.subject.experiment_hash,
    }
    for key, value in told.items():
        ET.SubElement(properties, "property", name=key, value=safe(value, _LONG))
    suite.extend(cases)
    return suite


def _case(classname: str, name: str) -> ET.Element:
    return ET.Element("testcase", classname=classname, name=safe(name, 200))


def _claim_case(suite: str, claim: Claim) -> ET.Element:
    case = _case(f"{suite}.{claim.kind}", claim.id)
    if claim.state != SHOWN:
        kind = claim.cause if claim.state == BROKEN else claim.state
        found = ET.SubElement(case, OUTCOMES[claim.state], type=kind, message=safe(claim.sentence, _LONG))
        found.text = safe(claim.reason or claim.sentence, _LONG)
    ET.SubElement(case, "system-out").text = "\n".join(_figures(claim))
    return case


def _figures(claim: Claim) -> list[str]:
    told = [
        claim.sentence,
        f"required: {'yes' if claim.required else 'no'}",
        f"test: {claim.test}",
        f"null: {claim.null}",
        f"n: {claim.requests} requests",
        f"found: {lines.effect(claim)} ({claim.unit}; {lines.level(claim)})",
    ]
    if claim.interval is not None:
        interval = {"estimate": claim.interval.estimate, "low": claim.interval.low, "high": claim.interval.high}
        told.append(f"interval: {json.dumps(rounded(interval))}")
    told.append(f"evidence: {lines.evidence(claim)}")
    return [safe(line, _LONG) for line in told]


def _check_case(suite: str, check: Check) -> ET.Element:
    case = _case(f"{suite}.validity", check.name)
    if not check.ok:
        touched = f"voids: {', '.join(check.voids) or 'nothing'}; weakens: {', '.join(check.weakens) or 'nothing'}"
        found = ET.SubElement(case, "error", type="validity", message=safe(check.sentence, _LONG))
        found.text = touched
    ET.SubElement(case, "system-out").text = safe(check.sentence, _LONG)
    return case
