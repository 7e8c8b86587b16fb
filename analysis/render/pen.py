"""A process that draws: a report with the rows of its pictures on stdin, the pictures with their stills on stdout.

Started as a file by `analysis.render.drawing`, long before there is anything to draw: importing Altair and booting the
drawing engine take more than a second, in which the process that started it counts requests.
"""

import gc
import pickle
import sys

_FIRST = {"data": {"values": [{"x": 1}]}, "mark": "point", "encoding": {"x": {"field": "x", "type": "quantitative"}}}


def main(root: str) -> None:
    """Draw until stdin ends; the first picture is nobody's and boots the engine.

    Args:
        root: Where our packages are, which need not be installed.
    """
    gc.disable()
    sys.path.append(root)
    import vl_convert

    from analysis.render.charts import charts
    from analysis.render.drawing import with_stills

    vl_convert.vegalite_to_svg(_FIRST)
    while True:
        try:
            report, data = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
        except EOFError:
            return
        pickle.dump(with_stills(charts(report, data)), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
