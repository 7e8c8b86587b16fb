"""The processes of one mesh: where they start, what they log, and that every one of them ends."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from plane.namespace import Namespace, inside
from plane.waiting import MeshError

from experiments.core.children import end, last_lines, spawn

_PATIENCE_S = 2.0


@dataclass(frozen=True)
class Place:
    """The folder of a mesh, which goes when it goes, the namespace of its node, and where the programs lie."""

    folder: Path
    namespace: Namespace
    programs: Mapping[str, Path]

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    def log(self, name: str) -> Path:
        """The log of a process."""
        return self.folder / "logs" / f"{name}.log"


def start(
    place: Place,
    name: str,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    namespace: Namespace | None = None,
) -> Popen[bytes]:
    """Start a process in the node's namespace or another; the kernel kills it if the thread that starts it dies.

    Its folder is the mesh's, since some programs write into the folder that they start in.
    """
    folder = ["env", "-C", str(place.folder)]
    with inside(namespace or place.namespace):
        return spawn([*folder, *arguments], place.log(name), environment, death=signal.SIGKILL)


@contextmanager
def running(
    place: Place, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[Popen[bytes]]:
    """A process that runs for as long as the block does."""
    process = start(place, name, arguments, environment)
    try:
        yield process
    finally:
        end(process, _PATIENCE_S)


def finish(place: Place, name: str, arguments: Sequence[str], within_s: float) -> None:
    """Run a process to its end.

    Raises:
        MeshError: it fails, or takes too long; the message has its last lines.
    """
    with running(place, name, arguments) as process:
        try:
            code = process.wait(within_s)
        except Exception as error:
            raise MeshError(f"{name} took more than {within_s:.0f} s: {last_lines(place.log(name), 2)}") from error
    if code:
        raise MeshError(f"{name} ended with {code}: {last_lines(place.log(name), 3)}")


def environment(place: Place) -> dict[str, str]:
    """The environment of a command that shall see this cluster and no other."""
    return {**os.environ, "KUBECONFIG": str(place.kubeconfig)}
