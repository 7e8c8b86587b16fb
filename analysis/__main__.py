"""`python -m analysis`: report | plan | gate | serve."""

from collections.abc import Callable
from pathlib import Path

import click

from experiments.core import command, home, reading
from experiments.core.records import RunDir, newest_run


@click.group(help=__doc__)
def analysis() -> None:
    """Hold the commands together."""


def _form(name: str, told: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """The option that names where a form of the report goes."""
    return click.option(f"--{name}", type=click.Path(path_type=Path, allow_dash=True), help=f"{told}; - is stdout.")


@analysis.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN]...")
@_form("json", "Write JSON")
@_form("markdown", "Write Markdown, for job summaries and comments")
@_form("html", "Write a page that needs no network")
@_form("junit", "Write JUnit XML")
@_form("csv", "Write the counts that the report was made from, as CSV")
@_form("parquet", "Write the same counts as Parquet")
@_form("annotations", "Write GitHub workflow commands")
@click.option("--quiet", is_flag=True, help="Print the verdict's line only.")
def report(runs: tuple[Path, ...], quiet: bool, **forms: Path | None) -> int:  # noqa: FBT001
    """Judge RUN (a directory; default the newest) and print its report; the exit code is the verdict's.

    report.json, report.md, report.html and junit.xml are also written into the run directory, where it can be written.
    Several runs are compared: one line each, the trend of every claim, and the exit code of the last one.
    """
    from analysis.judge import examine
    from analysis.publish import Subject, export, leave, show
    from analysis.trend import compare

    wanted = {form: path for form, path in forms.items() if path is not None}
    if len(runs) > 1:
        return compare([RunDir(run) for run in runs], wanted, quiet=quiet)
    subject = Subject(examine(RunDir(runs[0]) if runs else newest_run(home.runs())))
    leave(subject)
    if not export(subject, wanted):
        show(subject.report, quiet=quiet)
    return int(subject.report.verdict.exit_code)


@analysis.command()
@click.argument("experiment")
def plan(experiment: str) -> None:
    """How many requests each claim of EXPERIMENT needs, and what its load can decide."""
    from analysis.plan import plan as outlook

    for line in outlook(reading.load(experiment).experiment).lines():
        click.echo(line.removeprefix("plan: "))


@analysis.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--every", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds between looks.")
@click.option(
    "--patience", type=click.FloatRange(0), help="Seconds to wait at most; without it, until a person decides."
)
def gate(run: Path | None, every: float, patience: float | None) -> int:
    """Wait for a verdict to act on: exit 0 for promote, 1 where the model must be rolled back.

    For a Job of Argo Rollouts. Where the routing is at fault, or nothing can be told, it goes on waiting: the rollout
    stays where it is.
    """
    from analysis import adapters

    return adapters.gate(lambda: RunDir(run) if run is not None else newest_run(home.runs()), every, patience)


@analysis.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8077, show_default=True)
@click.option("--runs", type=click.Path(file_okay=False, path_type=Path), help="Where run directories are.")
def serve(host: str, port: int, runs: Path | None) -> None:
    """Answer Flagger's webhooks and Argo's web metrics with the verdict of the newest run, or of the one they name."""
    from analysis import adapters

    endpoint = adapters.server(runs or home.runs(), host, port)
    command.say(f"http://{host}:{endpoint.server_address[1]}: /verdict, /flagger/confirm, /flagger/rollback")
    try:
        endpoint.serve_forever()
    finally:
        endpoint.server_close()


if __name__ == "__main__":
    command.main(analysis, "python -m analysis")
