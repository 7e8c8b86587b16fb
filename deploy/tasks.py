"""What an export child is asked to do, and where it leaves outputs; shared with the processes that start it."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from experiments.core.errors import ProvisionError
from experiments.core.reading import Loaded, from_mapping
from experiments.core.spec import Arm


class Task(msgspec.Struct, frozen=True):
    """Make one arm's model ready in `into`, and its output for every body.

    The bodies are those of `payload_index` where it is given, else those that the experiment's payloads make.
    """

    arm: str
    into: str
    experiment: dict[str, Any]
    folder: str
    path: str
    payload_index: str | None = None

    def loaded(self) -> Loaded:
        """The experiment with its folder."""
        return Loaded(from_mapping(self.experiment, self.path), Path(self.folder), Path(self.path))

    def describe(self) -> str:
        """What is done, for people who wait for it."""
        if self.payload_index is not None:
            return "computing reference outputs"
        source = Arm.model_validate(self.experiment["arms"][self.arm])
        if source.digits is not None:
            return "training a small classifier of digits"
        return f"exporting {source.keras or source.saved_model} (once: exports are kept)"


def output_file(base_path: Path, body_sha256: str) -> Path:
    """Where the output of the model in `base_path` for one body is kept."""
    return base_path / "outputs" / f"{body_sha256}.json"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file at once: nobody ever sees half of it.

    Raises:
        ProvisionError: it cannot be written; nothing is left of it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ProvisionError(
            f"{path}: cannot be written: {error.strerror or error}; free space, change permissions or name another "
            "place."
        ) from error
