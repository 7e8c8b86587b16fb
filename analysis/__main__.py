"""`python -m analysis`: report | plan | watch | gate | serve."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.core import command, home
from experiments.core.records import RunDir, newest_run

if TYPE_CHECKING:
    from analysis.ahead import Ahead
    from analysis.judge import Examined, Found
    from analysis.render.drawing import Pen


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
@click.option("--mapping", help="RUN is another tool's table; this file, or vegeta, k6 or envoy, says what it means.")
@click.option("--expect", help="With --mapping: shares, the baseline first, such as old=70%,new=30%.")
@click.option("--quiet", is_flag=True, help="Print the verdict's line only.")
def report(
    runs: tuple[Path, ...],
    mapping: str | None,
    expect: str | None,
    quiet: bool,  # noqa: FBT001
    **forms: Path | None,
) -> int:
    """Judge RUN (a directory; default the newest) and print its report; the exit code is the verdict's.

    With --mapping, RUN is a table of any load tool's (CSV, JSON lines or Parquet), judged by the same code.

    report.json, report.md, report.html and junit.xml are also written into the run directory, where it can be written.
    Several runs are compared: one line each, the trend of every claim, and the exit code of the last one.
    """
    wanted = {form: path for form, path in forms.items() if path is not None}
    _check_places(wanted, runs)
    if mapping is None and len(runs) > 1:
        from analysis.trend import compare

        return compare([_directory(run, expect) for run in runs], wanted, quiet=quiet)
    from analysis.patience import patience
    from analysis.render.drawing import pen_in_hand
    from analysis.uncollected import uncollected

    with uncollected(), patience() as told, pen_in_hand(wanted=mapping is None or "html" in wanted) as pen:
        told.doing("reading and judging the records")
        judged = _of_run(runs, expect, pen) if mapping is None else _of_table(runs, mapping, expect, pen)
        ahead, examined = judged
        from analysis.publish import LEFT, Subject, export, leave, show

        told.doing("drawing and writing the report")
        subject = Subject(examined, early=pen is not None)
        subject.make({*wanted, *(LEFT if mapping is None else ())}, ahead.keep if ahead else None)
        if mapping is None:
            leave(subject)
        if not export(subject, wanted):
            show(subject.report, quiet=quiet)
    return int(subject.report.verdict.exit_code)


_RECORDS = ("run.json", "journal.jsonl", "references.json", "requests-*.jsonl", "outputs-*.jsonl")


def _check_places(wanted: Mapping[str, Path], runs: Sequence[Path]) -> None:
    """Refuse two forms in one place, and a form in the place of what a report is made from."""
    tables = {run.resolve() for run in runs}
    taken: dict[Path, str] = {}
    for form, path in wanted.items():
        place = path if str(path) == "-" else path.resolve()
        if place in taken:
            raise click.UsageError(f"--{taken[place]} and --{form} both go to {path}: give each a place of its own.")
        recorded = (place.parent / "run.json").exists() and any(map(place.match, _RECORDS))
        if recorded or place in tables:
            raise click.UsageError(
                f"--{form} {path}: holds records; a report must not replace them: name another place."
            )
        taken[place] = form


def _of_run(runs: Sequence[Path], expect: str | None, pen: "Pen | None") -> tuple["Ahead", "Examined"]:
    """Rows are read while what judges them is imported, and what they show is drawn while they are judged."""
    run = _directory(runs[0] if runs else None, expect)
    from analysis.ahead import Ahead

    begun = Ahead(run)
    from analysis.judge import examine
    from analysis.render.html import prepare

    prepare()
    return begun, examine(run, begun.rows, lambda found: _drawn_early(found, pen))


def _drawn_early(found: "Found", pen: "Pen | None") -> None:
    from analysis.pictures.data import early

    if pen is not None:
        pen.add(early(found))


def _of_table(tables: Sequence[Path], mapping: str, expect: str | None, pen: "Pen | None") -> tuple[None, "Examined"]:
    from analysis.tables.judge import examine_table

    if len(tables) != 1:
        raise click.UsageError("--mapping goes with one table: name its file.")
    return None, examine_table(tables[0], mapping, expect, lambda found: _drawn_early(found, pen))


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
    from experiments.core import reading

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
    from analysis.uncollected import soon_ends

    soon_ends()
    command.main(analysis, "python -m analysis")
