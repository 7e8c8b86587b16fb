"""Where a report goes: the terminal, files that were asked for, and the run directory."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from analysis.render.json_report import render_json
from analysis.render.markdown import render_markdown
from analysis.render.terminal import print_report
from analysis.report import Report
from experiments.core import command
from experiments.core.errors import RecordsError
from experiments.core.records import RunDir

RENDERERS = {"json": render_json, "markdown": render_markdown}
LEFT = {"json": "report.json", "markdown": "report.md"}


def publish(run: RunDir, report: Report) -> None:
    """Show a report and leave it in its run directory."""
    leave(run, report)
    show(report)


def show(report: Report, *, quiet: bool = False) -> None:
    """Print a report for people, or its first line."""
    print_report(report, sys.stdout, quiet=quiet)


def leave(run: RunDir, report: Report) -> None:
    """Write report.json and report.md into the run directory; where that cannot be written, say so and go on."""
    for form, name in LEFT.items():
        try:
            _replace(run.path / name, RENDERERS[form](report))
        except OSError as error:
            command.say(f"{run.path / name}: not written: {error.strerror}.")


def export(report: Report, wanted: Mapping[str, Path | None]) -> bool:
    """Write the forms that were asked for; returns whether one of them went to stdout.

    Raises:
        RecordsError: a file cannot be written.
    """
    to_stdout = False
    for form, path in wanted.items():
        if path is None:
            continue
        text = RENDERERS[form](report)
        if str(path) == "-":
            sys.stdout.write(text)
            to_stdout = True
        else:
            _write(path, text)
    return to_stdout


def _write(path: Path, text: str) -> None:
    try:
        _replace(path, text)
    except OSError as error:
        raise RecordsError(f"{path}: cannot be written: {error.strerror}; name another place.") from error


def _replace(path: Path, text: str) -> None:
    """A reader sees the old or the new file, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
