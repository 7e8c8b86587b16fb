"""The commands of `python -m deploy`: stand a stack up, change its routing, describe it, take it down."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click

from deploy import manifests as objects
from deploy import models as provisioning
from deploy import payloads
from deploy.embedded import stack as embedded
from deploy.embedded.state import names
from deploy.lint.command import lint
from deploy.locust_manifests import LoadForm, load_manifests
from deploy.model_info import RESNET
from deploy.options import cluster_options, named, refuse_without_cluster, wanted
from deploy.phases import find_phase
from deploy.tasks import write_whole
from experiments.core import command, reading
from experiments.core.errors import ProvisionError
from experiments.core.stack import read_stack

Mode = Literal["caffe", "tf", "torch", "none"]
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_SET = "Use this value instead of the file's, such as load.arrivals=5/s; may be given several times."


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def deploy() -> None:
    """Stand an experiment's stack up, change its routing, and take it down.

    EXPERIMENT is a file, or a name that `python -m experiments list` shows.
    """


deploy.add_command(lint)


def _experiment(*, required: bool = True) -> Decorator:
    return click.argument("experiment", required=required)


def _target() -> Decorator:
    return click.option(
        "--target",
        type=click.Choice(["embedded", "kubernetes"]),
        help="Where the stack lives: on this machine (embedded, the default), or on a cluster with Istio.",
    )


def _context() -> Decorator:
    return click.option("--context", help="kubernetes: context of the kubeconfig; needed where there are several.")


def _force_conflicts() -> Decorator:
    return click.option(
        "--force-conflicts", "force", is_flag=True, help="kubernetes: take over fields that others own."
    )


def _on_cluster(name: str, target: str | None) -> bool:
    """Whether a stack that is up, or is asked for, is one on a cluster."""
    info = read_stack(name)
    return target == "kubernetes" or (target is None and info is not None and info.target == "kubernetes")


def _name(experiment: str) -> str:
    """The name under which a stack lies: that of the experiment, or the word itself if a stack has that name."""
    return experiment if experiment in names() else reading.load(experiment).experiment.name


@deploy.command()
@_experiment()
@click.option(
    "--port", type=click.IntRange(1, 65535), help="embedded: loopback port of the gateway; else any free one."
)
@click.option("--phase", help="Begin with this phase instead of the first.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help=_SET)
@_target()
@cluster_options
@_force_conflicts()
@click.option(
    "--dry-run", is_flag=True, help="kubernetes: let the API server say what it would do, and change nothing."
)
@click.option("--timeout", "within_s", type=click.FloatRange(1, 86_400),
              help="kubernetes: seconds for pods to become ready. [default: 300]")  # fmt: skip
def up(
    experiment: str,
    port: int | None,
    phase: str | None,
    changes: tuple[str, ...],
    target: str | None,
    dry_run: bool,  # noqa: FBT001 - a flag of the command line
    **cluster: Any,
) -> None:
    """Put a stack up and leave it running; print the gateway's URL."""
    loaded = reading.load(experiment, named(changes, cluster))
    if target == "kubernetes":
        from deploy.cluster import command as on_cluster

        on_cluster.up(loaded, phase, wanted(cluster), dry_run=dry_run)
        return
    refuse_without_cluster({**cluster, "dry_run": dry_run})
    info = embedded.up(loaded, port=port, first_phase=phase, progress=command.say)
    command.say(f"change its routing with: python -m deploy route {loaded.experiment.name} PHASE")
    click.echo(info.gateway_url)


@deploy.command()
@_experiment()
@click.argument("phase")
@_target()
@_force_conflicts()
def route(experiment: str, phase: str, target: str | None, *, force: bool) -> None:
    """Put the routing of PHASE in force on a stack that is up."""
    name = _name(experiment)
    if _on_cluster(name, target):
        from deploy.cluster import stack

        change = stack.route(name, phase, force=force, told=command.say)
    else:
        refuse_without_cluster({"force_conflicts": force})
        change = embedded.route(name, phase, progress=command.say)
    took = ((change.effective_us or change.applied_us) - change.applied_us) / 1000
    click.echo(f"phase {change.phase} is in force, {took:.0f} ms after it was applied")


@deploy.command()
@_experiment(required=False)
@_target()
def status(experiment: str | None, target: str | None) -> None:
    """Say what is up: pods, phase in force, ports, and what is wrong; all stacks without EXPERIMENT."""
    asked = [_name(experiment)] if experiment else names()
    if not asked:
        click.echo("no stack is up")
    for name in asked:
        if _on_cluster(name, target):
            from deploy.cluster import command as on_cluster

            click.echo("\n".join(on_cluster.status_lines(name)))
        else:
            click.echo("\n".join(_status_lines(embedded.status(name))))


def _status_lines(found: embedded.StackStatus) -> list[str]:
    if found.info is None:
        return [f"{found.name}: {found.trouble or 'is being put up'}"]
    lines = [f"{found.name}: " + (f"down: {found.trouble}" if found.trouble else f"up at {found.info.gateway_url}")]
    lines.append(f"  phase    {found.phase or 'none yet'}")
    lines.append(f"  admin    {found.info.admin_url}")
    for each in found.pods:
        state = "alive" if each.alive else "dead"
        lines.append(f"  pod      {each.pod.name}  {each.pod.url}  pid {each.pod.pid}  {state}")
    if found.drift:
        lines.append(f"  drift    {found.drift}")
    if found.trouble:
        lines.append(f"  remedy   python -m deploy up {found.name}, or python -m deploy down {found.name}")
    return lines


