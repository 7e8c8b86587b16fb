"""The records of a worker on another machine come to the master at the end, in pieces, over Locust's own messages."""

import os
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gevent

from experiments.core.errors import RecordsError

PIECE = "splitproof-records"
_PIECE_BYTES = 256 * 1024
_NAME = re.compile(r"(requests|outputs)-[A-Za-z0-9_.-]+\.jsonl")


def send(files: list[Path], send_message: Callable[[str, dict[str, Any]], None]) -> dict[str, int]:
    """Send whole files.

    Returns:
        Name to size in bytes.

    Raises:
        RecordsError: a file cannot be read.
    """
    sizes = {}
    for path in files:
        try:
            with path.open("rb") as file:
                offset = 0
                while piece := file.read(_PIECE_BYTES):
                    send_message(PIECE, {"name": path.name, "offset": offset, "data": zlib.compress(piece, 1)})
                    offset += len(piece)
                    gevent.sleep(0)  # heartbeats go between
        except OSError as error:
            raise RecordsError(f"{path}: cannot be read: {error.strerror}; copy it to the master by hand.") from error
        sizes[path.name] = offset
    return sizes


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
