"""Reports of every kind in a real browser: light, dark, on a phone, on paper, and with scripts forbidden."""

import re

import pytest

from tests.analysis import browser, gallery

KINDS = ("promote", "roll-back-routing", "empty", "one-arm", "ten-arms", "forty-phases", "long-names")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    for name in KINDS:
        gallery.written(name, folder)
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
        assert look["crooked"] == []
    assert looks["no-scripts"]["alive"] == 0
    assert name == "empty" or looks["no-scripts"]["still"] >= 2
    assert name == "empty" or looks["light"]["alive"] >= 2


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