@deploy.command()
@_experiment()
@_target()
@_context()
def down(experiment: str, target: str | None, context: str | None) -> None:
    """Take a stack down: processes or objects that are ours, and its state."""
    name = _name(experiment)
    if target == "embedded":
        refuse_without_cluster({"context": context})
    if _on_cluster(name, target) or context:  # a context is a cluster's
        from deploy.cluster import stack

        loaded = None if read_stack(name) else reading.load(experiment)
        was_there = stack.down(name, loaded, context, command.say)
    else:
        was_there = embedded.down(name, command.say)
    click.echo(f"{name} is down" if was_there else f"{name}: nothing is up")


@deploy.command()
@_context()
@click.option("--install", is_flag=True, help="Run istioctl install, with the profile that the canary lab uses.")
def istio(context: str | None, install: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """Say which Istio a cluster has, who injects sidecars and where traffic comes in; or install it."""
    from deploy.cluster import command as on_cluster

    for line in on_cluster.istio_lines(context, install=install):
        click.echo(line)


@deploy.command()
@_experiment()
@click.option("--phase", help="The phase to render; the first if left out.")
@click.option(
    "--profile",
    type=click.Choice(["tutorial", "hardened"]),
    default="hardened",
    show_default=True,
    help="tutorial: the canary lab's own YAML. hardened: with the route header and what a cluster needs.",
)
@click.option("--model-root", default="/data/models", show_default=True, help="Folder of the models on the node.")
@click.option("--model-claim", metavar="NAME", help="A PersistentVolumeClaim with a folder for each arm instead.")
@click.option("--image", metavar="IMAGE", help="TensorFlow Serving, best by its digest; the profile's tag if left out.")
@click.option(
    "--istio-api",
    type=click.Choice(objects.ISTIO_APIS),
    callback=lambda _context, _option, given: given and f"networking.istio.io/{given}",
    help="API version of Istio's objects; the profile's if left out.",
)
@click.option(
    "--gateway-namespace", default=objects.Form.gateway_namespace, show_default=True, help="Where the gateway runs."
)
@click.option(
    "--mutual-tls/--no-mutual-tls", default=True, help="Whether callers in the mesh have an identity, as by default."
)
@click.option("--load", "load_image", metavar="IMAGE", help="The load's objects instead: Locust's master and workers.")
@click.option("--workers", type=click.IntRange(1, 1000), default=3, show_default=True, help="With --load: how many.")
@click.option("--host", default=LoadForm.host, show_default=True, help="With --load: the gateway, from the inside.")
@click.option("--payload", "bodies", multiple=True, type=click.Path(path_type=Path), help="With --load: FILE.json.")
@click.option("--payloads-claim", help="With --load: a claim that holds the request bodies, instead of --payload.")
def render(experiment: str, phase: str | None, load_image: str | None, **options: Any) -> None:
    """Print the Kubernetes manifests of a phase, or of the load, as YAML; `kubectl apply -f -` reads them."""
    loaded = reading.load(experiment)
    if load_image is not None:
        form = _load_form(load_image, **{name: options[name] for name in _LOAD_OPTIONS})
        click.echo(objects.render(load_manifests(loaded.experiment, form)), nl=False)
        return
    chosen = find_phase(loaded, phase or loaded.experiment.phases[0].name)
    written = objects.Form(**{name: given for name, given in options.items() if name not in _LOAD_OPTIONS})
    click.echo(objects.render(objects.manifests(loaded, chosen, written)), nl=False)


_LOAD_OPTIONS = ("workers", "host", "bodies", "payloads_claim")


def _load_form(image: str, workers: int, host: str, bodies: tuple[Path, ...], payloads_claim: str | None) -> LoadForm:
    payloads: dict[str, bytes] = {}
    for path in bodies:
        try:
            payloads[path.name] = path.read_bytes()
        except OSError as error:
            raise ProvisionError(f"--payload {path}: cannot be read: {error.strerror}; check the path.") from error
    return LoadForm(image, host, workers, payloads=payloads, payloads_claim=payloads_claim)


@deploy.command()
@_experiment()
def export(experiment: str) -> None:
    """Make the SavedModels of every arm, or find them in the cache; print where they lie."""
    loaded = reading.load(experiment)
    for arm, model in provisioning.ensure(loaded, command.say).items():
        click.echo(f"{arm}  {model.base_path}  weights: {model.weights}")


@deploy.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A file, or a folder for several images.")
@click.option(
    "--mode",
    type=click.Choice(["caffe", "tf", "torch", "none"]),
    default=RESNET.mode,
    show_default=True,
    help="Preprocessing of the model family, by its name in keras.applications; ResNet's is caffe.",
)
@click.option("--size", type=click.IntRange(1, 4096), default=RESNET.height, show_default=True, help="Pixels a side.")
def payload(images: tuple[Path, ...], output: Path | None, mode: Mode, size: int) -> None:
    """Turn each IMAGE into a request body for TensorFlow Serving's REST API."""
    preprocessing = replace(RESNET, mode=mode, height=size, width=size)
    if output is None or not (output.is_dir() or len(images) > 1):
        if len(images) > 1:
            raise ProvisionError("several images need a folder to go into; name one with -o DIR.")
        _write_body(output, payloads.payload_for_image(images[0], preprocessing))
        return
    output.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for image in images:
        # Two images may differ in their folder or suffix alone: neither overwrites the other.
        name = payloads.unique_id(image, taken)
        _write_body(output / f"{name}.json", payloads.payload_for_image(image, preprocessing))


def _write_body(path: Path | None, body: bytes) -> None:
    if path is None:
        click.echo(body)
        return
    write_whole(path, body)
    click.echo(path)


if __name__ == "__main__":
    command.main(deploy, "python -m deploy")
