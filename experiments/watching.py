"""`python -m analysis watch` as a child: the looks at a run, made in a process of their own."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from analysis.look import Look, from_json
from analysis.watch import LIVE_FILE
from experiments.core import children
from experiments.core.errors import StackError
from experiments.core.records import RunDir

EVERY_S = 1.0
_PATIENCE_S = 5.0


@dataclass
class Watcher:
    """The child and the last look that was read of it."""

    run: RunDir
    process: subprocess.Popen[bytes]
    seen: Look | None = None
    _stamp: int = 0

    def look(self) -> Look | None:
        """The newest look if there is one that has not been given yet.

        Raises:
            StackError: the child died, or said something else.
        """
        if self.process.poll() is not None:
            last = children.last_lines(self.run.path / "watch.log")
            raise StackError(f"the watch ended early with exit code {self.process.returncode}: {last or 'no word'}")
        path = self.run.path / LIVE_FILE
        try:
            stamp = path.stat().st_mtime_ns
            if stamp == self._stamp:
                return None
            self.seen = from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise StackError(f"{path}: is no look ({error}).") from error
        self._stamp = stamp
        return self.seen


@contextlib.contextmanager
def watching(run: RunDir) -> Iterator[Watcher]:
    """A child that looks at a run about once a second, and is ended with its last look removed."""
    arguments = [sys.executable, "-m", "analysis", "watch", str(run.path), "--into-run", "--every", f"{EVERY_S:g}"]
    process = children.spawn(arguments, run.path / "watch.log")
    try:
        yield Watcher(run, process)
    finally:
        children.end(process, _PATIENCE_S)
        (run.path / LIVE_FILE).unlink(missing_ok=True)
