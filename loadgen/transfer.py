"""The records of a worker on another machine come to the master as they grow, over Locust's own messages."""

import contextlib
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gevent
from gevent.lock import Semaphore

from experiments.core.errors import RecordsError

PIECE = "splitproof-records"
_PIECE_BYTES = 256 * 1024
_EVERY_S = 1.0
_NAME = re.compile(r"(requests|outputs)-[A-Za-z0-9_.-]+\.jsonl")


class Sender:
    """Sends files that grow, from where it was before, about once a second; what is left of them at the end.

    What comes while the load runs is what the master's looks and brakes see.
    """

    def __init__(self, files: Sequence[Path], send_message: Callable[[str, dict[str, Any]], None]) -> None:
        self._sent: dict[Path, int] = dict.fromkeys(files, 0)
        self._send_message = send_message
        self._turn, self._over = Semaphore(), False
        self._follower: Any = None

    def follow(self) -> None:
        """Begin to send what is new, beside everything else that this process does."""
        self._follower = gevent.spawn(self._follow)

    def _follow(self) -> None:
        while not self._over:
            gevent.sleep(_EVERY_S)
            with self._turn, contextlib.suppress(RecordsError):  # said at the end, if it is still so then
                if not self._over:
                    self._send_new()

    def finish(self) -> dict[str, int]:
        """Send the rest of the closed files.

        Returns:
            Name to size in bytes.

        Raises:
            RecordsError: a file cannot be read.
        """
        self._over = True
        with self._turn:
            self._send_new()
            for path, size in self._sent.items():
                if not size:
                    self._send(path, 0, b"")  # an empty file is a file too
        return {path.name: size for path, size in self._sent.items()}

    def _send_new(self) -> None:
        for path in self._sent:
            try:
                with path.open("rb") as file:
                    file.seek(self._sent[path])
                    while piece := file.read(_PIECE_BYTES):
                        self._send(path, self._sent[path], piece)
                        self._sent[path] += len(piece)
                        gevent.sleep(0)  # heartbeats go between
            except OSError as error:
                raise RecordsError(
                    f"{path}: cannot be read: {error.strerror}; copy it to the master by hand."
                ) from error

    def _send(self, path: Path, offset: int, piece: bytes) -> None:
        self._send_message(PIECE, {"name": path.name, "offset": offset, "data": zlib.compress(piece, 1)})


def receive(run: Path, piece: Mapping[str, Any]) -> None:
    """Append a piece to its file in the run directory.

    Raises:
        RecordsError: it is no file of records, a piece before it is missing, or it cannot be written.
    """
    name, offset = str(piece["name"]), int(piece["offset"])
    if not _NAME.fullmatch(name):
        raise RecordsError(f"{name!r}: a worker sent what is no file of records; is it of another version?")
    path = run / name
    try:
        flags = os.O_WRONLY | os.O_APPEND | (0 if offset else os.O_CREAT | os.O_EXCL)
        descriptor = os.open(path, flags, 0o644)
        try:
            if os.fstat(descriptor).st_size != offset:
                raise RecordsError(f"{path}: a piece is missing before byte {offset}; copy the file from its worker.")
            left = memoryview(zlib.decompress(piece["data"]))
            while left:
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RecordsError(f"{path}: cannot be written: {error.strerror}; copy it from its worker.") from error


def incomplete(run: Path, sizes: Mapping[str, int]) -> list[str]:
    """The names of files that have not come whole."""
    return [name for name, size in sizes.items() if not _is_whole(run / name, size)]


def _is_whole(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size
