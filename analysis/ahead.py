"""Rows that are read while what judges them is imported, and kept while it judges; nothing depends on it but time."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from analysis.rows import Rows, read_rows
from experiments.core.records import RunDir, read_info


class Ahead:
    """The rows of a run, on their way; what is wrong with them is raised where they are asked for."""

    def __init__(self, run: RunDir) -> None:
        # What numpy gave back Arrow takes again, and the other way round: new memory is cleared before it is used.
        pa.set_memory_pool(pa.system_memory_pool())
        self._thread = ThreadPoolExecutor(1)
        self._later: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self.rows: Future[Rows] = self._thread.submit(lambda: read_rows(run, read_info(run), self._put_off))

    def _put_off(self, work: Callable[..., object], *given: object) -> None:
        self._later.append((work, given))

    def keep(self) -> None:
        """Begin to keep the rows for the next who asks, if they were not kept; the process ends when it is done."""
        for work, given in self._later:
            self._thread.submit(work, *given)
