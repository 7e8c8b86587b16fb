"""Pictures with their stills: drawn here, or by a process of its own that was started before they were needed."""

import pickle
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from analysis.pictures.shown import Sheet
from analysis.render.picture import Picture
from analysis.render.runtime import available

WIDTH = 640
_NAMED = re.compile(r'(id="|url\(#)((?:gradient_|clip)\d+)')
_PEN = Path(__file__).with_name("pen.py")
_ROOT = Path(__file__).resolve().parents[2]

Drawing = tuple[Picture, str]
"""A picture and its SVG, for where there are no scripts."""


class Pen:
    """A process that draws the pictures of a report; where it fails, they are drawn here."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PEN), str(_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._question: Any = self._process.stdin
        self._answer: Any = self._process.stdout
        self._asking = ThreadPoolExecutor(1)
        self._asked: list[Sheet] = []

    def add(self, sheets: Iterable[Sheet]) -> None:
        """Have pictures drawn, each while the next is worked out."""
        for sheet in sheets:
            self._asked.append(sheet)
            self._asking.submit(self._ask, sheet)

    def drawn(self) -> Future[list[Drawing]]:
        """All pictures that were asked for since the last time, when they are there."""
        asked, self._asked = self._asked, []
        return self._asking.submit(self._answered, asked)

    def _ask(self, question: Sheet | None) -> None:
        with suppress(OSError):  # it is told by the answer, which does not come
            pickle.dump(question, self._question)
            self._question.flush()

    def _answered(self, asked: Sequence[Sheet]) -> list[Drawing]:
        try:
            self._ask(None)
            answer: list[Drawing] = pickle.load(self._answer)  # noqa: S301 - from our own child
        except (OSError, EOFError, pickle.PickleError):
            return pictures_with_stills(asked)
        return answer

    def drop(self) -> None:
        """End the process; nothing that it holds is needed any more."""
        self._asking.shutdown(wait=False, cancel_futures=True)
        self._process.kill()
        self._process.communicate()


_pens: list[Pen] = []


@contextmanager
def pen_in_hand(*, wanted: bool) -> Iterator[Pen | None]:
    """Have a process that draws the pictures to come, if any are wanted and can be drawn."""
    if not (wanted and available()):
        yield None
        return
    _pens.append(Pen())
    try:
        yield _pens[-1]
    finally:
        _pens.pop().drop()


def begun(sheets: Iterable[Sheet]) -> Future[list[Drawing]]:
    """Pictures; without a process that draws, they are there when this returns."""
    if not _pens:
        return done(pictures_with_stills(sheets))
    _pens[0].add(sheets)
    return _pens[0].drawn()


def pictures_with_stills(sheets: Iterable[Sheet]) -> list[Drawing]:
    """Pictures, drawn by this process; the most telling first, in whatever order they were made."""
    from analysis.render.charts import ORDER, charts

    made = [drawing for sheet in sheets for drawing in with_stills(charts(sheet))]
    return sorted(made, key=lambda drawing: ORDER.index(drawing[0].name))


def with_stills(pictures: Sequence[Picture]) -> list[Drawing]:
    """Each picture with its SVG, drawn by this process."""
    return [(picture, _own(draw({**picture.spec, "width": WIDTH}), picture.name)) for picture in pictures]


def _own(svg: str, name: str) -> str:
    """An SVG whose names are its own on the page: the library numbers them on through all that a process draws.

    >>> _own('<g id="clip7"/><path clip-path="url(#clip7)"/>', "heat")
    '<g id="heat-0"/><path clip-path="url(#heat-0)"/>'
    """
    numbers: dict[str, int] = {}
    return _NAMED.sub(lambda found: f"{found[1]}{name}-{numbers.setdefault(found[2], len(numbers))}", svg)


def draw(spec: dict[str, Any]) -> str:
    """The SVG of a specification, drawn by this process without a browser."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(spec)
    return svg


def shown(svg: str) -> str:
    """An SVG as a page has it: the element around it says what it shows, thousands of marks say nothing aloud."""
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1)


def done(drawings: list[Drawing]) -> Future[list[Drawing]]:
    """Drawings that are there already."""
    future: Future[list[Drawing]] = Future()
    future.set_result(drawings)
    return future
