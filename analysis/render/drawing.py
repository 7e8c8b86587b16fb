"""Still pictures: drawn here, or by a process of its own that was started before there was anything to draw."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from analysis.render.runtime import available

WIDTH = 640
_PEN = Path(__file__).with_name("pen.py")


class Pen:
    """A process that draws one picture after another; where it fails, pictures are drawn here."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PEN)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self._asking = ThreadPoolExecutor(1)

    def draw(self, spec: dict[str, Any]) -> Future[str]:
        """The SVG of a specification, when it is there."""
        return self._asking.submit(self._ask, spec)

    def _ask(self, spec: dict[str, Any]) -> str:
        try:
            print(json.dumps(spec), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline() if self._process.stdout else ""
            return str(json.loads(answer))
        except (OSError, ValueError):
            return draw(spec)

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


def stills(specs: Sequence[dict[str, Any]]) -> list[Future[str]]:
    """Every specification as SVG text; without a process that draws, they are there when this returns."""
    wide = [{**spec, "width": WIDTH} for spec in specs]
    return [_pens[0].draw(spec) for spec in wide] if _pens else [_done(draw(spec)) for spec in wide]


def shown(svg: Future[str]) -> str:
    """The SVG as a page has it: the element around it says what it shows, thousands of marks say nothing aloud."""
    return svg.result().replace("<svg ", '<svg aria-hidden="true" ', 1)


def _done(svg: str) -> Future[str]:
    future: Future[str] = Future()
    future.set_result(svg)
    return future


def draw(spec: dict[str, Any]) -> str:
    """The SVG of a specification, drawn by this process without a browser."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(spec)
    return svg
