"""`python -m analysis`: report | plan."""

from pathlib import Path

import click

from experiments.core import command, home, reading
from experiments.core.records import RunDir, newest_run


@click.group(help=__doc__)
def analysis() -> None:
    """Hold the commands together."""


@analysis.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--json", "json_file", type=click.Path(path_type=Path, allow_dash=True), help="Write JSON; - is stdout.")
@click.option("--markdown", type=click.Path(path_type=Path, allow_dash=True), help="Write Markdown; - is stdout.")
@click.option("--quiet", is_flag=True, help="Print the verdict's line only.")
def report(run: Path | None, json_file: Path | None, markdown: Path | None, quiet: bool) -> int:  # noqa: FBT001
    """Judge RUN (a directory; default the newest) and print its report; the exit code is the verdict's.

    report.json and report.md are also written into the run directory, where it can be written.
    """
    from analysis.judge import judge
    from analysis.publish import export, leave, show

    chosen = RunDir(run) if run is not None else newest_run(home.runs())
    found = judge(chosen)
    leave(chosen, found)
    to_stdout = export(found, {"json": json_file, "markdown": markdown})
    if not to_stdout:
        show(found, quiet=quiet)
    return int(found.verdict.exit_code)


@analysis.command()
@click.argument("experiment")
def plan(experiment: str) -> None:
    """How many requests each claim of EXPERIMENT needs, and what its load can decide."""
    from analysis.plan import plan as outlook

    for line in outlook(reading.load(experiment).experiment).lines():
        click.echo(line.removeprefix("plan: "))


if __name__ == "__main__":
    command.main(analysis, "python -m analysis")
