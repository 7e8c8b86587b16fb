"""What `python -m deploy` does and says on a cluster."""

from collections.abc import Iterator

import click

from deploy import istio
from deploy.cluster import ownership, stack
from deploy.cluster.client import connect
from deploy.cluster.objects import name_of
from deploy.cluster.stack import Wanted
from deploy.manifests import manifests
from deploy.phases import ON_END, find_phase
from experiments.core import command
from experiments.core.reading import Loaded

_INGRESS = {"istio": "ingressgateway"}


def up(loaded: Loaded, phase: str | None, wanted: Wanted, *, dry_run: bool) -> None:
    """Put a stack up, or let the API server say what it would do."""
    if dry_run:
        for line in _tried(loaded, phase, wanted):
            click.echo(line)
        return
    info = stack.up(loaded, wanted, first_phase=phase, progress=command.say)
    command.say(f"change its routing with: python -m deploy route {loaded.experiment.name} PHASE")
    click.echo(info.gateway_url or (info.cluster.way_in if info.cluster else ""))


def _tried(loaded: Loaded, phase: str | None, wanted: Wanted) -> Iterator[str]:
    cluster = connect(wanted.context)
    yield f"{cluster}: dry run, nothing is changed"
    form = wanted.form(istio.find(cluster).api)
    objects = manifests(loaded, find_phase(loaded, phase or loaded.experiment.phases[0].name), form)
    tried = {
        name_of(each) for each in ownership.refused_beforehand(cluster, loaded.experiment, objects, force=wanted.force)
    }
    for each in objects:
        yield f"{name_of(each)}: " + ("accepted" if name_of(each) in tried else "not tried, its namespace is not there")


def status_lines(name: str) -> list[str]:
    """What is up, in lines."""
    found = stack.status(name)
    where = found.info.cluster
    lines = [f"{name}: up in context {where.context} ({where.server})" if where else name]
    lines.append(f"  phase    {found.phase or 'none yet'}")
    lines.append(f"  way in   {found.info.gateway_url or (where.way_in if where else '')}")
    lines += [f"  pod      {pod}  {arm}  {'ready' if ready else 'not ready'}" for pod, arm, ready in found.pods]
    lines += [f"  drift    {sentence}" for sentence in found.drift]
    if found.drift:
        phase = found.phase if found.phase != ON_END else "PHASE"
        lines.append(f"  remedy   python -m deploy route {name} {phase} --force-conflicts")
    return lines


def istio_lines(context: str | None, *, install: bool) -> Iterator[str]:
    """What is known of a cluster's Istio, after installing it where that is asked for."""
    cluster = connect(context)
    if install:
        istio.install(cluster, command.say)
    found = istio.find(cluster)
    yield f"{cluster}: Istio {found.version or 'of unknown version'}, routing API {found.api}"
    yield f"  injects  {', '.join(found.revisions) or 'nobody: no sidecar injector is installed'}"
    way_in = istio.ingress(cluster, _INGRESS)
    yield f"  way in   {way_in.url or ''}{' by ' if way_in.url else ''}{way_in.how}"
