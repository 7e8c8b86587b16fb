"""The brakes of a run: what its last ten seconds look like by arm, and whether that ends it at once.

No statistics: a brake protects the users of a live service, and may be wrong. What was recorded is judged all the same.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from analysis.tail import Tail
from experiments.core.records import Row, RunDir, decode_line
from experiments.core.routing import routed_arm
from experiments.core.spec import AbortIf

WINDOW_S = 10.0
"""How far back a brake looks."""

FEWEST = {"errors": 20, "p99": 100}
"""Requests of an arm in that time without which a brake says nothing: a p99 of fewer would be its maximum."""

_EVERY_S = 1.0


@dataclass
class Brakes:
    """What was read of a run's shards, and the finished requests of the last seconds.

    `ahead_us` is how far the clock of the load is ahead of ours.
    """

    run: RunDir
    rule: AbortIf
    recent: deque[Row] = field(default_factory=deque)
    ahead_us: int = 0
    _tails: dict[str, Tail] = field(default_factory=dict)
    _next: float = 0.0

    def why(self) -> str | None:
        """The sentence that ends the run; None while nothing does. Looks once a second, however often it is asked."""
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + _EVERY_S
        self.recent.extend(self._new())
        since = time.time_ns() // 1000 + self.ahead_us - int(WINDOW_S * 1e6)
        self.recent = deque(row for row in self.recent if row.start_us + row.latency_us >= since)
        return next(_breaches(list(self.recent), self.rule), None)

    def _new(self) -> Iterator[Row]:
        for path in self.run.shards():
            tail = self._tails.setdefault(path.name, Tail(path))
            first = tail.number
            for number, line in enumerate(tail.read(), start=first + 1):
                item = decode_line(path, number, line) if number > 1 else None
                if isinstance(item, Row):
                    yield item


def _breaches(rows: list[Row], rule: AbortIf) -> Iterator[str]:
    """A sentence for each arm and limit."""
    for arm in sorted({routed_arm(row.route) or "" for row in rows}):
        own = [row for row in rows if (routed_arm(row.route) or "") == arm]
        name = arm or "an unknown arm"
        failed = sum(row.error is not None for row in own)
        if rule.errors is not None and len(own) >= FEWEST["errors"] and failed > rule.errors * len(own):
            yield f"{failed} of the last {len(own)} requests to {name} failed; abort_if.errors is {rule.errors:.3g}"
        if rule.p99 is not None and len(own) >= FEWEST["p99"]:
            worst = sorted(row.latency_us for row in own)[math.ceil(0.99 * len(own)) - 1] / 1e6
            if worst > rule.p99:
                limit = f"abort_if.p99 is {rule.p99:.3g} s"
                yield f"p99 of the last {len(own)} requests to {name} is {worst:.3g} s; {limit}"
