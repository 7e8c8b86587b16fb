"""`python -m experiments`: list | run | selftest | schema."""

import json
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from deploy.options import cluster_options, named, refuse_without_cluster, wanted
from experiments.core import command, reading
from experiments.core.errors import Exit, SplitproofError
from experiments.core.quantities import Seconds

SABOTAGES = ("swapped", "leak", "impostor", "slower", "failing")
"""Names of `experiments.sabotage`, known without the seconds that importing it takes."""


@click.group(help=__doc__)
def experiments() -> None:
    """Hold the commands together."""


@experiments.command("list")
def list_experiments() -> None:
    """What can be run, one line each."""
    for path in reading.catalogue():
        experiment = reading.load(str(path)).experiment
        click.echo(f"{experiment.name:<12} {experiment.description}")


@experiments.command()
@click.argument("experiment")
@click.option("--target", type=click.Choice(["embedded", "kubernetes"]), default="embedded", show_default=True)
@cluster_options
@click.option("--runs", type=click.Path(file_okay=False, path_type=Path), help="Where run directories go.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a value, as load.arrivals=5/s.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Load processes.")
@click.option(
    "--load",
    type=click.Choice(["here", "in-cluster"]),
    default="here",
    show_default=True,
    help="Where the load comes from: this machine, or pods of the cluster.",
)
@click.option("--load-image", metavar="IMAGE", help="in-cluster: an image of this checkout.")
@click.option("--workers", type=click.IntRange(1, 1000), help="in-cluster: load processes. [default: 3]")
@click.option("--load-host", metavar="URL", help="in-cluster: the way in from the inside, where it cannot be found.")
@click.option("--load-namespace", metavar="NAME", help="in-cluster: where the load runs. [default: splitproof-load]")
@click.option("--payloads-claim", metavar="NAME", help="in-cluster: a claim with the bodies, where they are too large.")
@click.option("--until-decided", is_flag=True, help="End each phase, and the run, once what is required is decided.")
@click.option("--at-most", metavar="DURATION", help="End the load after so long in all, as 5m.")
def run(
    experiment: str,
    target: str,
    runs: Path | None,
    changes: tuple[str, ...],
    processes: int,
    until_decided: bool,  # noqa: FBT001
    at_most: str | None,
    **cluster: Any,
) -> int:
    """Run EXPERIMENT (a file, or a name of the catalogue) and print its verdict; the exit code is the verdict's."""
    sending = {name: cluster.pop(name) for name in _SENDING}
    loaded = reading.load(experiment, named(changes, cluster))
    limit = _duration(at_most)
    # The parts that a run needs are heavy: `list`, `--help` and a wrong file do without them.
    from analysis.publish import publish
    from experiments.conductor import Options, conduct
    from experiments.core import home
    from experiments.progress import Narrator

    narrator = Narrator()
    narrator.say(f"{loaded.experiment.name} on the {target} target")
    _announce_plan(loaded)
    load = _load(processes, target, sending)
    options = Options(runs or home.runs(), None, _target(target, cluster), load, until_decided, limit)
    outcome = conduct(loaded, options, narrator)
    publish(outcome.examined)
    return int(outcome.report.verdict.exit_code)


_SENDING = ("load", "load_image", "workers", "load_host", "load_namespace", "payloads_claim")


def _load(processes: int, target: str, sending: dict[str, Any]) -> Any:
    """Where the load comes from.

    Raises:
        click.UsageError: options that do not go together.
    """
    from experiments.loads import Here, InCluster

    given = {name: value for name, value in sending.items() if value is not None and name != "load"}
    if sending["load"] == "here":
        if given:
            raise click.UsageError(f"--{next(iter(given)).replace('_', '-')} belongs to --load in-cluster; add that.")
        return Here(processes)
    if target != "kubernetes":
        raise click.UsageError("--load in-cluster belongs to --target kubernetes; add that, or leave it out.")
    if processes != 1:
        raise click.UsageError("--processes is for a load from here; with --load in-cluster say --workers N.")
    if "load_image" not in given:
        raise click.UsageError("--load in-cluster needs --load-image IMAGE; docs/how-to/load-image.md makes one.")
    return InCluster(**{name.removeprefix("load_"): value for name, value in given.items()})


def _target(target: str, cluster: dict[str, Any]) -> Any:
    """Where the run's stack lives.

    Raises:
        click.UsageError: options of a cluster without one.
    """
    from experiments.targets import Embedded, Kubernetes

    if target == "embedded":
        refuse_without_cluster(cluster)
        return Embedded()
    return Kubernetes(wanted(cluster))


def _duration(text: str | None) -> float | None:
    """Seconds, from how people write them.

    Raises:
        click.UsageError: it is no duration above zero.
    """
    if text is None:
        return None
    try:
        found: float = TypeAdapter(Seconds).validate_python(text, context={"file": True})
    except ValidationError as error:
        raise click.UsageError(f"--at-most {error.errors()[0]['msg']}; write it so.") from error
    if found <= 0:
        raise click.UsageError(f"--at-most {text}: must be above 0, as 5m; write it so.")
    return found


def _announce_plan(loaded: reading.Loaded) -> None:
    """Say before the load what it can and cannot decide."""
    from analysis.plan import plan

    for line in plan(loaded.experiment).lines():
        command.say(line)


@experiments.command()
@click.option("--only", help="One sabotage by name.")
@click.option("--runs", type=click.Path(file_okay=False, path_type=Path), help="Where run directories go.")
def selftest(only: str | None, runs: Path | None) -> int:
    """Break a real stack in known ways, and prove that each is caught and no healthy twin is blamed."""
    if only not in (None, *SABOTAGES):
        raise SplitproofError(f"--only {only}: must be one of {', '.join(SABOTAGES)}; name one.")
    from experiments import sabotage
    from experiments.conductor import Options
    from experiments.core import home
    from experiments.progress import Narrator

    trials = sabotage.selftest(only, Options(runs or home.runs()), Narrator())
    for trial in trials:
        click.echo(f"{'ok    ' if trial.passed else 'MISSED'}  {trial.name:<20} {trial.sentence}")
    return Exit.PROMOTE if all(trial.passed for trial in trials) else Exit.ROLL_BACK


@experiments.command()
@click.option("--check", type=click.Path(dir_okay=False, path_type=Path), help="Compare with a file instead.")
def schema(check: Path | None) -> None:
    """Print the JSON Schema of an experiment file."""
    text = json.dumps(reading.json_schema(), indent=2, ensure_ascii=False)
    if check is None:
        click.echo(text)
    elif check.read_text(encoding="utf-8").rstrip("\n") != text:
        raise SplitproofError(f"{check}: is out of date; write it anew: python -m experiments schema > {check}")


if __name__ == "__main__":
    command.main(experiments, "python -m experiments")
