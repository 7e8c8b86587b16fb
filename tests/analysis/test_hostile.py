"""Nobody's words run, break a layout or make a form invalid: every string in every place in every form."""

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import jsonschema
import pyarrow.parquet as pq
import pytest
from lxml import etree
from markdown_it import MarkdownIt

from analysis import trend
from analysis.judge import examine
from analysis.publish import RENDERERS, Subject
from analysis.render.annotations import render_annotations
from analysis.render.html import LIMIT_BYTES, render_comparison, render_html
from analysis.render.json_report import json_schema, render_json
from analysis.render.junit import render_junit
from analysis.render.markdown import LIMIT_BYTES as MARKDOWN_LIMIT
from analysis.render.markdown import render_markdown
from analysis.render.terminal import print_report, print_trend
from tests.analysis.hostile import HOSTILE, everywhere
from tests.analysis.synthetic import Layout, Truth, misrouted, write_run

pytestmark = pytest.mark.usefixtures("light")
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
TRUTH = replace(misrouted("dark-launch", {"old": 0.98, "new": 0.02}), failing={"new": 0.1}, unheard=0.01, garbled=0.01)


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return Subject(examine(write_run(tmp_path_factory.mktemp("run"), truth=TRUTH)))


class Seen(HTMLParser):
    """Elements, what they would run or fetch, and how many cells each row of a table has."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.handlers, self.links, self.rows = {}, [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.elements[tag] = self.elements.get(tag, 0) + 1
        self.handlers += [name for name in given if name.startswith("on")]
        self.links += [given[name] for name in ("href", "src", "action", "srcset", "data") if name in given]
        if tag == "table":
            self.rows.append([])
        elif tag == "tr":
            self.rows[-1].append(0)
        elif tag in ("td", "th"):
            self.rows[-1][-1] += 1


def layout_of(page):
    """What may not depend on anybody's words."""
    return page.elements, page.handlers, page.links, page.rows


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_page_has_the_same_elements_whoever_is_named(subject, text):
    plain = Seen(render_html(everywhere(subject.report, "plain"), None))
    page = render_html(everywhere(subject.report, text), None)
    assert layout_of(Seen(page)) == layout_of(plain)
    assert not UNSEEN.search(page.replace("\n", "").replace("\t", ""))
    assert len(page.encode()) < LIMIT_BYTES


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_comparison_has_the_same_elements_whoever_is_named(subject, text):
    def page(words):
        reports = [everywhere(subject.report, words)] * 2
        return render_comparison(reports, trend.trend(reports))

    assert layout_of(Seen(page(text))) == layout_of(Seen(page("plain")))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_markdown_as_a_renderer_of_it_sees_it(subject, text):
    """With raw HTML allowed, which is more than GitHub does."""
    renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

    def seen(words):
        return Seen(renderer.render(render_markdown(everywhere(subject.report, words))))

    found, plain = seen(text), seen("plain")
    assert (found.handlers, found.links) == ([], [])
    assert set(found.elements) <= set(plain.elements)
    assert all(len(set(rows)) == 1 for rows in found.rows)
    if len(text) < 1000:  # of a very long text whole sections are left out
        assert layout_of(found) == layout_of(plain)
    assert len(render_markdown(everywhere(subject.report, text)).encode()) <= MARKDOWN_LIMIT


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_terminals_junit_json_and_annotations(subject, text):
    report = everywhere(subject.report, text)
    for encoding, width in (("utf-8", 80), ("ascii", 120)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace", newline="\n")
        print_report(report, stream, width=width)
        print_trend([report, report], trend.trend([report, report]), stream, width)
        stream.flush()
        assert not UNSEEN.search(stream.buffer.getvalue().decode(encoding).replace("\n", ""))
    plain = etree.fromstring(render_junit(everywhere(subject.report, "plain")).encode())
    xml = etree.fromstring(render_junit(report).encode())
    assert [one.tag for one in xml.iter()] == [one.tag for one in plain.iter()]
    told = json.loads(render_json(report))
    jsonschema.validate(told, json_schema())
    assert told["claims"][0]["sentence"] == text
    commands = render_annotations(report).splitlines()
    assert len(commands) == len(render_annotations(everywhere(subject.report, "plain")).splitlines())
    assert all(re.match(r"::(error|warning|notice) title=[^:,]*::", line) for line in commands)


@pytest.mark.parametrize(
    "text", [text for text in HOSTILE if "\x00" not in text], ids=lambda text: text[:8].encode().hex()
)
@pytest.mark.slow
def test_rows_with_such_words_are_read_counted_and_shown_in_every_form(tmp_path, text):
    """From the records on: payload, error class, route header."""
    run = write_run(tmp_path, truth=replace(Truth(), failing={"new": 0.02, "old": 0.02}), layout=Layout(workers=2))
    for path in (*run.shards(), *run.outputs(), run.references):
        written = path.read_text()
        for word in ('"http-503"', '"cat"', '"split/new"'):
            written = written.replace(word, json.dumps(text))
        path.write_text(written)
    subject = Subject(examine(run))
    told = json.loads(RENDERERS["json"](subject))
    assert any(text in row["classes"] for row in told["failures"])
    forms = {form: render(subject) for form, render in RENDERERS.items()}
    page = Seen(forms["html"])
    assert page.elements["script"] == 3
    assert (page.handlers, set(page.links) - {"data:,"}) == ([], {"#main"})
    etree.fromstring(forms["junit"].encode())
    rows = list(csv.DictReader(io.StringIO(forms["csv"].decode())))
    assert {None} & set(rows[0]) == set()
    assert sum(int(row["requests"]) for row in rows) == told["records"]["requests"]
    assert not any(value.startswith(("=", "+", "@")) for row in rows for value in row.values())
    outcomes = set(pq.read_table(io.BytesIO(forms["parquet"]))["outcome"].to_pylist())
    assert text in outcomes
