"""Colours that stay apart to every eye: the pictures' colours as people with a colour blindness see them."""

import itertools
import json
import re

import numpy as np
import pytest

from analysis.judge import examine
from analysis.pictures.data import sheets
from analysis.publish import Subject
from analysis.render import html
from analysis.render.charts import charts
from analysis.render.charts.looks import PALETTE, STRANGE
from analysis.render.charts.trend import trend_chart
from analysis.trend import trend
from tests.analysis import gallery

# Machado, Oliveira & Fernandes 2009, IEEE Transactions on Visualization and Computer Graphics 15, severity 1, for
# linear RGB.
EYES = {
    "usual": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ]),
    "tritanopia": np.array([
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900],
    ]),
}  # fmt: skip
TO_XYZ = np.array([  # IEC 61966-2-1, D65
    [0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041],
])  # fmt: skip

# Least difference of two, by how many arms share a picture; 2.3 is just noticeable side by side.
APART = {2: 30, 4: 11, 8: 10, 10: 8}


def linear(colour):
    values = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(colour, eye="usual"):
    """CIE L*a*b* of what an eye sees."""
    ratio = TO_XYZ @ np.clip(EYES[eye] @ linear(colour), 0, 1) / TO_XYZ.sum(axis=1)
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def difference(first, second):
    """CIEDE2000, by the steps of Sharma, Wu & Dalal 2005 (Color Research & Application 30)."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25.0**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    hue = (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    t = 1 - 0.17 * cos(hue - 30) + 0.24 * cos(2 * hue) + 0.32 * cos(3 * hue + 6) - 0.2 * cos(4 * hue - 63)
    parts = (
        (l2 - l1) / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)),
        (c2 - c1) / (1 + 0.045 * chroma),
        2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chroma * t),
    )
    twist = 60 * np.exp(-(((hue - 275) / 25) ** 2))
    rotation = -2 * np.sin(np.radians(twist)) * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    return float(np.sqrt(sum(part**2 for part in parts) + rotation * parts[1] * parts[2]))


def cos(degrees):
    return np.cos(np.radians(degrees))


def nearest(colours, eye):
    """The two colours that this eye tells apart least, and how far they are."""
    return min((difference(lab(a, eye), lab(b, eye)), a, b) for a, b in itertools.combinations(colours, 2))


@pytest.mark.parametrize(("first", "second", "published"), [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
])  # fmt: skip
def test_the_difference_is_that_of_the_paper_s_table(first, second, published):
    assert difference(first, second) == pytest.approx(published, abs=6e-5)


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("arms", APART)
def test_arms_stay_apart_to_every_eye(arms, eye):
    found = nearest(PALETTE[:arms], eye)
    assert found[0] >= APART[arms] * (1.5 if eye == "usual" else 1), found


@pytest.mark.parametrize("eye", EYES)
def test_what_no_arm_is_named_for_is_told_from_every_arm(eye):
    assert min(difference(lab(one, eye), lab(STRANGE, eye)) for one in PALETTE) >= 8


def test_a_red_and_a_green_of_equal_lightness_would_be_noticed():
    assert nearest(("#d55e00", "#8a7a00"), "usual")[0] > 25
    assert nearest(("#d55e00", "#8a7a00"), "protanopia")[0] < 3


def contrast(first, second):
    """As WCAG has it."""
    light = sorted(float(TO_XYZ[1] @ linear(one)) for one in (first, second))
    return (light[1] + 0.05) / (light[0] + 0.05)


def test_every_colour_is_seen_on_the_page_by_day_and_by_night():
    css = (html._FOLDER / "page.css").read_text(encoding="utf-8")
    grounds = re.findall(r"--ground: (#\w+)", css)
    whole = [one if len(one) == 7 else "#" + "".join(2 * letter for letter in one[1:]) for one in grounds]
    assert len(set(whole)) == 2
    for colour, ground in itertools.product((*PALETTE, STRANGE), whole):
        assert contrast(colour, ground) >= 3, (colour, ground)


def test_pictures_have_no_other_colours(tmp_path):
    subject = Subject(examine(gallery.KINDS["strange-answers"](tmp_path)))
    pictures = [*itertools.chain(*map(charts, sheets(subject.examined))), trend_chart(trend([subject.report]))]
    used = set(re.findall(r"#[0-9a-fA-F]{3,8}\b", json.dumps([one.spec for one in pictures])))
    assert {PALETTE[0], PALETTE[1], STRANGE} <= used
    assert used <= {*PALETTE, STRANGE}
