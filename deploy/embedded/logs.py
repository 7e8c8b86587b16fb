"""Envoy's access log within bounds: a stack that stays up for weeks must not fill the disk."""

import contextlib

from deploy.asking import ask
from deploy.embedded.bootstrap import EnvoyFiles

LARGEST = 128 * 2**20
"""Bytes; about a third of a million requests. The log before it is kept too, so twice this is the most there can be."""


def keep_bounded(files: EnvoyFiles, largest: int = LARGEST) -> bool:
    """Put an access log that has grown to `largest` bytes aside, in the place of the one before; whether it did.

    Envoy goes on writing to the file it has open until it is told to open the log anew, so that no line is lost.
    """
    with contextlib.suppress(OSError):
        if files.access_log.stat().st_size >= largest:
            files.access_log.replace(files.access_log_before)
            ask(f"http://{files.admin.read_text().strip()}/reopen_logs", method="POST")
            return True
    return False
