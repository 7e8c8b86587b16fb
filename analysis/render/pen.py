"""A process that draws: a Vega-Lite specification as JSON a line on stdin, its SVG as JSON a line on stdout.

Started as a file by `analysis.render.drawing`, so it imports nothing of ours: booting the drawing engine takes a
second, in which the process that started it counts requests.
"""

import json
import sys

import vl_convert

_FIRST = {"data": {"values": [{"x": 1}]}, "mark": "point", "encoding": {"x": {"field": "x", "type": "quantitative"}}}


def main() -> None:
    """Draw until stdin ends; the first picture is nobody's and boots the engine."""
    vl_convert.vegalite_to_svg(_FIRST)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(vl_convert.vegalite_to_svg(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
