"""A picture is the same whichever process drew it, and it is drawn even where that process has died."""

import pytest

from analysis.judge import examine
from analysis.pictures.data import sheets
from analysis.render import drawing
from tests.analysis.synthetic import write_run


def test_a_pen_draws_what_this_process_draws(tmp_path):
    pytest.importorskip("vl_convert")
    asked = list(sheets(examine(write_run(tmp_path))))
    here = drawing.pictures_with_stills(asked)
    with drawing.pen_in_hand(wanted=True):
        assert drawing.begun(asked).result() == drawing.begun(asked).result() == here
        assert drawing._pens[0]._process.poll() is None, "the process died, and this one drew"
        drawing._pens[0]._process.kill()
        assert drawing.begun(asked).result() == here
