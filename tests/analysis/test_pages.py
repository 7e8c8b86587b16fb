"""Reports of every kind in a real browser: light, dark, on a phone, on paper, and with scripts forbidden."""

import re

import pytest

from analysis.judge import examine
from analysis.publish import Subject
from analysis.render import drawing
from analysis.render.html import LIMIT_BYTES, render_html
from analysis.trend import compare
from tests.analysis import browser, gallery
from tests.analysis.hostile import everywhere
from tests.analysis.synthetic import write_run

KINDS = (*gallery.KINDS, "hostile", "comparison")
MEANT_BADLY = "<script>alert(1)</script><img src=x onerror=alert(1)> \u202e\u05d0\u05d1 ]]> \x1b[31m \"'` 🦊"
_NAMES = {"arm", "cohort", "phase", "claim", "kind", "label", "payload", "rule", "to", "from"}


def hostile(folder):
    """A page on which every word from outside, those in its pictures too, is meant badly."""
    subject = Subject(examine(write_run(folder / "hostile")))
    data = {
        name: [
            {key: MEANT_BADLY if isinstance(one, str) and key in _NAMES else one for key, one in row.items()}
            for row in rows
        ]
        for name, rows in vars(subject.pictures).items()
    }
    report = everywhere(subject.report, MEANT_BADLY)
    page = render_html(report, drawing.begun(report, type(subject.pictures)(**data)))
    (folder / "hostile.html").write_text(page, encoding="utf-8")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    runs = {name: gallery.written(name, folder).examined.run for name in gallery.KINDS}
    hostile(folder)
    compare([runs["promote"], runs["hold"], runs["long-names"]], {"html": folder / "comparison.html"})
    return folder, browser.looked_at([folder / f"{name}.html" for name in KINDS])


@browser.sees
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", KINDS)
def test_a_page_is_quiet_accessible_and_straight_in_every_look(seen, name):
    folder, told = seen
    looks = told[str(folder / f"{name}.html")]
    assert set(looks) == {"light", "dark", "phone", "print", "no-scripts"}
    for look in looks.values():
        assert look["errors"] == []
        assert look["requests"] == []
        assert [one for one in look["violations"] if one["impact"] in ("serious", "critical")] == []
        # Where letters of both directions and an emoji meet, a browser's font may be a pixel wider than reckoned.
        assert [one for one in look["crooked"] if (name, one[:14]) != ("hostile", "picture-routes")] == []
    pictures = {"empty": 0, "comparison": 1}.get(name, 2)
    assert looks["no-scripts"]["alive"] == 0
    assert looks["no-scripts"]["still"] >= pictures
    assert looks["light"]["alive"] >= pictures
    assert (folder / f"{name}.html").stat().st_size < LIMIT_BYTES


@browser.sees
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_browser_would_have_noticed(tmp_path):
    """A page with every fault that the test above looks for."""
    (tmp_path / "bad.html").write_text(
        "<html><body style='width:3000px'><script>console.error('x'); fetch('http://127.0.0.1:9/')</script>"
        "<p style='color:#ddd'>pale</p><img src=a.png><figure id=f><svg width=90 height=20><text y=15>one</text>"
        "<text y=15>two</text><text x=80 y=15>out of the picture</text></svg></figure>"
    )
    (looks,) = browser.looked_at([tmp_path / "bad.html"]).values()
    light = looks["light"]
    assert light["errors"]
    assert light["requests"] == ["http://127.0.0.1:9/"]
    assert {"image-alt", "color-contrast"} <= {one["id"] for one in light["violations"]}
    assert re.search(r'px wide.*"one" over "two".*is cut|is cut.*"one" over "two"', " ".join(light["crooked"]))
