"""Rows that are read while what judges them is imported, and kept while it judges; nothing depends on it but time."""

from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from analysis.rows import Rows, read_rows
from experiments.core.records import RunDir, read_info


def ahead(run: RunDir) -> Future[Rows]:
    """Begin to read the rows of a run; what is wrong with them is raised where they are asked for."""
    # What numpy gave back Arrow takes again, and the other way round: a page that was never used before is cleared first.
    pa.set_memory_pool(pa.system_memory_pool())
    thread = ThreadPoolExecutor(1)
    return thread.submit(lambda: read_rows(run, read_info(run), thread.submit))
