"""Put a mesh up, say how to reach it, and take it down on Ctrl-C: `python tests/mesh/up.py`."""

import signal
import sys
import threading
import time

import click
from plane import binaries
from plane.mesh import Mesh, standing, why_no_place
from plane.waiting import MeshError

from experiments.core import command
from experiments.core.errors import StackError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--build-only", is_flag=True, help="Build the programs that the cache lacks, and end.")
@click.option("--for", "seconds", type=click.FloatRange(min=0), help="End after this many seconds, not on Ctrl-C.")
def up(build_only: bool, seconds: float | None) -> None:  # noqa: FBT001 - a flag of the command line
    """A Kubernetes API server, Istio and a gateway, in a network namespace of their own."""
    began = time.monotonic()

    def told(text: str) -> None:
        command.say(f"{time.monotonic() - began:6.1f} s  {text}")

    reason = why_no_place()
    if reason:
        raise StackError(f"no mesh can be put up here: {reason}.")
    try:
        binaries.build(told)
        if build_only:
            return
        with standing(told) as mesh:
            _describe(mesh)
            _wait(seconds)
            told("taking it down")
    except (binaries.BuildError, MeshError) as error:
        raise StackError(str(error)) from error


def _describe(mesh: Mesh) -> None:
    with mesh.inside():
        url = mesh.gateway_url
    click.echo(f"export KUBECONFIG={mesh.kubeconfig}")
    click.echo(f"ip netns exec {mesh.place.namespace.name} kubectl get pods -A")
    click.echo(f"ip netns exec {mesh.place.namespace.name} curl {url}/")
    command.say("Ctrl-C takes it down.")


def _wait(seconds: float | None) -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait(seconds)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    command.main(up, "python tests/mesh/up.py")
