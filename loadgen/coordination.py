"""One test after another: what Locust's events mean to us in a local runner, a master and a worker.

The master (or the local runner) opens the run directory and gives the order; every process that runs users opens a
session and a shard; at the end each closes its shard and says so, and then the master closes the run. Everything that
happens before users spawn rides on the parsed options, which Locust sends along with its first spawn message.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

import gevent
import msgspec
from locust import log
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from experiments.core.command import say
from experiments.core.errors import Exit, RecordsError, SplitproofError, StackError
from experiments.core.records import Ending, RunDir
from loadgen import clocks, transfer
from loadgen.assignment import Assignment, check_reachable
from loadgen.clocks import Comparison, MastersClock
from loadgen.crew import Crew
from loadgen.fetching import add_records
from loadgen.live import Live, add_tab
from loadgen.recorder import anchored
from loadgen.rundir import Totals, close_run, local_run, open_run
from loadgen.session import DRAIN_MARGIN_S, Closed, Division, Order, Place, Session
from loadgen.users import SLOTS, slot_class

_OPENED, _DRAIN = "splitproof-opened", "splitproof-drain"
_ASKED, _DIVIDED = "splitproof-part-asked", "splitproof-divided"
_CLOSED, _FAILED = "splitproof-closed", "splitproof-failed"
_LEAD_US, _WORKERS_LEAD_US = 300_000, 700_000
"""How long after the order the schedule begins: users must have been spawned, here or in every worker."""

_LOOK_S = 0.25
"""How often the master looks whether a worker is lost."""

_LOOKS_UNTIL_IDLE = 20
"""How often a worker that joins is seen without users until that is said. Locust (2.47) moves users onto the first that
joins a test, and onto no other."""

_NOTICE_US = 1_000_000
"""How long before a new division of the schedule holds: every worker must have heard of it."""

_COMPARED_S = 2.0
"""How long the master waits, before it gives the order, for workers to have compared their clocks with its own."""

_MOST_SPAWNED_AT_ONCE = 100
"""Locust warns about more."""

_INTERRUPTED = 130

_SLOTS_ON_THE_PAGE = (
    "arrivals come from the experiment's load, and wait for no answer; the number of users in Locust's form is how "
    "many requests may be in flight at once (load.slots)."
)


class Coordinator:
    """Our part in one Locust process; `apart`: it was started as a worker, so its master may be on another machine."""

    def __init__(self, assignment: Assignment, *, apart: bool = False) -> None:
        self.assignment = assignment
        self._apart = apart
        self.session: Session | None = None
        self._environment: Any = None
        self._order: Order | None = None
        self._crew = Crew({})
        self._clock = anchored()
        self._compared: set[str] = set()
        self._heard = 0
        self._sender: transfer.Sender | None = None
        self._masters_clock: MastersClock | None = None
        self._refused = False
        self._live: Live | None = None

    def listen(self, events: Any) -> None:
        """Hear Locust's events."""
        events.init.add_listener(self.on_init)
        events.test_start.add_listener(self.on_test_start)
        events.test_stopping.add_listener(self.on_test_stopping)
        events.test_stop.add_listener(self.on_test_stop)
        events.quitting.add_listener(self.on_quitting)

    def on_init(self, environment: Any, **_rest: Any) -> None:
        """Set defaults, choose the user classes, and agree on messages."""
        self._environment = environment
        options, load = environment.parsed_options, self.assignment.experiment.load
        environment.host = environment.host or self.assignment.host
        environment.stop_timeout = environment.stop_timeout or load.timeout + DRAIN_MARGIN_S
        if self._is_worker:
            self._listen_to_master(environment.runner, options)
        else:
            self._choose_users(environment, options)
        if self._is_master:
            self._listen_to_workers(environment.runner)
        if environment.web_ui is not None:
            self._live = Live(note=_SLOTS_ON_THE_PAGE if self._open_loop else "")
            add_tab(environment.web_ui, options.web_base_path, self._live)
            add_records(environment.web_ui, options.web_base_path, self._live)
        _interrupt_between_requests()

    def _listen_to_master(self, runner: Any, options: Any) -> None:
        runner.register_message(_DRAIN, self._on_drain, concurrent=True)
        runner.register_message(_DIVIDED, self._on_divided)
        if options.processes:
            gevent.spawn(_end_with_parent, os.getppid())
        if self._apart or not options.processes:
            self._masters_clock = MastersClock(runner)
        else:
            runner.register_message(clocks.AGAIN, lambda **_rest: runner.send_message(clocks.COMPARED, None))

    def _listen_to_workers(self, runner: Any) -> None:
        runner.register_message(clocks.ASK, lambda environment, msg, **_rest: clocks.answer(environment.runner, msg))
        runner.register_message(clocks.COMPARED, lambda environment, msg, **_rest: self._compared.add(msg.node_id))  # noqa: ARG005
        runner.register_message(_OPENED, self._on_opened)
        runner.register_message(_ASKED, self._on_part_asked)
        runner.register_message(transfer.PIECE, self._on_piece)
        runner.register_message(_CLOSED, self._on_closed)
        runner.register_message(_FAILED, self._on_worker_failed)

    @property
    def _is_master(self) -> bool:
        return isinstance(self._environment.runner, MasterRunner)

    @property
    def _is_worker(self) -> bool:
        return isinstance(self._environment.runner, WorkerRunner)

    @property
    def _open_loop(self) -> bool:
        return self.assignment.open_loop and self._environment.shape_class is None

    def _choose_users(self, environment: Any, options: Any) -> None:
        """Slots for the open loop, as many as the experiment says; else one class for each chosen cohort."""
        slots = {name: kind for name, kind in environment.available_user_classes.items() if name == SLOTS}
        if not self._open_loop:
            environment.user_classes[:] = [kind for kind in environment.user_classes if kind not in slots.values()]
            say("closed loop: users wait for each answer; the arrivals of the experiment's load are not used.")
            return
        others = [kind.__name__ for kind in environment.user_classes if kind.__module__ != slot_class.__module__]
        if others:
            say(
                f"open loop: nothing but the arrivals of the experiment is sent; {', '.join(others)} of the locustfile "
                "will not run; to run them too: --users N --closed-loop."
            )
        environment.user_classes[:] = list(slots.values())
        # Tags choose cohorts of the schedule, not tasks of a slot: Locust must not filter the slots away.
        options.tags = options.exclude_tags = None
        workers = options.expect_workers if self._is_master else 1
        options.num_users = max(self.assignment.experiment.load.slots, workers)
        options.spawn_rate = options.spawn_rate or min(options.num_users, _MOST_SPAWNED_AT_ONCE * workers)

    def on_test_start(self, environment: Any, **_rest: Any) -> None:
        """Give the order, or take it; open a session where users will run."""
        while self._environment is None:  # who joins a test that runs is told to spawn before Locust has set it up
            gevent.sleep(0.01)
        try:
            if self._is_worker:
                self._take_order(environment)
            else:
                self._give_order(environment)
        except SplitproofError as error:
            self._fail(str(error))

    def _give_order(self, environment: Any) -> None:
        environment.parsed_options.splitproof_order = self._order = None
        self._refused = False
        # A person may have typed another one into Locust's page.
        host = check_reachable(environment.host, self.assignment.experiment.name)
        workers = self._division(environment.runner)
        run = open_run(self.assignment, host)
        if self._is_master:
            self._compare_clocks(environment.runner)
        self._clock = anchored()
        self._order = Order(
            run=str(run.path),
            experiment_hash=self.assignment.experiment_hash,
            payloads_hash=self.assignment.payloads_hash,
            origin_us=self._clock.now() + (_WORKERS_LEAD_US if self._is_master else _LEAD_US),
            open_loop=self._open_loop,
            cohorts=list(self.assignment.cohorts),
            workers=workers,
            slots=environment.runner.target_user_count if self._open_loop else None,
        )
        if self._live is not None:
            self._live.follow(run)
            if self._order.slots is not None and not environment.parsed_options.autostart:
                say(f"{self._order.slots} users from Locust's page: {_SLOTS_ON_THE_PAGE}")
        for note in self.assignment.notes:
            say(f"note: {note}.")
        self._crew = Crew(dict(self._order.workers))
        if self._is_master:
            environment.parsed_options.splitproof_order = msgspec.to_builtins(self._order)
            gevent.spawn(self._watch_workers, environment.runner, self._order)
        else:
            self._open_session(environment, self._order)

    def _compare_clocks(self, runner: Any) -> None:
        """Have every worker compare its clock now: it may have been set, or have drifted, since it connected."""
        self._compared.clear()
        runner.send_message(clocks.AGAIN)
        end = time.monotonic() + _COMPARED_S
        while {worker.id for worker in _ready(runner)} - self._compared and time.monotonic() < end:
            gevent.sleep(0.01)

    def _division(self, runner: Any) -> dict[str, int]:
        """Who takes which part of the schedule."""
        if not self._is_master:
            return {runner.client_id: 0}
        active = _ready(runner)
        if self._open_loop and runner.target_user_count < len(active):
            raise StackError(
                f"{runner.target_user_count} slots for {len(active)} workers: each needs one to send its part of the "
                "arrivals; start more users."
            )
        ordered = sorted((worker.id for worker in active), key=runner.get_worker_index)
        return {client: place for place, client in enumerate(ordered)}

    def _take_order(self, environment: Any) -> None:
        """Do what the master says, unless it speaks of another experiment or knows us not."""
        self.session, self._refused = None, False
        decoded = getattr(environment.parsed_options, "splitproof_order", None)
        if decoded is None:
            return  # the master refused, and has said why
        order = msgspec.convert(decoded, Order)
        if order.experiment_hash != self.assignment.experiment_hash:
            raise StackError("a worker has another experiment than its master; give both the same --experiment file.")
        if order.payloads_hash != self.assignment.payloads_hash:
            raise StackError("a worker has other payloads than its master; give both the same ones.")
        elsewhere = not Path(order.run).is_dir()  # the path alone says nothing: it may be the same everywhere
        run = local_run(Path(order.run), self.assignment)
        session = self._open_session(environment, msgspec.structs.replace(order, run=str(run)))
        environment.runner.send_message(_OPENED, {"shard": session.shard})
        self._sender = transfer.Sender(session.files, environment.runner.send_message) if elsewhere else None
        if self._sender is not None:
            self._sender.follow()

    def _open_session(self, environment: Any, order: Order) -> Session:
        seen = self._masters_clock.best if self._masters_clock else Comparison()
        runner = environment.runner
        place = Place(
            client=runner.client_id,
            host=environment.host,
            clock=anchored().shifted(seen.offset_us),
            clock_offset_us=seen.offset_us,
            clock_uncertainty_us=seen.uncertainty_us,
            ask=(lambda: runner.send_message(_ASKED, None)) if self._is_worker else None,
            room=lambda: int(runner.target_user_count),
            late=None if runner.client_id in order.workers else runner.worker_index,
        )
        fire = environment.events.request.fire
        self.session = session = Session(self.assignment, order, place, fire, self._on_record_failure)
        return session

    def _watch_workers(self, runner: Any, order: Order) -> None:
        """While the test runs, divide the schedule anew among those who are left, have come back, or have come late."""
        crew = self._crew
        while self._order is order:
            now_us = self._clock.now() - order.origin_us
            before = crew.active
            if crew.observe(_alive(runner), now_us / 1e6) and not crew.draining:
                crew.divide(now_us + _NOTICE_US)
                for client in crew.workers:  # who is taken for lost may hear it, too
                    self._tell_divisions(client)
                _tell_of(before, crew.active, {worker.id for worker in runner.clients.all})
            for client in crew.left_out((worker.id for worker in runner.clients.ready), _LOOKS_UNTIL_IDLE):
                say(f"worker {client} came after the start, and Locust gives it no users: it waits for the next start.")
            gevent.sleep(_LOOK_S)

    def _tell_divisions(self, client: str) -> None:
        """All of them, for somebody who may have missed some."""
        data = msgspec.to_builtins(self._crew.divisions)
        self._environment.runner.send_message(_DIVIDED, {"divisions": data}, client_id=client)

    def _on_part_asked(self, environment: Any, msg: Any, **_rest: Any) -> None:
        del environment
        if self._order is not None:
            self._crew.admit(msg.node_id)
            self._tell_divisions(msg.node_id)

    def _on_divided(self, environment: Any, msg: Any, **_rest: Any) -> None:
        del environment
        if self.session is not None:
            self.session.redivide(msgspec.convert(msg.data["divisions"], list[Division]))

    def _on_opened(self, environment: Any, msg: Any, **_rest: Any) -> None:
        del environment
        self._crew.shards[msg.node_id] = msg.data["shard"]

    def _on_piece(self, environment: Any, msg: Any, **_rest: Any) -> None:
        del environment
        self._heard += 1
        if self._order is None:
            return
        try:
            transfer.receive(Path(self._order.run), msg.data)
        except RecordsError as failure:
            self._fail(f"worker {msg.node_id}: {failure}")

    def _on_record_failure(self, failure: RecordsError) -> None:
        self._fail(str(failure))

    def _fail(self, line: str) -> None:
        """Say it once, stop the test, end in exit code 2; what was recorded stays."""
        if self._refused:
            return
        self._refused = True
        if self.session is not None:
            self.session.stop_claiming()
        if self._is_worker:
            self._environment.runner.send_message(_FAILED, {"line": line})
            return
        self._environment.process_exit_code = int(Exit.USAGE)
        say(line)
        # From a greenlet of its own: stopping kills the one that we are in.
        gevent.spawn(self._stop)

    def _stop(self) -> None:
        if self._environment.parsed_options.headless:
            self._environment.runner.quit()
        else:
            self._environment.runner.stop()

    def _on_worker_failed(self, environment: Any, msg: Any, **_rest: Any) -> None:
        del environment
        line = f"worker {msg.node_id}: {msg.data['line']}"
        if self._order is not None and msg.node_id not in self._crew.workers:
            say(f"{line} It came after the start, and takes no part.")
        else:
            self._fail(line)

    def on_test_stopping(self, environment: Any, **_rest: Any) -> None:
        """Stop sending; the master waits until every worker has closed its shard."""
        self._crew.draining = True
        if self._is_master:
            self._drain_workers(environment.runner)
        elif self.session is not None:
            self.session.stop_claiming()

    def _drain_workers(self, runner: Any) -> None:
        patience = self.assignment.experiment.load.timeout + 2 * DRAIN_MARGIN_S + 2
        runner.send_message(_DRAIN)
        end = time.monotonic() + patience
        while self._crew.waiting_for() & _alive(runner) and time.monotonic() < end:
            before = self._heard
            gevent.sleep(0.02)
            if self._heard != before:  # records that are still coming in
                end = time.monotonic() + patience

    def _on_drain(self, environment: Any, msg: Any, **_rest: Any) -> None:
        del environment, msg
        if self._close_session() is None:
            self._environment.runner.send_message(_CLOSED, None)  # there is nothing to wait for

    def _close_session(self) -> Closed | None:
        """Close the shard, if it is open; a worker tells its master."""
        session, self.session = self.session, None
        if session is None:
            return None
        try:
            closed = session.finish()
            if self._is_worker:
                runner = self._environment.runner
                files = self._sender.finish() if self._sender else {}
                runner.send_message(_CLOSED, {**vars(closed), "files": files})
        except SplitproofError as error:
            self._fail(str(error))
            return None
        return closed

    def _on_closed(self, environment: Any, msg: Any, **_rest: Any) -> None:
        del environment
        closed = Closed(0, 0, "") if msg.data is None else msgspec.convert(msg.data, Closed)
        missing = transfer.incomplete(Path(self._order.run), closed.files) if self._order else []
        if missing:
            self._fail(
                f"worker {msg.node_id}: {', '.join(missing)} did not come whole; copy from beside {closed.shard}"
            )
            return
        self._crew.closed[msg.node_id] = closed

    def on_test_stop(self, environment: Any, **_rest: Any) -> None:
        """Close the shard; where the order was given, close the run too."""
        closed = self._close_session()
        if self._is_worker:
            return
        if closed is not None:
            self._crew.closed[environment.runner.client_id] = closed
        order, self._order = self._order, None
        if order is None:
            return
        try:
            self._close_run(RunDir(Path(order.run)), order)
        except SplitproofError as error:
            self._fail(str(error))
        if environment.process_exit_code is None:
            environment.process_exit_code = self._exit_code(environment.runner)

    def _close_run(self, run: RunDir, order: Order) -> None:
        closed = self._crew.closed.values()
        total, departed = sum(each.locust_requests for each in closed), self._crew.departed(open_loop=order.open_loop)
        totals = Totals(list(self._crew.workers), order.origin_us, total, departed)
        close_run(self.assignment, run, totals, self._ending())
        say(f"{sum(each.rows for each in closed)} predictions recorded in {run.path}")
        for line in self._crew.unclosed():
            say(f"{line}; if that is not in the run directory, copy it there before judging.")
        if self.assignment.run is None:
            say(f"judge them with: python -m analysis report {run.path}")

    def _ending(self) -> Ending:
        now = time.time_ns() // 1000
        if self._refused:
            return Ending(now, "failed", "recording failed; see the terminal")
        unclosed = self._crew.unclosed()
        if unclosed:
            return Ending(now, "failed", "not every load process closed its records: " + "; ".join(unclosed))
        return Ending(now, "completed")

    def _exit_code(self, runner: Any) -> int:
        """0 when recording went well: a failed prediction is a result, not an error of the load."""
        if runner.exceptions or log.unhandled_greenlet_exception:
            say(
                "an unexpected error happened in the load; see Locust's log above. "
                "Unless it is in a locustfile of your own, this is a defect of ours."
            )
            return int(Exit.UNEXPECTED)
        return int(Exit.PROMOTE)

    def on_quitting(self, environment: Any, **_rest: Any) -> None:
        """Stop in order before Locust works out its exit code."""
        if not self._is_master:
            environment.runner.stop()
        if self._live is not None:
            self._live.end()


