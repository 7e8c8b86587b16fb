"""A picture is the same whichever process drew it, and it is drawn even where that process has died."""

import pytest

from analysis.judge import examine
from analysis.publish import Subject
from analysis.render import drawing
from tests.analysis.synthetic import write_run


def test_a_pen_draws_what_this_process_draws(tmp_path):
    pytest.importorskip("vl_convert")
    subject = Subject(examine(write_run(tmp_path)))
    report, data = subject.report, subject.pictures
    here = drawing.pictures_with_stills(report, [data])
    with drawing.pen_in_hand(wanted=True):
        assert drawing.begun(report, [data]).result() == drawing.begun(report, [data]).result() == here
        drawing._pens[0]._process.kill()
        assert drawing.begun(report, [data]).result() == here
