"""The command `python -m deploy lint`."""

import json
from collections.abc import Sequence
from dataclasses import asdict

import click

from deploy.form import Form, Profile
from deploy.lint.checking import CODES, Checked, check
from deploy.lint.findings import Finding
from deploy.lint.reading import Given, read
from experiments.core import command
from experiments.core.errors import ProvisionError

FOUND = 1
"""The exit code where there is at least one error."""


@click.command()
@click.argument("words", metavar="[EXPERIMENT|FILE]...", nargs=-1)
@click.option("--live", metavar="NAMESPACE", help="Check what is in a namespace of a cluster now.")
@click.option("--context", help="With --live: context of the kubeconfig; needed where there are several.")
@click.option("--profile", type=click.Choice(["tutorial", "hardened"]), default="hardened", show_default=True)
@click.option("--in-mesh", is_flag=True, help="Clients in the mesh are to be routed too, not only the gateway's.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def lint(
    words: tuple[str, ...],
    live: str | None,
    context: str | None,
    profile: Profile,
    *,
    in_mesh: bool,
    strict: bool,
    as_json: bool,
) -> int:
    """Find mistakes in manifests before any traffic.

    FILEs are checked together; - is standard input, as from kubectl get -o yaml. Of an EXPERIMENT each phase is
    checked by itself.

    Exit code: 0 no error was found, 1 an error was found, 2 something cannot be read.
    """
    if not words and live is None:
        raise click.UsageError("nothing to check; name an EXPERIMENT, a FILE, or --live NAMESPACE.")
    given_all = [*read(words, Form(profile)), *([_live(live, context)] if live else [])]
    checked = [(given, _checked(given, in_mesh=in_mesh)) for given in given_all]
    if as_json:
        click.echo(json.dumps([_as_json(given, found) for given, found in checked], indent=2))
    else:
        _print(checked)
    bad = sum(found.errors + (len(found.findings) if strict else 0) for _, found in checked)
    return FOUND if bad else 0


def _live(namespace: str, context: str | None) -> Given:
    from deploy.cluster.client import connect
    from deploy.cluster.live import objects

    cluster = connect(context)
    return Given(f"namespace {namespace}, {cluster}", objects(cluster, namespace))


def _checked(given: Given, *, in_mesh: bool) -> Checked:
    try:
        return check(given.objects, in_mesh_clients=in_mesh)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProvisionError(
            f"{given.where}: an object has not the shape of its kind ({type(error).__name__}: {error}); "
            "see: kubectl apply --dry-run=server -f FILE"
        ) from error


def _as_json(given: Given, found: Checked) -> dict[str, object]:
    return {
        "where": given.where,
        "objects": len(given.objects),
        "findings": [asdict(finding) for finding in found.findings],
        "untold": [asdict(each) for each in found.untold],
    }


def _print(checked: Sequence[tuple[Given, Checked]]) -> None:
    """Each finding once, with all the places where it holds; then what could not be told."""
    places: dict[Finding, list[str]] = {}
    untold: dict[str, str] = {}
    for given, found in checked:
        for finding in found.findings:
            places.setdefault(finding, []).append(given.where)
        untold.update({each.code: each.why for each in found.untold})
    for finding, where in places.items():
        click.echo(_text(finding, where))
    for code, why in sorted(untold.items()):
        command.say(f"{code} cannot tell of {CODES[code]}: {why}")
    errors = sum(finding.level == "error" for finding in places)
    objects = sum(len(given.objects) for given, _ in checked)
    command.say(f"errors: {errors}, warnings: {len(places) - errors}, objects: {objects}")


def _text(finding: Finding, where: Sequence[str]) -> str:
    return (
        f"{finding.code} {finding.level}: {finding.object}: {finding.field}: {finding.what}\n"
        f"  in:  {'; '.join(where)}\n  why: {finding.why}\n  fix: {finding.fix}"
    )
