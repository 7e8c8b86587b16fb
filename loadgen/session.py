"""One test in one process that runs users: arrivals are claimed, sent and recorded, and the process watches itself."""

import gc
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gevent
import msgspec
from gevent.lock import Semaphore

from experiments.core.access import expanded
from experiments.core.errors import RecordsError
from experiments.core.records import Beat, Row, RunDir, ShardHeader, Trailer
from experiments.core.routing import predict_path
from loadgen import recorder as recording
from loadgen.assignment import Assignment
from loadgen.connecting import Own, Switchboard
from loadgen.predict import Answer, Dialer, PredictionError, predict, request_head, target
from loadgen.recorder import Clock, Recorder
from loadgen.schedule import NOTHING, Arrival, Arrivals, DueCounter, Part, Since

BEAT_S = 1.0
PROBE_S = 0.05
HELD_S = 2.0
"""A process that stood still for so long asks for its part before it sends: after three seconds without a word the
master gives it up, and a second later others have its part."""

LOOK_AGAIN_S = 0.1
"""Who waits for an arrival looks this often whether it is still the next one."""

DRAIN_MARGIN_S = 1.0
"""How much longer than a request's timeout a process waits for its requests in flight."""

_OK = 200

_LATE_NUMBERS = 10**12
"""Requests of a closed loop in a process that came late are counted from a multiple of this: nobody gets so far."""

