"""The options of a stack on a cluster, which `deploy up` and `experiments run` share; light, for `--help`."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from deploy.form import DEFAULT_FORM
from experiments.core.access import Access

if TYPE_CHECKING:
    from deploy.cluster.stack import Wanted

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_FILES = ("ca_file", "client_cert", "client_key")

# None of them has a default here: what was not said must be told from what was, since only a cluster takes it.
_OPTIONS: tuple[Decorator, ...] = (
    click.option("--context", help="kubernetes: context of the kubeconfig; needed where there are several."),
    click.option("--gateway", metavar="URL", help="kubernetes: the way in, where it cannot be found."),
    click.option(
        "--profile",
        type=click.Choice(["tutorial", "hardened"]),
        help=f"kubernetes: how the objects are written. [default: {DEFAULT_FORM.profile}]",
    ),
    click.option(
        "--model-root",
        metavar="DIR",
        help=f"kubernetes: folder of the models on the node. [default: {DEFAULT_FORM.model_root}]",
    ),
    click.option(
        "--model-claim", metavar="NAME", help="kubernetes: a claim with a folder for each arm, in place of a node's."
    ),
    click.option("--image", metavar="IMAGE", help="kubernetes: TensorFlow Serving, best by its digest."),
    click.option(
        "--gateway-namespace",
        metavar="NAME",
        help=f"kubernetes: where the gateway's pods run. [default: {DEFAULT_FORM.gateway_namespace}]",
    ),
    click.option(
        "--mutual-tls/--no-mutual-tls",
        default=None,
        help="kubernetes: whether callers in the mesh have an identity, as by default.",
    ),
    click.option("--ca-file", metavar="FILE", help="kubernetes: certificates to trust where the way in is https."),
    click.option("--client-cert", metavar="FILE", help="kubernetes: our own certificate, for a way in that asks."),
    click.option("--client-key", metavar="FILE", help="kubernetes: its key."),
)

_NAMES: tuple[Decorator, ...] = (
    click.option("--host-header", metavar="NAME", help="The Host header; short for --set gateway.host=NAME."),
    click.option("--sni", metavar="NAME", help="The name for TLS; short for --set gateway.sni=NAME."),
)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a cluster, and those of the gateway's names."""
    for option in reversed((*_OPTIONS, *_NAMES)):
        command = option(command)
    return command


def named(changes: tuple[str, ...], options: dict[str, Any]) -> tuple[str, ...]:
    """The changes of an experiment, with the gateway's names among them; those leave the options."""
    places = {"host_header": "gateway.host", "sni": "gateway.sni"}
    given = [(place, options.pop(name, None)) for name, place in places.items()]
    return (*changes, *(f"{place}={value}" for place, value in given if value is not None))


def refuse_without_cluster(options: Mapping[str, Any]) -> None:
    """Raise if options of a cluster were given to a stack on this machine.

    Raises:
        click.UsageError: naming the first.
    """
    for name, value in options.items():
        if value is not None and value is not False:
            raise click.UsageError(
                f"--{name.replace('_', '-')} belongs to --target kubernetes; add that, or leave it out."
            )


def wanted(options: Mapping[str, Any]) -> "Wanted":
    """How a stack is to be put up, by the options that were given."""
    from deploy.cluster.stack import Wanted

    given = {name: value for name, value in options.items() if value is not None}
    files = {name: given.pop(name) for name in _FILES if name in given}
    return Wanted(**given, access=Access(**files))
