"""`python -m analysis`: report | plan | watch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.core import command, home, reading
from experiments.core.records import RunDir, newest_run

if TYPE_CHECKING:
    from analysis.report import Report


@click.group(help=__doc__)
def analysis() -> None:
    """Hold the commands together."""


@analysis.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--json", "json_file", type=click.Path(path_type=Path, allow_dash=True), help="Write JSON; - is stdout.")
@click.option("--markdown", type=click.Path(path_type=Path, allow_dash=True), help="Write Markdown; - is stdout.")
@click.option("--mapping", help="RUN is another tool's table; this file, or vegeta, k6 or envoy, says what it means.")
@click.option("--expect", help="With --mapping: shares, the baseline first, such as old=70%,new=30%.")
@click.option("--quiet", is_flag=True, help="Print the verdict's line only.")
def report(
    run: Path | None,
    json_file: Path | None,
    markdown: Path | None,
    mapping: str | None,
    expect: str | None,
    quiet: bool,  # noqa: FBT001
) -> int:
    """Judge RUN (a directory; default the newest) and print its report; the exit code is the verdict's.

    With --mapping, RUN is a table of any load tool's (CSV, JSON lines or Parquet), judged by the same code.

    report.json and report.md are also written into the run directory, where it can be written.
    """
    from analysis.judge import judge
    from analysis.publish import export, leave, show

    if mapping is not None:
        found = _of_table(run, mapping, expect)
    else:
        chosen = _directory(run, expect)
        found = judge(chosen)
        leave(chosen, found)
    to_stdout = export(found, {"json": json_file, "markdown": markdown})
    if not to_stdout:
        show(found, quiet=quiet)
    return int(found.verdict.exit_code)


def _of_table(table: Path | None, mapping: str, expect: str | None) -> "Report":
    from analysis.tables.judge import judge_table

    if table is None:
        raise click.UsageError("--mapping goes with a table: name its file.")
    return judge_table(table, mapping, expect)


def _directory(run: Path | None, expect: str | None) -> RunDir:
    if run is not None and run.is_file():
        raise click.UsageError(f"{run} is a file: a table of another tool's goes with --mapping, a run is a directory.")
    if expect is not None:
        raise click.UsageError("--expect goes with --mapping; what a run expects was registered before its load.")
    return RunDir(run) if run is not None else newest_run(home.runs())


@analysis.command()
@click.argument("experiment")
@click.option("--power", default="90%", show_default=True, help="The chance of being shown that is asked for.")
@click.option("--like", type=click.Path(path_type=Path), help="Take variances from this run; default the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(experiment: str, power: str, like: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """How many requests and minutes each claim of EXPERIMENT needs, what limits it, and which design is cheapest."""
    from analysis.plan.command import full
    from analysis.plan.lines import as_json as decoded

    outlook = full(reading.load(experiment).experiment, power, like)
    if as_json:
        click.echo(json.dumps(decoded(outlook), indent=2))
        return
    for line in outlook.lines():
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