_UNSURE = -math.inf
"""In place of when a process last looked around: it does not know its part, and sends nothing until it does."""


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
        slots: The open loop's slots, in all processes together.
    """

    run: str
    experiment_hash: str
    payloads_hash: str
    origin_us: int
    open_loop: bool
    cohorts: list[str]
    workers: dict[str, int]
    slots: int | None = None


class Division(msgspec.Struct, frozen=True):
    """Who takes which part of the schedule from `offset_us` on: client id to place."""

    offset_us: int
    workers: dict[str, int]


@dataclass(frozen=True)
class Closed:
    """What a process did, once its shard is closed."""

    rows: int
    locust_requests: int
    shard: str
    files: dict[str, int] = field(default_factory=dict)
    """Name to size of what was sent to the master."""
    until_us: int = 0
    """Up to when of the schedule it took its part."""


@dataclass(frozen=True)
class Place:
    """One process's place in an order.

    Attributes:
        client: The process as Locust names it.
        host: The base URL.
        clock: A clock that agrees with the master's.
        clock_offset_us: What was added to this machine's clock for that.
        clock_uncertainty_us: How far it may be off all the same.
        ask: Asks the master who takes which part; None where nobody else takes any.
        late: Its number among Locust's workers, if it came after the start; nothing is its part until the master says.
        room: How many users Locust means to run in this process, as far as it knows.
    """

    client: str
    host: str
    clock: Clock
    clock_offset_us: int = 0
    clock_uncertainty_us: int = 0
    ask: Callable[[], None] | None = None
    late: int | None = None
    room: Callable[[], int] = lambda: 0


class Session:
    """The state of one test in this process.

    Raises:
        RecordsError: its shard cannot be made.
        StackError: a file of certificates cannot be used, or a variable of a header is not set.
    """

    def __init__(
        self,
        assignment: Assignment,
        order: Order,
        place: Place,
        fire: Callable[..., None],
        on_failure: Callable[[RecordsError], None],
    ) -> None:
        self.assignment, self.order = assignment, order
        self.clock = place.clock
        self.target = target(place.host, assignment.access)
        self.stopping = False
        self.locust_requests = 0
        self._fire, self._on_failure = fire, on_failure
        cohorts = assignment.experiment.cohorts
        dialer = Dialer(self.target)
        dialer.resolve()
        self._switchboard = Switchboard(dialer, cohorts, open_loop=order.open_loop)
        self._timeout_s = assignment.experiment.load.timeout
        self._heads, self._tails = _requests(self)
        self._names = {cohort: f"predict [{cohort}]" for cohort in cohorts}
        self._client, self._ask, self._workers = place.client, place.ask, len(order.workers)
        self._room, self._users, self._told = place.room, 0, 0
        part = self._part(order.workers)
        self._arrivals, self._due = Arrivals(assignment.schedule, part), DueCounter(assignment.schedule, part)
        self._turn, self._starved = Semaphore(), 0
        self._number = order.workers.get(place.client, place.late or 0)
        first, step = (self._number, self._workers) if place.late is None else (_LATE_NUMBERS * (place.late + 1), 1)
        self._free_sequence = itertools.count(first, step)
        self._choice = random.Random(f"{assignment.experiment.load.seed}/{self._number}")  # noqa: S311 - no secret
        self._payload_ids = assignment.schedule.payloads
        self._request_ids = _request_ids()
        self._in_flight: dict[int, int] = {}
        self._started = 0
        self._awake_us = self.clock.now()
        self._looked = _UNSURE if place.late is not None else time.monotonic() if place.ask else math.inf
        self._closed: Closed | None = None
        self._recorder = Recorder(RunDir(Path(order.run)), self._header(place))
        # Little of what is there now will be garbage; looking through it would keep requests waiting.
        gc.freeze()
        self._beats = gevent.spawn(self._beat_until_closed)

    @property
    def shard(self) -> str:
        """Where the rows go."""
        return self._recorder.path

    @property
    def files(self) -> list[Path]:
        """Everything that this process writes."""
        return self._recorder.files

    def _header(self, place: Place) -> ShardHeader:
        base = recording.header(Path(self.order.run).name, self.order.experiment_hash, self.clock, self.order.origin_us)
        return msgspec.structs.replace(
            base,
            mode="open" if self.order.open_loop else "closed",
            worker=self._number,
            workers=self._workers,
            client=place.client,
            slots=self.order.slots,
            clock_offset_us=place.clock_offset_us,
            clock_uncertainty_us=place.clock_uncertainty_us,
        )

    def redivide(self, divisions: Sequence[Division]) -> None:
        """Take what these divisions of the schedule, all that there were so far, give to this process."""
        parts = [Since(each.offset_us, self._part(each.workers)) for each in divisions]
        self._workers = len(divisions[-1].workers)
        self._arrivals.redivide(parts)
        self._due.redivide(parts)
        self._looked = time.monotonic()

    def _part(self, workers: Mapping[str, int]) -> Part:
        place = workers.get(self._client)
        return NOTHING if place is None else Part(place, len(workers), frozenset(self.order.cohorts))

    def enrol(self) -> None:
        """A user begins. Before it sends anything the shard says how many may, and so how much a kill can lose."""
        self._users += 1
        if self._users > self._told:
            self._told = max(self._users, self._room())
            try:
                self._recorder.beat(self._beat(None, None))
            except RecordsError as failure:
                self._on_failure(failure)

    def resign(self) -> None:
        """A user ends."""
        self._users -= 1

    def next_arrival(self) -> Arrival | None:
        """The next arrival, once it is due, for the slot that asks; None when nothing more is to be sent.

        One slot at a time waits for the clock: a slot that is killed meanwhile takes no arrival away with it.
        """
        free_since = time.monotonic()
        with self._turn:
            while not self.stopping:
                now = time.monotonic()
                arrival = None if now > self._looked + HELD_S else self._arrivals.peek()
                if arrival is None:  # until there is word from the master
                    gevent.sleep(LOOK_AGAIN_S)
                    continue
                due = self.clock.monotonic(self.order.origin_us + arrival.offset_us)
                seconds = due - now
                if seconds <= 0:
                    # Turns go by waiting time: if this slot was still busy then, so were all others.
                    self._starved += due < free_since
                    return self._arrivals.take()
                gevent.sleep(min(seconds, LOOK_AGAIN_S))
        return None

    def give_back(self, arrival: Arrival) -> None:
        """A slot was stopped between taking an arrival and sending it: another one sends it."""
        self._arrivals.give_back(arrival)

    def send_arrival(self, arrival: Arrival, own: Own) -> None:
        """Send what the schedule says, now; its intended time is recorded beside the actual one."""
        self._started += 1
        self._send(own, arrival.sequence, arrival.cohort, arrival.payload, self.order.origin_us + arrival.offset_us)

    def send_freely(self, own: Own, cohort: str) -> None:
        """Send for a user who waits for each answer: there is no intended time."""
        payload = self._choice.choice(self._payload_ids)
        self._send(own, next(self._free_sequence), cohort, payload, None)

    def _send(self, own: Own, sequence: int, cohort: str, payload: str, intended_us: int | None) -> None:
        request_id = next(self._request_ids)
        request = b"".join((self._heads[cohort, payload], request_id.encode(), self._tails[payload]))
        connections = self._switchboard.of(cohort, own)
        start_ns = time.monotonic_ns()
        start_us = self._in_flight[sequence] = self.clock.at(start_ns)
        try:
            answer = predict(connections, request, self._timeout_s)
            latency_us = (time.monotonic_ns() - start_ns) // 1000
            try:
                # When many answers come at once, each has its time taken before any is looked into.
                gevent.sleep(0)
            finally:  # a user who is killed here has a finished request all the same
                signature, error = self._judge(payload, answer)
                answer.reply.started_ns, began_ns = start_ns, answer.reply.first_byte_ns
                first_byte_us = (began_ns - start_ns) // 1000 if began_ns else None
                row = Row(
                    sequence, request_id, cohort, payload, intended_us, start_us, latency_us, answer.status, signature,
                    error, answer.route, answer.upstream_us, None, len(answer.body), first_byte_us, answer.attempts,
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
            self._beats.kill(block=False)
            self._switchboard.close()
            self._recorder.close(self._trailer())
            gc.unfreeze()
            until_us = self._awake_us - self.order.origin_us
            self._closed = Closed(self._recorder.rows, self.locust_requests, self._recorder.path, until_us=until_us)
        return self._closed

    def _trailer(self) -> Trailer:
        """What this process knows; the recorder adds what it has written."""
        scheduled = max(self._due_by(self._awake_us), self._started)
        open_loop = self.order.open_loop
        return Trailer(
            at_us=self.clock.now(),
            rows=0,
            locust_requests=self.locust_requests,
            scheduled=scheduled if open_loop else None,
            never_sent=scheduled - self._started if open_loop else 0,
            starved=self._starved,
            queued=self._switchboard.queued,
        )

    def _due_by(self, at_us: int) -> int:
        return self._due.due(at_us - self.order.origin_us)

    def _beat_until_closed(self) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        while True:
            lag_us = self._worst_lag_us(wall + BEAT_S)
            while self._looked == _UNSURE:  # what is due is not known
                lag_us = max(lag_us, self._worst_lag_us(time.monotonic() + LOOK_AGAIN_S))
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
            now = time.monotonic()
            worst = max(worst, now - before - PROBE_S)
            self._look_around(now)
            if not self.stopping and self._looked != _UNSURE:
                # Locust blocks before it says that it stops: what comes due meanwhile is nobody's lateness.
                self._awake_us = self.clock.now()
        return round(worst * 1e6)

    def _look_around(self, now: float) -> None:
        """Notice that this process stood still, and ask for its part until there is word."""
        if now > self._looked + HELD_S and self._ask is not None:
            self._looked = _UNSURE
            self._ask()
        elif self._ask is not None:
            self._looked = now

    def _beat(self, cpu: float | None, lag_us: int | None) -> Beat:
        now = self.clock.now()
        scheduled = self.order.open_loop and not self.stopping and self._looked != _UNSURE
        due = self._due_by(now) if scheduled else self._started
        return Beat(
            at_us=now,
            # Requests enter in the order of their start: the first one is the oldest.
            watermark_us=next(iter(self._in_flight.values()), now),
            in_flight=len(self._in_flight),
            backlog=max(0, due - self._started),
            cpu=None if cpu is None else round(cpu, 4),
            lag_us=lag_us,
            workers=self._workers,
            sent=self._started if self.order.open_loop else self.locust_requests,
            starved=self._starved,
            queued=self._switchboard.queued,
            wall_us=time.time_ns() // 1000 - now,
            users=self._told,
        )


def _requests(session: Session) -> tuple[dict[tuple[str, str], bytes], dict[str, bytes]]:
    """What goes before and after the request id, for every cohort and payload."""
    experiment, payloads = session.assignment.experiment, session.assignment.payloads
    path = predict_path(experiment.model)
    heads = {
        (name, payload): request_head(session.target, path, expanded(cohort.headers), body)
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
