"""One test in one process that runs users: arrivals are claimed, sent and recorded, and the process watches itself."""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gevent
import msgspec

from experiments.core.errors import RecordsError
from experiments.core.records import Beat, Row, RunDir, ShardHeader
from experiments.core.routing import predict_path
from loadgen import recorder as recording
from loadgen.assignment import Assignment
from loadgen.predict import Answer, Connections, predict, request_head, target
from loadgen.recorder import Clock, Recorder
from loadgen.schedule import Arrival, DueCounter, Part, arrivals

BEAT_S = 1.0
PROBE_S = 0.05
DRAIN_MARGIN_S = 1.0
"""How much longer than a request's timeout a process waits for its requests in flight."""

_OK = 200


class Order(msgspec.Struct, frozen=True):
    """What the master tells every process that runs users, before they spawn.

    Attributes:
        run: The run directory.
        experiment_hash: Of the master's experiment; a process that has another one refuses.
        payloads_hash: Of the master's payloads.
        origin_us: Time zero of the schedule.
        open_loop: Whether arrivals come from the schedule.
        cohorts: The cohorts that were chosen.
        workers: Client id of each worker to its place in the division of the schedule.
    """

    run: str
    experiment_hash: str
    payloads_hash: str
    origin_us: int
    open_loop: bool
    cohorts: list[str]
    workers: dict[str, int]


class PredictionError(Exception):
    """A prediction failed; Locust groups failures by this text."""


@dataclass(frozen=True)
class Closed:
    """What a process did, once its shard is closed."""

    rows: int
    locust_requests: int
    shard: str


