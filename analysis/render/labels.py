"""Where the labels of arrows stand, so that none lies on another."""

from collections.abc import Sequence
from typing import Any

from analysis.render.text import safe

_WIDTH = 540
"""Of the narrowest picture that is drawn: on a wider one labels have more room."""
_LETTER = 7.5
_LINE = 15
_ABOVE = 8
_ALONG = (0.35, 0.55, 0.2, 0.7, 0.45, 0.27, 0.62, 0.8, 0.12)
"""Fractions of an arrow at which its label may stand, the best first."""

Row = dict[str, Any]


def labelled(edges: Sequence[Row], nodes: Sequence[Row], height: int) -> list[Row]:
    """Arrows with `lx` and `ly`, where their label stands; a label that fits nowhere is left to the table.

    Args:
        edges: With `phase`, `label`, and their ends `x`, `y`, `x2`, `y2` from 0 to 1.
        nodes: Names in the middle, which labels must not hide either.
        height: Of the picture, in pixels.
    """
    taken = {
        phase: [
            _box(node["x"] - 30 / _WIDTH, node["y"], safe(node["name"]), height, 12)
            for node in nodes
            if node["phase"] == phase
        ]
        for phase in dict.fromkeys(edge["phase"] for edge in edges)
    }
    return [{**edge, **_placed(edge, taken[edge["phase"]], height)} for edge in edges]


def _placed(edge: Row, taken: list[tuple[float, ...]], height: int) -> Row:
    for along in _ALONG if edge["label"] else ():
        x, y = (edge[a] + along * (edge[b] - edge[a]) for a, b in (("x", "x2"), ("y", "y2")))
        box = _box(x, y, edge["label"], height, _ABOVE)
        if not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return {"lx": round(x, 4), "ly": round(y, 4)}
    return {"lx": edge["x"], "ly": edge["y"], "label": ""}


def _box(x: float, y: float, text: str, height: int, above: float) -> tuple[float, ...]:
    """Left, right, lower and upper end of a centred text, in pixels."""
    half, middle = _LETTER * len(text) / 2, y * height + above
    return x * _WIDTH - half, x * _WIDTH + half, middle - _LINE / 2, middle + _LINE / 2


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
