"""`python -m analysis`: report | plan | watch."""

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


@analysis.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document for each look on stdout, a line each.")
@click.option("--into-run", is_flag=True, help="Write each look into live.json in the run directory, replaced at once.")
@click.option(
    "--every",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between looks; more where a look takes long, so that a quarter of one core is enough.",
)
def watch(run: Path | None, as_json: bool, into_run: bool, every: float) -> int:  # noqa: FBT001
    """The verdict on RUN (a directory; default the newest) as it forms, until the run has ended.

    It waits for a run that is not there yet. The exit code is that of the final verdict.
    """
    from analysis.watch import Pace
    from analysis.watch import watch as follow

    chosen = RunDir(run) if run is not None else newest_run(home.runs())
    return follow(chosen, Pace(every), as_json=as_json, into_run=into_run)


if __name__ == "__main__":
    command.main(analysis, "python -m analysis")
