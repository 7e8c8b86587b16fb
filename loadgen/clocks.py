"""How far a worker's clock is behind its master's: asked over Locust's own messages.

The quickest of several answers counts, and half its round trip bounds the error (Cristian, "Probabilistic clock
synchronization", Distributed Computing 3, 1989).
"""

import time
from dataclasses import dataclass
from typing import Any

import gevent

ASK, ANSWER = "splitproof-clock-asked", "splitproof-clock"
AGAIN, COMPARED = "splitproof-clock-again", "splitproof-clock-compared"
_QUESTIONS = 8
_PAUSE_S, _SHORT_PAUSE_S = 0.1, 0.01
_AGREE_US = 1_000
"""Clocks that are as near as this, beyond what can be measured, are one clock."""


@dataclass(frozen=True)
class Comparison:
    """What to add to this machine's clock to get the master's, and by how much that may be wrong."""

    offset_us: int = 0
    uncertainty_us: int = 0


def compared(sent_ns: int, received_ns: int, wall_us: int, master_wall_us: int) -> Comparison:
    """One question and its answer: monotonic times of both, and what the two wall clocks showed.

    >>> compared(0, 2_000_000, wall_us=1_001_000, master_wall_us=6_000_000)
    Comparison(offset_us=5000000, uncertainty_us=1000)
    """
    half_us = (received_ns - sent_ns) // 2000
    offset = master_wall_us + half_us - wall_us
    return Comparison(offset if abs(offset) > half_us + _AGREE_US else 0, half_us)


class MastersClock:
    """A worker's knowledge of its master's clock: asked for when it connects, and anew before each test."""

    def __init__(self, runner: Any) -> None:
        self.best = Comparison()
        self._answers, self._since_ns = 0, 0
        self._runner = runner
        runner.register_message(ANSWER, self._on_answer)
        runner.register_message(AGAIN, self._on_again)
        self._asking = gevent.spawn(self._ask, _PAUSE_S)

    def _ask(self, pause_s: float) -> None:
        while self._answers < _QUESTIONS:
            if self._runner.connected:
                self._runner.send_message(ASK, {"sent_ns": time.monotonic_ns()})
            gevent.sleep(pause_s)

    def _on_answer(self, environment: Any, msg: Any, **_rest: Any) -> None:
        del environment
        if msg.data["sent_ns"] < self._since_ns:
            return  # asked for an earlier comparison
        found = compared(
            msg.data["sent_ns"], time.monotonic_ns(), time.time_ns() // 1000, master_wall_us=msg.data["wall_us"]
        )
        if not self._answers or found.uncertainty_us < self.best.uncertainty_us:
            self.best = found
        self._answers += 1

    def _on_again(self, environment: Any, msg: Any, **_rest: Any) -> None:
        del environment, msg
        self._asking.kill(block=False)
        self._answers, self._since_ns = 0, time.monotonic_ns()
        self._asking = gevent.spawn(self._ask_anew)

    def _ask_anew(self) -> None:
        self._ask(_SHORT_PAUSE_S)
        self._runner.send_message(COMPARED, None)


def answer(runner: Any, msg: Any) -> None:
    """The master's answer to a worker's question."""
    data = {"sent_ns": msg.data["sent_ns"], "wall_us": time.time_ns() // 1000}
    runner.send_message(ANSWER, data, client_id=msg.node_id)
