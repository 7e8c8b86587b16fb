"""Where a report goes: the terminal, files that were asked for, and the run directory."""

import os
import sys
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from analysis.judge import Examined
from analysis.pictures.data import late, sheets
from analysis.render.annotations import render_annotations
from analysis.render.html import Drawn, draw, render_html
from analysis.render.json_report import render_json
from analysis.render.junit import render_junit
from analysis.render.markdown import render_markdown
from analysis.render.tallies import render_csv, render_parquet
from analysis.render.terminal import print_report
from analysis.report import Report
from experiments.core import command
from experiments.core.errors import RecordsError


@dataclass(frozen=True)
class Subject:
    """A run with its report; what its pictures show is worked out when one is drawn, each form is made once.

    `early`: whether those for which nothing need be judged are being drawn already.
    """

    examined: Examined
    early: bool = False
    _made: dict[str, str | bytes] = field(default_factory=dict, repr=False, compare=False)

    @property
    def report(self) -> Report:
        """The report."""
        return self.examined.report

    @cached_property
    def drawn(self) -> Drawn:
        """Its pictures."""
        return draw(late(self.examined) if self.early else sheets(self.examined))

    def made(self, form: str) -> str | bytes:
        """One form of the report."""
        if form not in self._made:
            self._made[form] = RENDERERS[form](self)
        return self._made[form]

    def make(self, forms: Collection[str], meanwhile: Callable[[], object] | None = None) -> None:
        """Make forms; pictures are begun before the others and asked for after them, for they are drawn elsewhere.

        Args:
            forms: Names among `RENDERERS`.
            meanwhile: Begins what may as well be done while pictures are waited for.
        """
        with ThreadPoolExecutor(1) as beside:
            tables = [beside.submit(self.made, form) for form in forms if form in _TABLES]
            if "html" in forms:
                _ = self.drawn
            for form in forms:
                if form not in (*_TABLES, "html"):
                    self.made(form)
            for table in tables:
                table.result()
            if meanwhile:
                meanwhile()
            if "html" in forms:
                self.made("html")


RENDERERS: dict[str, Callable[[Subject], str | bytes]] = {
    "json": lambda subject: render_json(subject.report),
    "markdown": lambda subject: render_markdown(subject.report),
    "junit": lambda subject: render_junit(subject.report),
    "html": lambda subject: render_html(subject.report, subject.drawn),
    "annotations": lambda subject: render_annotations(subject.report),
    "csv": lambda subject: render_csv(subject.examined),
    "parquet": lambda subject: render_parquet(subject.examined),
}
_TABLES = ("csv", "parquet")
"""Forms that are made beside the others: Arrow lets another thread work meanwhile."""

LEFT = {"json": "report.json", "markdown": "report.md", "junit": "junit.xml", "html": "report.html"}


def publish(examined: Examined) -> None:
    """Leave a report in its run directory, show it, and say where its page is."""
    leave(Subject(examined))
    show(examined.report)
    page = examined.run.path / LEFT["html"]
    if page.exists():
        sys.stdout.flush()
        command.say(f"The same with pictures: {page}")


def show(report: Report, *, quiet: bool = False) -> None:
    """Print a report for people, or its first line."""
    print_report(report, sys.stdout, quiet=quiet)


def leave(subject: Subject) -> None:
    """Write report.json, .md, .html and junit.xml into the run directory; where that fails, say so and go on."""
    for form, name in LEFT.items():
        path = subject.examined.run.path / name
        try:
            _replace(path, subject.made(form))
        except OSError as error:
            command.say(f"{path}: not written: {error.strerror}.")


def export(subject: Subject, wanted: Mapping[str, Path | None]) -> bool:
    """Write the forms that were asked for; returns whether one of them went to stdout.

    Raises:
        RecordsError: a file cannot be written.
    """
    return write({form: path for form, path in wanted.items() if path is not None}, subject.made)


def write(wanted: Mapping[str, Path], make: Callable[[str], str | bytes]) -> bool:
    """Write each form to its place; returns whether one of them went to stdout.

    Raises:
        RecordsError: a file cannot be written.
    """
    to_stdout = False
    for form, path in wanted.items():
        made = make(form)
        if str(path) == "-":
            sys.stdout.flush()
            sys.stdout.buffer.write(_bytes(made)) if isinstance(made, bytes) else sys.stdout.write(made)
            to_stdout = True
        else:
            _write(path, made)
    return to_stdout


def _bytes(made: str | bytes) -> bytes:
    return made if isinstance(made, bytes) else made.encode()


def _write(path: Path, made: str | bytes) -> None:
    try:
        _replace(path, made)
    except OSError as error:
        raise RecordsError(f"{path}: cannot be written: {error.strerror}; name another place.") from error


def _replace(path: Path, made: str | bytes) -> None:
    """A reader sees the old or the new file, never half; a pipe or a device is written to, not replaced."""
    if path.exists() and not path.is_file():
        path.write_bytes(_bytes(made))
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(_bytes(made))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
