"""The forms for browsers, CI servers and notebooks: valid, safe, and with the same numbers as the JSON."""

import csv
import io
import json
import re
import socket
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from html.parser import HTMLParser

import msgspec
import pyarrow.parquet as pq
import pytest
from lxml import etree

from analysis import adapters, words
from analysis.judge import examine
from analysis.pictures.data import sheets
from analysis.publish import Subject
from analysis.render import runtime
from analysis.render.annotations import render_annotations
from analysis.render.cells import sections
from analysis.render.html import LIMIT_BYTES, draw, render_html
from analysis.render.json_report import render_json
from analysis.render.junit import render_junit
from analysis.render.markdown import render_markdown
from analysis.render.tallies import render_csv, render_parquet
from analysis.tally import Tally
from experiments.core.records import RunDir
from tests.analysis import browser, gallery
from tests.analysis.hostile import HOSTILE
from tests.analysis.synthetic import Layout, Truth, misrouted, write_run
from tests.analysis.test_renderings import hostile

pytestmark = pytest.mark.usefixtures("light")

QUANTILES = ("p50", "p90", "p95", "p99")
BASE_KINDS = {
    "promote": (Truth(), Layout()),
    "roll back": (replace(misrouted("dark-launch", {"old": 0.98, "new": 0.02}), failing={"new": 0.1}), Layout()),
    "routing": (misrouted("dark-launch", {"old": 0.9, "new": 0.1}), Layout()),
    "invalid": (Truth(), Layout(trailers=False, torn=True)),
    "hold": (Truth(failing={"new": 0.02}), Layout()),
}

# The elements and attributes of the format that Jenkins, GitLab and GitHub's reporters read, in our own words.
JUNIT = etree.XMLSchema(
    etree.XML("""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
<xs:complexType name="outcome"><xs:simpleContent><xs:extension base="xs:string">
 <xs:attribute name="type" type="xs:string"/><xs:attribute name="message" type="xs:string" use="required"/>
</xs:extension></xs:simpleContent></xs:complexType>
<xs:attributeGroup name="counts"><xs:attribute name="name" type="xs:string" use="required"/>
 <xs:attribute name="tests" type="xs:nonNegativeInteger" use="required"/>
 <xs:attribute name="failures" type="xs:nonNegativeInteger" use="required"/>
 <xs:attribute name="errors" type="xs:nonNegativeInteger" use="required"/></xs:attributeGroup>
<xs:element name="testsuites"><xs:complexType><xs:sequence>
 <xs:element name="testsuite" maxOccurs="unbounded"><xs:complexType><xs:sequence>
  <xs:element name="properties"><xs:complexType><xs:sequence><xs:element name="property" maxOccurs="unbounded">
   <xs:complexType><xs:attribute name="name" type="xs:string" use="required"/>
   <xs:attribute name="value" type="xs:string" use="required"/></xs:complexType></xs:element></xs:sequence>
   </xs:complexType>
  </xs:element>
  <xs:element name="testcase" minOccurs="0" maxOccurs="unbounded"><xs:complexType><xs:sequence>
   <xs:choice minOccurs="0"><xs:element name="failure" type="outcome"/><xs:element name="error" type="outcome"/>
    <xs:element name="skipped" type="outcome"/></xs:choice>
   <xs:element name="system-out" type="xs:string"/></xs:sequence>
   <xs:attribute name="classname" type="xs:string" use="required"/>
   <xs:attribute name="name" type="xs:string" use="required"/></xs:complexType></xs:element>
 </xs:sequence><xs:attributeGroup ref="counts"/><xs:attribute name="skipped" type="xs:nonNegativeInteger"/>
 <xs:attribute name="timestamp" type="xs:dateTime"/></xs:complexType></xs:element>
</xs:sequence><xs:attributeGroup ref="counts"/></xs:complexType></xs:element></xs:schema>""")
)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """One judged run of each kind; pictures without their runtime, which takes seconds to put together."""
    made = {}
    for kind, (truth, layout) in BASE_KINDS.items():
        folder = tmp_path_factory.mktemp("runs") / kind.replace(" ", "-")
        made[kind] = Subject(examine(write_run(folder, truth=truth, layout=layout)))
    return made


