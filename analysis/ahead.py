"""Work begun before it is asked for: reading while modules are imported, counting while claims are judged.

Nothing depends on it but the time that a report takes.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from analysis.rows import Rows, read_rows
from experiments.core.records import RunDir, read_info


@dataclass(frozen=True)
class Ahead:
    """The rows of a run, which are being read, and the thread that has time when they have been."""

    rows: Future[Rows]
    thread: ThreadPoolExecutor


def ahead(run: RunDir) -> Ahead:
    """Begin to read the rows of a run; what is wrong with them is raised where they are asked for."""
    thread = ThreadPoolExecutor(1)
    return Ahead(thread.submit(lambda: read_rows(run, read_info(run), thread.submit)), thread)
