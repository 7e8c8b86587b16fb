"""A process that draws: the rows of pictures on stdin, the pictures with their stills on stdout.

Started as a file by `analysis.render.drawing`, long before there is anything to draw: importing Altair and booting the
drawing engine take more than a second, in which the process that started it counts requests.
"""

import gc
import os
import pickle
import sys
from contextlib import suppress
from typing import Any

_POLITE = 10
"""Where there are few processors, whoever reads and judges goes first: nothing can be drawn before."""

_FIRST = {"data": {"values": [{"x": 1}]}, "mark": "point", "encoding": {"x": {"field": "x", "type": "quantitative"}}}


def main(root: str) -> None:
    """Draw until stdin ends; the first picture is nobody's and boots the engine.

    Args:
        root: Where our packages are, which need not be installed.
    """
    gc.disable()
    if hasattr(os, "nice"):
        os.nice(_POLITE)
    sys.path.append(root)
    import vl_convert

    from analysis.render.drawing import pictures_with_stills

    vl_convert.vegalite_to_svg(_FIRST)
    with suppress(EOFError):
        while True:
            pickle.dump(pictures_with_stills(iter(_asked, None)), sys.stdout.buffer)
            sys.stdout.buffer.flush()


def _asked() -> Any:
    """What is to be drawn next; None where whoever asked now waits for the answer.

    Raises:
        EOFError: nothing will be asked any more.
    """
    return pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one


if __name__ == "__main__":
    main(sys.argv[1])
