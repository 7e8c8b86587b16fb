"""Reports as people and machines get them: same bytes, valid, safe, legible at any width."""

import io
import json
import os
import re
from dataclasses import replace

import jsonschema
import msgspec
import pytest

from analysis.judge import judge
from analysis.render import lines
from analysis.render.json_report import SCHEMA_FILE, json_schema, render_json
from analysis.render.markdown import LIMIT_BYTES, render_markdown
from analysis.render.terminal import print_report
from analysis.render.text import interval_bar, safe
from analysis.report import Report
from tests.analysis.hostile import HOSTILE
from tests.analysis.synthetic import Layout, Truth, misrouted, write_run


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """One report of each kind."""
    kinds = {
        "promote": (Truth(), Layout()),
        "roll back": (replace(misrouted("dark-launch", {"old": 0.98, "new": 0.02}), failing={"new": 0.1}), Layout()),
        "invalid": (Truth(), Layout(trailers=False, torn=True)),
        "hold": (Truth(failing={"new": 0.02}), Layout()),
    }
    return {
        word: judge(write_run(tmp_path_factory.mktemp("run"), truth=truth, layout=layout))
        for word, (truth, layout) in kinds.items()
    }


def printed(report, width=100, encoding="utf-8", **options):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline="\n")
    print_report(report, stream, width=width, **options)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def hostile(report: Report, text: str) -> Report:
    """The report with that text wherever somebody else's words can be."""
    claims = [msgspec.structs.replace(claim, sentence=text, id=text, reason=text) for claim in report.claims]
    failures = [msgspec.structs.replace(row, arm=text, classes={text: 3}) for row in report.failures]
    shares = [msgspec.structs.replace(share, phase=text, cohorts=[text], arm=text) for share in report.shares]
    checks = [msgspec.structs.replace(check, sentence=text) for check in report.checks]
    verdict = msgspec.structs.replace(report.verdict, sentence=text)
    return msgspec.structs.replace(
        report, claims=claims, failures=failures, shares=shares, checks=checks, verdict=verdict, remarks=[text]
    )


def test_all_four_verdicts_are_rendered(reports):
    assert {word: report.verdict.word for word, report in reports.items()} == {word: word for word in reports}
    for report in reports.values():
        assert printed(report).splitlines()[0].strip()
        assert render_markdown(report).startswith("## ")


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_line_is_wider_than_the_terminal(reports, width):
    for report in reports.values():
        assert max(map(len, printed(report, width).splitlines())) <= width


def test_no_number_of_a_latency_is_cut_in_two_where_names_are_long(reports):
    """`1,394-1,55` on one line and `0` on the next would be another number."""

    def slow(row):
        ends = {
            name: msgspec.structs.replace(one, low=60 * one.low, high=60 * one.high)
            for name, one in row.intervals_us.items()
        }
        names = {"phase": "rollout-of-week-14", "arm": "canary-of-recommendations-2026-11-rc2"}
        return msgspec.structs.replace(row, **names, intervals_us=ends)

    report = reports["promote"]
    report = msgspec.structs.replace(report, latencies=[slow(row) for row in report.latencies])
    text = printed(report, 80)
    shown = [lines.quantile_between(row, name) for row in report.latencies for name in row.intervals_us]
    assert len(shown) > 8
    assert max(map(len, shown)) >= len("1,394–1,550")
    for one in shown:
        assert re.search(rf"(?<![\d,.]){re.escape(one)}(?![\d,.])", text), one
    assert max(map(len, text.splitlines())) <= 80


def test_the_verdict_comes_first_and_quiet_is_only_that(reports):
    for report in reports.values():
        (line,) = printed(report, 80, quiet=True).splitlines()
        text = " ".join(line.split())
        assert text == " ".join(report.verdict.sentence.split())
        assert " ".join(printed(report).split()).startswith(text)


def test_streams_without_unicode_get_ascii_bars(reports):
    bar = interval_bar(0.1, 0.9, (0.5, 0.5), ascii_only=True)
    assert bar.isascii()
    text = printed(reports["promote"], 120, encoding="latin-1")
    assert "·" not in text
    assert "..-#" in text or "-#-" in text or "#" in text


def test_streams_with_few_signs_lack_none_that_matters(reports):
    """Strict ones too: a sign that an encoding lacks is no error."""
    for report in reports.values():
        for encoding in ("ascii", "latin-1", "cp1252"):
            text = printed(report, 80, encoding=encoding)
            assert "?" not in text.replace("may this be judged?", "").replace("(killed?)", "")
            assert max(map(len, text.splitlines())) <= 80
    assert "+/- 10 pp" in printed(reports["promote"], 80, encoding="ascii")


def test_a_pipe_gets_no_colour(reports):
    assert "\x1b" not in printed(reports["roll back"])


def test_a_reader_that_goes_away_does_not_end_the_process(reports):
    """Rich would end it with 1, which means roll back."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        print_report(reports["promote"], stream)


def test_json_is_valid_and_says_the_same_numbers(reports):
    schema = json.loads(SCHEMA_FILE.read_text())
    for report in reports.values():
        decoded = json.loads(render_json(report))
        jsonschema.validate(decoded, schema)
        assert decoded["verdict"]["word"] == report.verdict.word
        for claim, given in zip(decoded["claims"], report.claims, strict=True):
            if given.interval is not None and given.interval.estimate is not None:
                assert claim["interval"]["estimate"] == pytest.approx(given.interval.estimate, rel=1e-11)


def test_the_shipped_schema_is_current():
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema()


def test_markdown_says_the_numbers_of_the_json(reports):
    report = reports["promote"]
    text = render_markdown(report)
    for share in report.shares:
        assert f"{share.requests:,}" in text
    for row in report.latencies:
        assert f"{row.requests:,}" in text


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_words_change_nothing_but_themselves(reports, text):
    report = hostile(reports["roll back"], text)
    markdown = render_markdown(report)
    assert len(markdown.encode()) <= LIMIT_BYTES
    assert "<script" not in markdown
    assert "\x1b" not in markdown
    assert "\u202e" not in markdown
    assert not re.search(r"(?<!\\)\]\(", markdown)
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    columns = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    assert min(columns) >= 3
    for width in (80, 120):
        shown = printed(report, width)
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert max(map(len, shown.splitlines())) <= width
    assert json.loads(render_json(report))["verdict"]["sentence"] == text


def test_markdown_of_very_many_claims_stays_small(reports):
    report = reports["promote"]
    many = msgspec.structs.replace(report, claims=report.claims * 400, shares=report.shares * 400)
    text = render_markdown(many)
    assert len(text.encode()) <= LIMIT_BYTES
    assert "more in report.json" in text


def test_safe_keeps_ordinary_words():
    assert safe("ResNet50 für Ära, 30 %") == "ResNet50 für Ära, 30 %"
