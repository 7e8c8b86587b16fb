"""A picture is the same whichever process drew it, and it is drawn even where that process has died."""

import pytest

from analysis.render import drawing

SPEC = {
    "data": {"values": [{"x": 1, "y": 2.5, "name": "<ü>"}, {"x": 2, "y": 1e-3, "name": "b"}]},
    "mark": "point",
    "encoding": {
        "x": {"field": "x", "type": "quantitative"},
        "y": {"field": "y", "type": "quantitative"},
        "color": {"field": "name", "type": "nominal"},
    },
}


@pytest.mark.slow
def test_a_pen_draws_what_this_process_draws():
    pytest.importorskip("vl_convert")
    (here,) = drawing.stills([SPEC])
    with drawing.pen_in_hand(wanted=True):
        first, second = drawing.stills([SPEC, SPEC])
        assert first.result() == second.result() == here.result()
        drawing._pens[0]._process.kill()
        assert drawing.stills([SPEC])[0].result() == here.result()
