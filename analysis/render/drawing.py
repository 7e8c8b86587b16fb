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

from analysis.pictures.shown import Pictures
from analysis.render.picture import Picture
from analysis.render.runtime import available
from analysis.report import Report

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

    def draw(self, report: Report, parts: Iterable[Pictures]) -> Future[list[Drawing]]:
        """The pictures of a report, when they are there; each part is drawn while the next is worked out."""
        self._asking.submit(self._ask, report)
        asked = []
        for part in parts:
            asked.append(part)
            self._asking.submit(self._ask, part)
        return self._asking.submit(self._answered, report, asked)

    def _ask(self, question: Report | Pictures | None) -> None:
        with suppress(OSError):  # it is told by the answer, which does not come
            pickle.dump(question, self._question)
            self._question.flush()

    def _answered(self, report: Report, asked: Sequence[Pictures]) -> list[Drawing]:
        try:
            self._ask(None)
            answer: list[Drawing] = pickle.load(self._answer)  # noqa: S301 - from our own child
        except (OSError, EOFError, pickle.PickleError):
            return pictures_with_stills(report, asked)
        return answer

    def drop(self) -> None:
        """End the process; nothing that it holds is needed any more."""
        self._asking.shutdown(wait=False, cancel_futures=True)
        self._process.kill()
        self._process.communicate()


_pens: list[Pen] = []


@contextmanager
def pen_in_hand(*, wanted: bool) -> Iterator[None]:
    """Have a process that draws the pictures to come, if any are wanted and can be drawn."""
    if not (wanted and available()):
        yield
        return
    _pens.append(Pen())
    try:
        yield
    finally:
        _pens.pop().drop()


def begun(report: Report, parts: Iterable[Pictures]) -> Future[list[Drawing]]:
    """The pictures of a report; without a process that draws, they are there when this returns."""
    if _pens:
        return _pens[0].draw(report, parts)
    return done(pictures_with_stills(report, parts))


def pictures_with_stills(report: Report, parts: Iterable[Pictures]) -> list[Drawing]:
    """The pictures of a report, drawn by this process; the most telling first, in whatever order they were made."""
    from analysis.render.charts import ORDER, charts

    made = [drawing for part in parts for drawing in with_stills(charts(report, part))]
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
