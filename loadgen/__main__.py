"""`python -m loadgen predict`: one prediction by hand, and which arm gave it."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
import numpy as np

from experiments.core import command, home
from experiments.core.access import DIRECT, access_of, expanded, refuse_untrusted
from experiments.core.answers import UndecodableAnswerError, Vector, output_vector
from experiments.core.attribution import Attribution, Reference, attribute
from experiments.core.errors import Exit, ProvisionError
from experiments.core.labels import imagenet_labels
from experiments.core.records import RunDir, read_references
from experiments.core.routing import predict_path
from experiments.core.spec import Experiment
from experiments.core.stack import StackDir, StackInfo, read_payloads, read_stack
from loadgen.assignment import check_reachable, choose_experiment, read_body
from loadgen.predict import Answer, Connections, Dialer, Target, predict, request_head, target

_TOP = 10
_OK = 200


@dataclass(frozen=True)
class Asked:
    """What was sent: the payload's id where it is one of the stack's, and the request body."""

    payload: str | None
    body: bytes


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def loadgen() -> None:
    """Send predictions. The load itself runs under Locust: locust -f loadgen/canary.py --help."""


@loadgen.command(name="predict")
@click.argument("what", metavar="IMAGE|PAYLOAD_ID|FILE.json")
@click.option("--experiment", metavar="FILE|NAME", help="Default: that of the stack that is up.")
@click.option("--host", metavar="URL", help="Default: the gateway of the experiment's stack.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="May be given several times.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True, help="Seconds."
)
@click.option("--ca-file", metavar="FILE", help="Certificates to trust instead of the system's (https).")
@click.option("--client-cert", metavar="FILE", help="Our own certificate, for a host that asks for one.")
@click.option("--client-key", metavar="FILE", help="Its key.")
@click.option("--host-header", "host_header", metavar="NAME", help="The Host header. Default: the experiment's.")
@click.option("--sni", metavar="NAME", help="The name for TLS. Default: the Host header's.")
def predict_command(
    what: str,
    experiment: str | None,
    host: str | None,
    headers: tuple[str, ...],
    timeout: float,
    host_header: str | None,
    **over_tls: str | None,
) -> int:
    """Ask for one prediction; print its status, latency, top labels, and the arm that gave it.

    A header's value may hold ${NAME}, a variable of the environment. Exit code 0 for a prediction, 2 for anything else.
    """
    chosen, note = choose_experiment(experiment, assume=bool(host) and what.endswith(".json"))
    if note:
        command.say(f"note: {note}.")
    stack = read_stack(chosen.name)
    url = check_reachable(host or (stack.gateway_url if stack else None), chosen.name)
    asked = _asked(what, chosen, stack)
    said = {name: value for name, value in {"host": host_header, **over_tls}.items() if value is not None}
    access = access_of(chosen, msgspec.structs.replace(stack.access if stack else DIRECT, **said))
    answer, latency_ms = _ask(target(url, access), chosen, asked, (expanded(_headers(headers)), timeout))
    if not answer.status:
        refuse_untrusted(url, access)  # who was turned away before HTTP wants to know why
    click.echo("\n".join(_described(answer, latency_ms, chosen, asked)))
    return Exit.PROMOTE if answer.status == _OK and _output(answer) is not None else Exit.USAGE


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise click.UsageError(f"--header {each}: must be NAME=VALUE, such as user-group=canary; write it so.")
        found[name] = value
    return found


def _asked(what: str, experiment: Experiment, stack: StackInfo | None) -> Asked:
    """A payload of the stack, a request body from a file, or an image made into one."""
    index = StackDir(home.stack_dir(experiment.name)).payloads
    known = read_payloads(index) if index.exists() else {}
    if what in known:
        return Asked(what, known[what])
    path = Path(what)
    if not path.is_file():
        names = ", ".join(list(known)[:_TOP]) or "none, for no stack is up"
        raise ProvisionError(f"{what}: no file, and no payload of the stack (there are: {names}); name one of these.")
    body = read_body(path) if path.suffix == ".json" else _body_of_image(path, experiment, stack)
    return Asked(next((name for name, content in known.items() if content == body), None), body)


def _body_of_image(image: Path, experiment: Experiment, stack: StackInfo | None) -> bytes:
    """The request body that `deploy` makes of an image; in a process of its own, for we may not import it.

    Raises:
        ProvisionError: with the line that `deploy` said, or because the model takes no images.
    """
    known = stack.models.get(experiment.baseline, {}) if stack else {}
    preprocessing = known.get("preprocessing", {})
    if preprocessing is None or preprocessing.get("mode") == "none":
        raise ProvisionError(
            f"{image}: {experiment.name}'s model takes no images; name a payload of its stack by its id."
        )
    settings = ["--mode", preprocessing["mode"], "--size", str(preprocessing["height"])] if preprocessing else []
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "body.json"
        done = subprocess.run(
            [sys.executable, "-m", "deploy", "payload", str(image.absolute()), "-o", str(made), *settings],
            cwd=home.CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [
                f"{image}: deploy payload said nothing, exit {done.returncode}"
            ]
            raise ProvisionError(lines[-1])
        return read_body(made)


def _ask(
    to: Target, experiment: Experiment, asked: Asked, how: tuple[Mapping[str, str], float]
) -> tuple[Answer, float]:
    """The answer, and its latency in milliseconds, connecting included.

    `how`: headers, timeout in seconds.
    """
    headers, timeout_s = how
    dialer = Dialer(to)
    connections = Connections(dialer)
    head = request_head(dialer.target, predict_path(experiment.model), headers, asked.body)
    request = head + f"predict-{time.time_ns():x}\r\n\r\n".encode() + asked.body
    start = time.monotonic()
    answer = predict(connections, request, timeout_s)
    latency_ms = (time.monotonic() - start) * 1000
    connections.close()
    return answer, latency_ms


def _described(answer: Answer, latency_ms: float, experiment: Experiment, asked: Asked) -> list[str]:
    output = _output(answer)
    upstream = f" (server {answer.upstream_us / 1000:.0f} ms)" if answer.upstream_us is not None else ""
    lines = [
        f"status   {answer.status or 'none'}{'' if answer.error is None else f' ({answer.error})'}",
        f"latency  {latency_ms:.1f} ms{upstream}",
        f"route    {answer.route or 'no route header'}",
    ]
    if output is None:
        said = answer.body.decode("utf-8", "replace").strip()[:200]
        return [*lines, "arm      cannot tell: the answer is no prediction", *([f"answer   {said}"] if said else [])]
    return [*lines, f"arm      {_arm(output, experiment, asked)}", *_top(output)]


def _output(answer: Answer) -> Vector | None:
    try:
        return output_vector(answer.body) if answer.status == _OK else None
    except UndecodableAnswerError:
        return None


def _arm(output: Vector, experiment: Experiment, asked: Asked) -> str:
    """The arm whose reference the output matches, with the distances, or why none can be named."""
    references = read_references(RunDir(home.stack_dir(experiment.name)))
    if references is None:
        return f"cannot tell: no references; they are made by: python -m deploy up {experiment.name}"
    known = references.payloads.get(asked.payload or "")
    if known is None:
        return "cannot tell: no reference for this payload; name a payload of the stack by its id"
    arms = {arm: Reference(np.array(each.output), each.noise) for arm, each in known.arms.items()}
    return _attributed(attribute(output, arms))


def _attributed(found: Attribution) -> str:
    gaps = ", ".join(f"{arm} {gap:.3g}" for arm, gap in found.distances.items())
    return f"{found.arm or f'cannot tell: {found.reason}'} (distance to {gaps})"


def _top(output: Vector) -> list[str]:
    """The largest outputs; by name where there are as many as ImageNet has classes."""
    names = imagenet_labels() if output.size == len(imagenet_labels()) else None
    order = np.argsort(-output, kind="stable")[:_TOP].tolist()
    return [f"{output[index]:8.4f}  {names[index] if names else f'class {index}'}" for index in order]


if __name__ == "__main__":
    command.main(loadgen, "python -m loadgen")
