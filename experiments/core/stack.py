"""What a stack says of itself in its state directory: where it listens, what it serves, which bodies to send.

`deploy` writes these files; `loadgen` and the conductor read them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from experiments.core.access import DIRECT, Access
from experiments.core.errors import StackError
from experiments.core.home import stack_dir
from experiments.core.records import check_schema


class Pod(msgspec.Struct, frozen=True):
    """One serving process: its name, the arm that it serves, its address past the gateway, its process id."""

    name: str
    arm: str
    url: str
    pid: int


class Front(msgspec.Struct, frozen=True):
    """The port of a Gateway at which traffic comes in, and whether it speaks TLS there.

    `target` is where the gateway's pods listen for it, by the `targetPort` of their Service; None where none was found.
    """

    port: int = 80
    tls: bool = False
    target: int | None = None

    @property
    def scheme(self) -> str:
        """Of a URL that leads there."""
        return "https" if self.tls else "http"

    @property
    def pod_port(self) -> int:
        """Where the gateway's pods listen for it; without a Service to say so, where `istioctl install` puts it."""
        return self.target or {80: 8080, 443: 8443}.get(self.port, self.port)


PLAIN = Front()
"""Port 80, without TLS."""


class ClusterInfo(msgspec.Struct, frozen=True):
    """Where a stack stands on Kubernetes, and how its objects were written.

    `selector` are the labels of the gateway's pods, `way_in` says how its address was found. `before` are the
    routes that an attached stack had before us.
    """

    context: str
    server: str
    istio: str
    profile: str
    model_root: str
    selector: dict[str, str]
    way_in: str
    before: list[dict[str, Any]] | None = None
    front: Front = PLAIN
    model_claim: str | None = None
    image: str | None = None
    gateway_namespace: str = "istio-system"
    mutual_tls: bool = True


class StackInfo(msgspec.Struct, frozen=True):
    """`stack.json`."""

    schema_version: int
    experiment: dict[str, Any]
    experiment_hash: str
    experiment_path: str
    target: str
    gateway_url: str
    admin_url: str
    pods: list[Pod]
    supervisor_pid: int
    started_us: int
    models: dict[str, dict[str, Any]] = {}
    versions: dict[str, str] = {}
    notes: list[str] = []
    access: Access = DIRECT
    cluster: ClusterInfo | None = None


class PayloadEntry(msgspec.Struct, frozen=True):
    """One request body: its file beside the index, what it was made from, its label where it is known."""

    file: str
    sha256: str
    source: str
    label: int | None = None


class PayloadIndex(msgspec.Struct, frozen=True):
    """`payloads/index.json`: payload id → body."""

    schema_version: int
    payloads: dict[str, PayloadEntry]


@dataclass(frozen=True)
class StackDir:
    """The paths inside a stack's state directory."""

    path: Path
    info: Path = field(init=False)
    journal: Path = field(init=False)
    references: Path = field(init=False)
    payloads: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "info", self.path / "stack.json")
        object.__setattr__(self, "journal", self.path / "journal.jsonl")
        object.__setattr__(self, "references", self.path / "references.json")
        object.__setattr__(self, "payloads", self.path / "payloads" / "index.json")


def read_stack(experiment: str) -> StackInfo | None:
    """What the stack of an experiment says of itself; None where there is none.

    Raises:
        StackError: the file is damaged.
    """
    path = StackDir(stack_dir(experiment)).info
    if not path.exists():
        return None
    try:
        decoded = msgspec.json.decode(path.read_bytes())
        check_schema(path, decoded.get("schema_version"))
        return msgspec.convert(decoded, StackInfo)
    except msgspec.MsgspecError as error:
        raise StackError(
            f"{path}: not readable ({error}); remove it with: python -m deploy down {experiment}"
        ) from error


def read_payloads(index: Path) -> dict[str, bytes]:
    """Payload id → request body.

    Raises:
        StackError: the index or a body is missing or damaged.
    """
    try:
        entries = msgspec.json.decode(index.read_bytes(), type=PayloadIndex).payloads
        return {name: (index.parent / entry.file).read_bytes() for name, entry in entries.items()}
    except (msgspec.MsgspecError, OSError) as error:
        raise StackError(
            f"{index}: payloads cannot be read ({error}); make them anew with: python -m deploy up"
        ) from error
