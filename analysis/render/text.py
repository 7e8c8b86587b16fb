"""Text that somebody else chose (names, error classes) made harmless, and the bars that intervals are drawn as."""

import unicodedata
import zlib
from typing import Any

_LONGEST = 48
_SPELT = str.maketrans({"±": "+/-", "…": "...", "−": "-", "–": "-", "×": "x", "→": "->", "‖": "||"})


def safe(text: str, longest: int = _LONGEST) -> str:
    r"""One line of visible characters: no control, no escape sequence, no change of direction, not endless.

    >>> safe("a\x1b[31mb\u202ec\nd"), safe("x" * 100, 5)
    ('a?[31mb?c?d', 'xxxx…')
    """
    seen = "".join(
        "?" if unicodedata.category(letter)[0] == "C" or letter in "\u2028\u2029" else letter for letter in text
    )
    return seen if len(seen) <= longest else seen[: longest - 1] + "…"


def named(text: str) -> str:
    r"""A name made harmless, with a mark where it had to be changed: two names stay two.

    >>> named("resnet50"), named("a\x1b"), named("x" * 60) != named("x" * 61)
    ('resnet50', 'a?#81f5', True)
    """
    seen = safe(text)
    return text if seen == text else f"{safe(text, _LONGEST - 5)}#{zlib.crc32(text.encode()) & 0xFFFF:04x}"


def spelt(value: Any, encoding: str) -> Any:
    """Texts, and lists and mappings of them, in the signs that an encoding has.

    >>> spelt(["30% ± 10 pp", 3], "ascii"), spelt("für…", "latin-1"), spelt("für ±", "utf-8")
    (['30% +/- 10 pp', 3], 'für...', 'für ±')
    """
    if isinstance(value, str):
        return (
            value if _speaks(value, encoding) else value.translate(_SPELT).encode(encoding, "replace").decode(encoding)
        )
    if isinstance(value, dict):
        return {spelt(key, encoding): spelt(one, encoding) for key, one in value.items()}
    return [spelt(one, encoding) for one in value] if isinstance(value, list) else value


def _speaks(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def interval_bar(
    low: float, high: float, marks: tuple[float | None, float | None], width: int = 20, *, ascii_only: bool = False
) -> str:
    """A scale from 0 to 1 with an interval, the estimate on it and where it was expected.

    Args:
        low: Of the interval.
        high: Of the interval.
        marks: Estimate and expectation; None for one that there is not.
        width: Characters.
        ascii_only: Draw with ASCII.

    >>> interval_bar(0.2, 0.4, (0.3, 0.3), 10, ascii_only=True)
    '..-#-.....'
    """
    empty, line, dot, goal, both = (".", "-", "o", "|", "#") if ascii_only else ("·", "─", "●", "│", "◆")
    cells = [empty] * width
    for index in range(_cell(low, width), _cell(high, width) + 1):
        cells[index] = line
    estimate, expected = marks
    if expected is not None:
        cells[_cell(expected, width)] = goal
    if estimate is not None:
        place = _cell(estimate, width)
        cells[place] = both if expected is not None and place == _cell(expected, width) else dot
    return "".join(cells)


def _cell(value: float, width: int) -> int:
    return min(max(int(value * width + 1e-9), 0), width - 1)
