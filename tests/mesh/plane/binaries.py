"""The control plane's programs: built from pinned Go modules, once, into a cache outside the checkout.

Each folder under `tests/mesh/go` is a Go module of its own whose go.mod names the programs as tools and whose go.sum
fixes every source by its hash. The cache key is the hash of both and of the linker's flags, so a new pin builds anew
and an old checkout still finds its old programs.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).parent.parent / "go"
CACHE_VARIABLE = "SPLITPROOF_MESH_CACHE"

Progress = Callable[[str], None]


class BuildError(Exception):
    """A program cannot be built; the message has the compiler's last lines."""


@dataclass(frozen=True)
class Module:
    """A Go module of ours, the programs that it builds, and the versions that their linker stamps into them."""

    name: str
    programs: tuple[str, ...]
    stamps: tuple[str, ...] = ()

    @property
    def flags(self) -> list[str]:
        """Flags of `go build`: no debug tables, since these programs are only run."""
        return ["-trimpath", "-ldflags", " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in self.stamps)])]


ALL = (
    Module("etcd", ("server",)),
    Module("kwok", ("kwok",)),
    # Clients parse the server's version; an unstamped build has none that they can parse.
    Module(
        "kubernetes",
        ("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
        ("k8s.io/component-base/version.gitVersion=v1.36.3",),
    ),
    # The pinned commit lies after the branch cut of 1.31 and is no release; Istio names such builds like this.
    Module(
        "istio", ("pilot-discovery", "istioctl"), ("istio.io/istio/pkg/version.buildVersion=1.31-alpha.eed52ebb66ad",)
    ),
)


def cache() -> Path:
    """Where the programs lie: `$SPLITPROOF_MESH_CACHE`, or the user's own cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).expanduser() if given else Path.home() / ".cache" / "splitproof" / "mesh"


def folder(module: Module) -> Path:
    """The cache folder of a module's programs, named by the hash of all that decides them."""
    decides = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        decides.update((MODULES / module.name / name).read_bytes())
    decides.update("\0".join(module.flags).encode())
    return cache() / f"{module.name}-{decides.hexdigest()[:16]}"


def missing() -> list[Module]:
    """The modules whose programs the cache lacks."""
    return [module for module in ALL if not all((folder(module) / program).is_file() for program in module.programs)]


def paths() -> Mapping[str, Path]:
    """Each program's name and where it lies."""
    return {program: folder(module) / program for module in ALL for program in module.programs}


def build(progress: Progress) -> None:
    """Build what the cache lacks; several callers at once build each module once.

    Raises:
        BuildError: Go is missing, or refuses.
    """
    cache().mkdir(parents=True, exist_ok=True)
    with _alone():
        for left in cache().glob(".*-*"):  # of a build that was killed
            shutil.rmtree(left, ignore_errors=True)
        wanted = missing()
        if wanted and shutil.which("go") is None:
            raise BuildError(
                f"go is not on the PATH, and the cache {cache()} lacks {', '.join(m.name for m in wanted)}."
            )
        for module in wanted:
            progress(f"building {', '.join(module.programs)} (minutes, once)")
            _build(module)


@contextmanager
def _alone() -> Iterator[None]:
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(module: Module) -> None:
    """Build aside and move: a folder under its final name is whole."""
    with tempfile.TemporaryDirectory(dir=cache(), prefix=f".{module.name}-") as aside:
        out = Path(aside) / "programs"
        out.mkdir()
        command = ["nice", "-n", "19", "go", "build", "-mod=readonly", *module.flags, "-o", f"{out}{os.sep}", "tool"]
        environment = {**os.environ, "GOWORK": "off", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
        done = subprocess.run(
            command, cwd=MODULES / module.name, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BuildError(f"go build of {module.name} failed: {' | '.join(done.stderr.splitlines()[-3:])}")
        final = folder(module)
        shutil.rmtree(final, ignore_errors=True)
        out.rename(final)
