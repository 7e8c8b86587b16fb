"""A file that another process appends lines to, read from where the last reading ended."""

from dataclasses import dataclass, field
from pathlib import Path

from experiments.core.errors import RecordsError


@dataclass
class Tail:
    """The whole lines of a growing file, each given once; what comes after the last newline waits for its rest."""

    path: Path
    offset: int = 0
    rest: bytes = field(default=b"", repr=False)
    number: int = 0

    def read(self) -> list[bytes]:
        """The lines that were completed since the last call.

        Raises:
            RecordsError: the file is gone, cannot be read, or is shorter than it was.
        """
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                if size < self.offset:
                    raise RecordsError(f"{self.path}: is shorter than it was; a shard only grows; was it replaced?")
                file.seek(self.offset)
                new = file.read(size - self.offset)
        except OSError as error:
            raise RecordsError(f"{self.path}: cannot be read any more: {error.strerror}.") from error
        self.offset += len(new)
        *lines, self.rest = (self.rest + new).split(b"\n")
        self.number += len(lines)
        return lines

    @property
    def torn(self) -> bool:
        """Whether a line is not whole yet."""
        return self.rest != b""
