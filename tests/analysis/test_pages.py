"""Reports of every kind in a real browser: light, dark, on a phone, on paper, and with scripts forbidden."""

import re

import pytest

from analysis.judge import examine
from analysis.pictures.data import sheets
from analysis.pictures.shown import Pictures, Sheet
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
    report = everywhere(subject.report, MEANT_BADLY)
    asked = [Sheet(report.subject, _bad(sheet.rows), report) for sheet in sheets(subject.examined)]
    page = render_html(report, drawing.begun(asked))
    (folder / "hostile.html").write_text(page, encoding="utf-8")


def _bad(pictures):
    """Rows in which every name is meant badly."""
    return Pictures(
        **{
            name: [
                {key: MEANT_BADLY if isinstance(one, str) and key in _NAMES else one for key, one in row.items()}
                for row in rows
            ]
            for name, rows in vars(pictures).items()
        }
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    runs = {name: gallery.written(name, folder).examined.run for name in gallery.KINDS}
    hostile(folder)
    compare([runs["promote"], runs["hold"], runs["long-names"]], {"html": folder / "comparison.html"})
    return folder, browser.looked_at([folder / f"{name}.html" for name in KINDS])


@browser.sees
@pytest.mark.slow
@pytest.mark.timeout(1800)
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
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", KINDS)
def test_a_page_is_used_by_mouse_and_by_keyboard(seen, name):
    folder, told = seen
    used = told[str(folder / f"{name}.html")]["light"]["used"]
    assert used["tabs"]["stops"] > 5
    assert (used["tabs"]["unseen"], used["tabs"]["missed"]) == ([], [])
    assert [picture for picture, tip in used["tooltips"].items() if not re.search(r"\d", tip)] == []
    # On the hostile page all names are one name, so that its choices are one choice.
    lame = [one for one in used["switches"] if not (one["keyboard"] and one["mouse"])]
    assert lame == [] or name == "hostile"
    for one in used["columns"]:
        assert one["others"] == 0, one["table"]
    for up, down in zip(used["columns"][::2], used["columns"][1::2], strict=True):
        assert (up["order"], down["order"]) == ("ascending", "descending"), up["table"]
        assert in_order(up["values"]), up
        assert in_order(down["values"][::-1]), down


def in_order(values):
    """Numbers by size; words by what they begin with, whatever the case; signs before letters, in any order."""
    try:
        found = [float(value) for value in values if value != ""]
    except ValueError:
        found = [value[:1].casefold() if value[:1].isalnum() else "" for value in values]
    return found == sorted(found)


@browser.sees
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_can_be_used_is_there(seen):
    """Else nothing was tried above: switches of cohort, phase and arm, tooltips of every picture, sorted tables."""
    folder, told = seen
    used = {name: told[str(folder / f"{name}.html")]["light"]["used"] for name in KINDS}
    switches = {(one["picture"], one["name"]) for one in used["roll-back-model"]["switches"]}
    assert switches == {
        ("picture-shares", "cohort"), ("picture-shares", "arm"), ("picture-quantiles", "phase"),
        ("picture-routes", "phase"), ("picture-heat", "arm"),
    }  # fmt: skip
    assert {f"picture-{name}" for name in ("shares", "quantiles", "routes", "heat", "failures", "evidence")} <= set(
        used["roll-back-model"]["tooltips"]
    )
    assert "picture-signatures" in used["strange-answers"]["tooltips"]
    assert "picture-trend" in used["comparison"]["tooltips"]
    assert {one["name"] for one in used["comparison"]["switches"]} == {"claim"}
    assert len({one["table"] for one in used["promote"]["columns"]}) >= 6


@browser.sees
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "phase", "arm"), [
    ("promote", "split", "new"), ("roll-back-model", "split", "new"), ("roll-back-routing", "split", "new"),
    ("hold", "split", "new"),
])  # fmt: skip
def test_without_scripts_the_summary_and_the_worst_phase_are_seen(seen, name, phase, arm):
    folder, told = seen
    stills = told[str(folder / f"{name}.html")]["no-scripts"]["stills"]
    assert f"arm {arm}" in stills["picture-shares"]
    assert f"phase {phase}" in stills["picture-quantiles"]
    assert f"phase {phase}" in stills["picture-routes"]


@browser.sees
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_browser_would_have_noticed(tmp_path):
    """A page with every fault that the test above looks for."""
    (tmp_path / "bad.html").write_text(
        "<html><body style='width:3000px'><script>console.error('x'); fetch('http://127.0.0.1:9/')</script>"
        "<p style='color:#ddd'>pale</p><img src=a.png><figure id=f><svg width=90 height=20><text y=15>one</text>"
        "<text y=15>two</text><text x=80 y=15>out of the picture</text></svg></figure>"
        "<figure id=h><svg width=90 height=60><g class=role-legend-label><text y=15>same</text><text y=45>same</text>"
        "</g></svg></figure>"
        "<button style='outline:none'>dim</button><button style='outline:5px solid'>bright</button>"
        "<button tabindex=-1>left out</button><figure data-chart=g id=g><div class=live><svg width=50 height=20>"
        "<g class='mark-symbol role-mark'><path d='M0 0h20v20z'/></g></svg></div><span class=switches>"
        "<select name=s><option>a<option>b</select></span></figure>"
    )
    (looks,) = browser.looked_at([tmp_path / "bad.html"]).values()
    light = looks["light"]
    assert light["errors"]
    assert light["requests"] == ["http://127.0.0.1:9/"]
    assert {"image-alt", "color-contrast"} <= {one["id"] for one in light["violations"]}
    unseen = ["BUTTON dim", "SELECT ab"]  # one without an outline, one with the browser's own thin one
    assert light["used"]["tabs"] == {"stops": 3, "unseen": unseen, "missed": ["BUTTON left out"]}
    assert light["used"]["tooltips"] == {"g": ""}
    assert light["used"]["switches"] == [{"picture": "g", "name": "s", "keyboard": False, "mouse": False}]
    assert re.search(r'px wide.*"one" over "two".*is cut|is cut.*"one" over "two"', " ".join(light["crooked"]))
    assert 'h: two entries of a legend are both "same"' in light["crooked"]
