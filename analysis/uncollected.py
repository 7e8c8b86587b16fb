"""Work without the search for cycles, and in small pages, in a process that makes millions of objects and soon ends.

Importing what a report needs takes a third less; among rows, which hold no cycles, looking for some takes most of the
time. Objects that nothing refers to are given back all the same.
"""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Let no cycle be looked for; afterwards it is as it was."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def soon_ends() -> None:
    """Prepare a process that ends when its work is done; before numpy is imported.

    Cycles are not looked for at its end either, when all that it holds goes with it. Its arrays, each of which is
    filled once and soon given back, do without huge pages: a virtual machine gets those from its host one by one,
    which took half of the time of counting a million rows.
    """
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    atexit.register(_let_go)


def _let_go() -> None:
    """Leave all that is left to the end of the process; but DuckDB, where it was used, tells of what it misses then."""
    if "duckdb" not in sys.modules:
        gc.freeze()