class Session:
    """The state of one test in this process.

    Raises:
        RecordsError: its shard cannot be made.
    """

    def __init__(
        self,
        assignment: Assignment,
        order: Order,
        place: int,
        host: str,
        fire: Callable[..., None],
        on_failure: Callable[[RecordsError], None],
    ) -> None:
        self.assignment, self.order = assignment, order
        self.clock: Clock = recording.anchored()
        self.target = target(host)
        self.connections = Connections(self.target)
        self.stopping = False
        self.locust_requests = 0
        self._fire, self._on_failure = fire, on_failure
        self._timeout_s = assignment.experiment.load.timeout
        self._heads, self._tails = _requests(self)
        self._names = {cohort: f"predict [{cohort}]" for cohort in assignment.experiment.cohorts}
        self._part = Part(place, len(order.workers), frozenset(order.cohorts))
        self._arrivals = arrivals(assignment.schedule, self._part)
        self._due = DueCounter(assignment.schedule, self._part)
        self._free_sequence = itertools.count(place, len(order.workers))
        self._choice = random.Random(f"{assignment.experiment.load.seed}/{place}")  # noqa: S311 - no secret
        self._payload_ids = assignment.schedule.payloads
        self._request_ids = _request_ids()
        self._in_flight: dict[int, int] = {}
        self._started = 0
        self._awake_us = self.clock.now()
        self._closed: Closed | None = None
        self._recorder = Recorder(RunDir(Path(order.run)), self._header(place))
        self._beats = gevent.spawn(self._beat_until_closed)

    def _header(self, place: int) -> ShardHeader:
        run_id = Path(self.order.run).name
        base = recording.header(run_id, self.order.experiment_hash, self.clock, self.order.origin_us)
        mode = "open" if self.order.open_loop else "closed"
        return msgspec.structs.replace(base, mode=mode, worker=place, workers=len(self.order.workers))

    def claim(self) -> tuple[Arrival, float]:
        """The next arrival of the schedule, and the seconds until it is due (negative where it is late)."""
        arrival = next(self._arrivals)
        due = self.clock.monotonic(self.order.origin_us + arrival.offset_us)
        return arrival, due - time.monotonic()

    def send_arrival(self, arrival: Arrival) -> None:
        """Send what the schedule says, now; its intended time is recorded beside the actual one."""
        self._started += 1
        intended = self.order.origin_us + arrival.offset_us
        self._send(self.connections, arrival.sequence, arrival.cohort, arrival.payload, intended)

    def send_freely(self, connections: Connections, cohort: str) -> None:
        """Send for a user who waits for each answer: there is no intended time."""
        payload = self._choice.choice(self._payload_ids)
        self._send(connections, next(self._free_sequence), cohort, payload, None)

    def _send(
        self, connections: Connections, sequence: int, cohort: str, payload: str, intended_us: int | None
    ) -> None:
        request_id = next(self._request_ids)
        request = b"".join((self._heads[cohort, payload], request_id.encode(), self._tails[payload]))
        start_ns = time.monotonic_ns()
        start_us = self._in_flight[sequence] = self.clock.at(start_ns)
        try:
            answer = predict(connections, request, self._timeout_s)
            latency_us = (time.monotonic_ns() - start_ns) // 1000
            signature, error = self._judge(payload, answer)
            row = Row(
                sequence, request_id, cohort, payload, intended_us, start_us, latency_us, answer.status, signature,
                error, answer.route, answer.upstream_us, None, len(answer.body),
            )  # fmt: skip
            self._recorder.row(row)
        except RecordsError as failure:
            self._on_failure(failure)
            return
        finally:
            del self._in_flight[sequence]
        self._tell_locust(row, answer)

    def _judge(self, payload: str, answer: Answer) -> tuple[str | None, str | None]:
        """The output's signature where there is an output, and the error class where there is an error."""
        if answer.error is not None or answer.status != _OK:
            return None, answer.error
        signature, decodable = self._recorder.output(payload, answer.body)
        return signature, None if decodable else "undecodable"

    def _tell_locust(self, row: Row, answer: Answer) -> None:
        """Fire the event that Locust's statistics and everybody's listeners hear."""
        exception = None
        if row.error is not None:
            exception = PredictionError(f"{row.error} (status {row.status})" if row.status else row.error)
        self.locust_requests += 1
        self._fire(
            request_type="POST",
            name=self._names[row.cohort],
            response_time=row.latency_us / 1000,
            response_length=row.response_bytes,
            response=answer.reply,
            context={"cohort": row.cohort, "payload": row.payload, "request_id": row.request_id},
            exception=exception,
            start_time=row.start_us / 1e6,
            url=answer.reply.url,
        )

    def stop_claiming(self) -> None:
        """No arrival is sent from now on."""
        self.stopping = True

    def finish(self) -> Closed:
        """Wait for the requests in flight, bounded by their timeout; then write the trailer. May be called again.

        Raises:
            RecordsError: the trailer cannot be written.
        """
        self.stop_claiming()
        end = time.monotonic() + self._timeout_s + DRAIN_MARGIN_S
        while self._in_flight and time.monotonic() < end:
            gevent.sleep(0.01)
        if self._closed is None:
            self._closed = Closed(self._recorder.rows, self.locust_requests, self._recorder.path)
            self._beats.kill(block=False)
            self.connections.close()
            scheduled = max(self._due_by(self._awake_us), self._started)
            open_loop = self.order.open_loop
            self._recorder.close(
                self.locust_requests,
                scheduled if open_loop else None,
                scheduled - self._started if open_loop else 0,
                self.clock.now(),
            )
        return self._closed

    def _due_by(self, at_us: int) -> int:
        return self._due.due(at_us - self.order.origin_us)

    def _beat_until_closed(self) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        while True:
            lag_us = self._worst_lag_us(wall + BEAT_S)
            now, used = time.monotonic(), time.process_time()
            share, wall, cpu = (used - cpu) / (now - wall), now, used
            try:
                self._recorder.beat(self._beat(share, lag_us))
            except RecordsError as failure:
                self._on_failure(failure)
                return

    def _worst_lag_us(self, until: float) -> int:
        """The most that a short sleep overslept until then: how long this process kept others waiting."""
        worst = 0.0
        while (before := time.monotonic()) < until:
            gevent.sleep(PROBE_S)
            worst = max(worst, time.monotonic() - before - PROBE_S)
            if not self.stopping:
                # Locust blocks before it says that it stops: what comes due meanwhile is nobody's lateness.
                self._awake_us = self.clock.now()
        return round(worst * 1e6)

    def _beat(self, cpu: float, lag_us: int) -> Beat:
        now = self.clock.now()
        due = self._due_by(now) if self.order.open_loop and not self.stopping else self._started
        return Beat(
            at_us=now,
            # Requests enter in the order of their start: the first one is the oldest.
            watermark_us=next(iter(self._in_flight.values()), now),
            in_flight=len(self._in_flight),
            backlog=max(0, due - self._started),
            cpu=round(cpu, 4),
            lag_us=lag_us,
            workers=len(self.order.workers),
        )


def _requests(session: Session) -> tuple[dict[tuple[str, str], bytes], dict[str, bytes]]:
    """What goes before and after the request id, for every cohort and payload."""
    experiment, payloads = session.assignment.experiment, session.assignment.payloads
    path = predict_path(experiment.model)
    heads = {
        (name, payload): request_head(session.target, path, cohort.headers, body)
        for name, cohort in experiment.cohorts.items()
        for payload, body in payloads.items()
    }
    return heads, {payload: b"\r\n\r\n" + body for payload, body in payloads.items()}


def _request_ids() -> Iterator[str]:
    """Ids in the form of a version 4 UUID: 62 random bits for the process, then a count."""
    bits = random.SystemRandom().getrandbits(62)
    text = f"{bits:016x}"
    prefix = f"{text[0:8]}-{text[8:12]}-4{text[12:15]}-a{text[15]}00-"
    return (f"{prefix}{number:012x}" for number in itertools.count())