class Page(HTMLParser):
    """The tables of a page by their names, and the elements that could run something."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.scripts, self.handlers, self.links = {}, 0, [], []
        self.below, self.small, self.is_small = {}, None, False
        self.rows, self.cell = None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.scripts += tag == "script"
        self.handlers += [name for name in given if name.startswith("on")]
        self.links += [given[name] for name in ("href", "src", "action") if name in given]
        if tag == "table":
            self.rows = self.tables.setdefault(given["data-table"], [])
            self.small = self.below.setdefault(given["data-table"], [])
        elif tag == "small":
            self.is_small = True
        elif tag == "tr" and self.rows is not None:
            self.rows.append([])
        elif tag == "td":
            self.cell = given.get("data-value")
            self.rows[-1].append(self.cell)

    def handle_data(self, data):
        if self.is_small:
            self.small.append(data)
            self.is_small = False


def short(interval):
    """An interval as tables show it: three digits of milliseconds."""
    low, high = (words.milliseconds(interval[end]).removesuffix(" ms") for end in ("low", "high"))
    return f"{low} or more" if interval["high"] is None else f"{low}–{high}"


@pytest.mark.parametrize("kind", BASE_KINDS)
def test_junit_is_valid_and_counts_what_it_holds(subjects, kind):
    report = subjects[kind].report
    root = etree.fromstring(render_junit(report).encode())
    JUNIT.assertValid(root)
    outcomes = {"broken": "failure", "void": "error", "undecided": "skipped", "shown": None}
    cases = root.xpath("testsuite[@name='claims']/testcase")
    found = [next((child.tag for child in case if child.tag != "system-out"), None) for case in cases]
    assert found == [outcomes[claim.state] for claim in report.claims]
    checks = root.xpath("testsuite[@name='validity']/testcase")
    assert [case.find("error") is None for case in checks] == [check.ok for check in report.checks]
    assert int(root.get("errors")) == len(root.findall(".//error"))
    assert int(root.get("failures")) == len(root.findall(".//failure"))


@pytest.mark.slow
@browser.installed
def test_junit_is_valid_by_the_schema_of_jenkins(subjects, tmp_path):
    schema = etree.XMLSchema(etree.parse(browser.JUNIT_SCHEMA))
    reports = [subject.report for subject in subjects.values()]
    reports += [examine(gallery.KINDS[name](tmp_path / name)).report for name in ("empty", "one-arm", "ten-arms")]
    seen = set()
    for report in reports:
        root = etree.fromstring(render_junit(report).encode())
        schema.assertValid(root)
        seen |= {element.tag for element in root.iter()}
    assert {"failure", "error", "skipped", "system-out", "property"} <= seen
    root.find("testsuite").tag = "suite"
    assert not schema.validate(root)


@pytest.mark.parametrize("kind", BASE_KINDS)
def test_all_forms_say_the_numbers_of_the_json(subjects, kind):
    report = subjects[kind].report
    told = json.loads(render_json(report))
    page = Page(render_html(report, None))
    tables = page.tables
    shares = [[float(value) if value else None for value in row[3:6]] for row in tables["Shares"] if row]
    assert shares == [[s["expected"], s["share"]["estimate"], s["requests"]] for s in told["shares"]]
    means = [(float(row[2]), float(row[3])) for row in tables["Latency of successful answers"] if row]
    assert means == [(row["requests"], row["mean_us"]) for row in told["latencies"]]
    assert any(row["intervals_us"] for row in told["latencies"])
    below = [page.below[name] for name in ("Latency of successful answers", "Latency from the intended start")]
    wanted = [
        [short(row["intervals_us"][name]) for row in rows for name in QUANTILES if name in row["intervals_us"]]
        for rows in (told["latencies"], told["waited"])
    ]
    assert below == wanted
    failed = [(float(row[2]), float(row[3])) for row in tables["Failures by routed arm"] if row]
    assert failed == [(row["failed"], row["requests"]) for row in told["failures"]]
    outs = etree.fromstring(render_junit(report).encode()).xpath("testsuite[@name='claims']/testcase/system-out/text()")
    intervals = [json.loads(found[1]) if (found := re.search("interval: (.*)", out)) else None for out in outs]
    wanted = ("estimate", "low", "high")
    assert intervals == [
        {key: claim["interval"][key] for key in wanted} if claim["interval"] else None for claim in told["claims"]
    ]


def test_tallies_count_every_request_in_both_forms(subjects):
    subject = subjects["roll back"]
    told = json.loads(render_json(subject.report))["records"]
    rows = list(csv.DictReader(io.StringIO(render_csv(subject.examined).decode())))
    by_standing = {
        name: sum(int(r["requests"]) for r in rows if r["standing"] == name) for name in ("judged", "warm-up")
    }
    assert by_standing == {"judged": told["judged"], "warm-up": told["warm_up"]}
    table = pq.read_table(io.BytesIO(render_parquet(subject.examined)))
    assert sum(table["requests"].to_pylist()) == told["requests"]
    assert table.num_rows == len(rows)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_words_stay_words(subjects, text):
    report = hostile(subjects["roll back"].report, text)
    page = Page(render_html(report, None))
    assert (page.scripts, page.handlers) == (2, [])
    assert {link for link in page.links if not link.startswith("#")} == {"data:,"}
    JUNIT.assertValid(etree.fromstring(render_junit(report).encode()))
    commands = render_annotations(report)
    assert all(line.startswith("::") for line in commands.splitlines())
    for form in (render_html(report, None), render_junit(report), commands):
        assert "\x1b" not in form
        assert "\u202e" not in form


def pictured(subject, name):
    """All rows of one picture."""
    return [row for sheet in sheets(subject.examined) for row in getattr(sheet.rows, name)]


def test_hostile_names_in_pictures_cannot_end_their_script(subjects):
    bad = "</script><script>alert(1)</script>"
    asked = [
        replace(sheet, rows=replace(sheet.rows, shares=[{**row, "cohort": bad} for row in sheet.rows.shares]))
        for sheet in sheets(subjects["promote"].examined)
    ]
    page = Page(render_html(subjects["promote"].report, draw(asked)))
    assert page.scripts == 3


def test_a_page_says_why_it_has_no_pictures_and_stays_small(subjects, monkeypatch):
    monkeypatch.setattr(runtime, "available", lambda: False)
    report = subjects["promote"].report
    many = msgspec.structs.replace(report, shares=report.shares * 800, claims=report.claims * 300)
    text = render_html(many, draw(sheets(subjects["promote"].examined)))
    assert "extra `pictures`" in text
    assert len(text.encode()) < LIMIT_BYTES
    assert "more in report.json" in text


def test_tables_of_the_page_sort_by_the_numbers_of_the_report_and_note_only_what_is_there(subjects):
    report = subjects["promote"].report
    tables = {one.title: one for one in sections(report)}
    claims, drawn = tables["Claims"], tables["Were arms drawn independently?"]
    assert [row[3].value for row in claims.rows] == [claim.interval.low for claim in report.claims]
    assert [row[4].value for row in drawn.rows] == [pytest.approx(one.index) for one in report.dispersions]
    assert drawn.rows
    assert "(*)" in claims.caption
    required = [msgspec.structs.replace(claim, required=True) for claim in report.claims]
    assert sections(msgspec.structs.replace(report, claims=required))[0].caption == ""


def test_pictures_agree_with_the_report(subjects):
    for subject in (subjects["promote"], subjects["roll back"]):
        last = {}
        for row in pictured(subject, "shares"):
            last[row["phase"], row["cohort"], row["arm"]] = row
        for share in subject.report.shares:
            row = last[share.phase, share.cohorts[0], share.arm]
            assert row["n"] == share.requests
            assert row["share"] == pytest.approx(share.share.estimate, abs=1e-5)
            assert (row["low"], row["high"]) == pytest.approx((share.share.low, share.share.high), abs=2e-5)
        counted = subject.examined.evidence.tally.judged
        failed = int(counted[counted["outcome"] != "ok"]["n"].sum())
        assert sum(row["failed"] for row in pictured(subject, "failures")) == failed
        for row in pictured(subject, "quantiles"):
            if row["start"] == "actual" and row["p"] == "p50":
                found = next(o for o in subject.report.latencies if (o.phase, o.arm) == (row["phase"], row["arm"]))
                assert row["ms"] == pytest.approx(found.quantiles_us["p50"] / 1000, rel=1e-3)
                between = found.intervals_us["p50"]
                assert (row["low"] is None) == (between.high is None)
                assert row["low"] is None or row["low"] <= row["ms"] <= row["high"]


@pytest.fixture
def endpoint(subjects, tmp_path):
    """Our endpoint over one experiment for each kind of verdict, and Flagger's part: POST, and look at the status."""
    for kind, subject in subjects.items():
        place = tmp_path / kind.replace(" ", "-")
        place.mkdir()
        (place / "20260101T000000Z-aaaa").symlink_to(subject.examined.run.path)
    server = adapters.server(tmp_path, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def call(path, **metadata):
        body = json.dumps({"name": "tf", "namespace": "default", "phase": "Progressing", "metadata": metadata}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{server.server_address[1]}{path}", body)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    yield call
    server.shutdown()
    server.server_close()


def test_the_endpoint_refuses_what_it_does_not_know(endpoint):
    assert endpoint("/flagger/confirm", experiment="../..")[0] == 404
    assert endpoint("/flagger/confirm", experiment="absent")[0] == 404
    assert endpoint("/elsewhere", experiment="promote")[0] == 404


def test_a_metric_that_finds_no_run_yet_pauses_and_is_no_error(endpoint):
    assert endpoint("/verdict", experiment="absent") == (
        200,
        {"action": "pause", "sentence": "absent: no run yet; run the experiment first."},
    )


@pytest.mark.parametrize("length", ["-1", "many", "²"])
def test_a_body_of_no_length_is_refused(length, tmp_path):
    server = adapters.server(tmp_path, "127.0.0.1", 0)
    thread = threading.Thread(target=server.handle_request, daemon=True)
    thread.start()
    with socket.create_connection(server.server_address, 10) as caller:
        caller.sendall(f"POST /verdict HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode("latin-1"))
        assert b" 400 " in caller.recv(1000).splitlines()[0]
    thread.join()
    server.server_close()


def test_an_argo_job_ends_only_where_something_must_be_done(subjects, tmp_path):
    runs = {kind: subject.examined.run for kind, subject in subjects.items()}
    assert adapters.gate(lambda: runs["promote"], 0.1, None) == 0
    assert adapters.gate(lambda: runs["roll back"], 0.1, None) == 1
    later = iter([runs["routing"], runs["promote"]])
    assert adapters.gate(lambda: next(later), 0.1, None) == 0
    assert adapters.gate(lambda: runs["hold"], 0.1, 0) == 3
    assert adapters.gate(lambda: runs["routing"], 0.1, 0) == 3
    assert adapters.gate(lambda: RunDir(tmp_path), 0.1, 0) == 2
    soon = iter([RunDir(tmp_path), runs["promote"]])
    assert adapters.gate(lambda: next(soon), 0.1, None) == 0


def test_a_run_of_no_request_has_the_same_columns(subjects):
    examined = subjects["promote"].examined
    evidence = replace(examined.evidence, tally=Tally(examined.evidence.tally.cells[:0]))
    nothing = replace(examined, found=replace(examined.found, evidence=evidence))
    assert render_csv(nothing).count(b"\n") == 1
    empty, full = (pq.read_table(io.BytesIO(render_parquet(one))).schema for one in (nothing, examined))
    assert empty == full


def test_markdown_has_its_limit_whatever_the_claims_say(subjects):
    report = subjects["promote"].report
    many = [msgspec.structs.replace(report.claims[0], sentence="<" * 400)] * 60
    text = render_markdown(msgspec.structs.replace(report, claims=many))
    assert len(text.encode()) <= 60_000
    assert "left out for length" in text


def test_shares_in_pictures_are_worth_what_they_are_worth_in_the_table(tmp_path):
    """Arms that come in clumps: fewer requests count, in both."""
    clumps = replace(
        Truth(), picks=lambda sequence, phase, _: ("old", "new")[sequence // 80 % 3 == 0] if phase == "split" else None
    )
    subject = Subject(examine(write_run(tmp_path, truth=clumps)))
    (share,) = [
        one for one in subject.report.shares if (one.phase, one.arm, one.cohorts) == ("split", "new", ["everyone"])
    ]
    row = [
        one
        for one in pictured(subject, "shares")
        if (one["phase"], one["arm"], one["cohort"]) == ("split", "new", "everyone")
    ][-1]
    assert share.share.high - share.share.low > 0.1
    assert (row["low"], row["high"]) == pytest.approx((share.share.low, share.share.high), abs=2e-5)