def _ready(runner: Any) -> list[Any]:
    """The workers that take part in a test that begins now."""
    return [*runner.clients.ready, *runner.clients.running, *runner.clients.spawning]


def _alive(runner: Any) -> set[str]:
    """The workers that the master has heard of lately."""
    return {worker.id for worker in runner.clients.all if worker.state != STATE_MISSING}


def _tell_of(before: list[str], now: list[str], known: set[str]) -> None:
    """Say who takes part no longer, or again; Locust forgets at once who says that it quits."""
    for client in before:
        if client not in now:
            how = "is lost" if client in known else "has left"
            say(f"worker {client} {how}: the {len(now)} others take its arrivals from now on.")
    for client in now:
        if client not in before:
            say(f"worker {client} is there, and takes a part of the arrivals.")


def _end_with_parent(parent: int) -> None:
    """End this forked worker in order when the process that forked it is gone, however that died."""
    while os.getppid() == parent:
        gevent.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupt_between_requests() -> None:
    """Let Ctrl-C reach the main greenlet only: raised where it strikes, it would lose a request that has its answer."""
    hub = gevent.get_hub()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if interrupted:
            say("stopped at once: the records are incomplete.")
            os._exit(_INTERRUPTED)
        interrupted = True
        hub.handle_system_error(KeyboardInterrupt, KeyboardInterrupt())

    gevent.signal_handler(signal.SIGINT, interrupt)
