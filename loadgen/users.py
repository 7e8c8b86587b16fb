"""The Locust users: slots of the open loop, and for the closed loop one class for each cohort."""

from collections.abc import Callable
from typing import Any

import gevent
from locust import FastHttpUser, TaskSet, tag, task

from experiments.core.spec import Experiment
from loadgen.connecting import Own, close
from loadgen.schedule import Arrival
from loadgen.session import Session

SLOTS = "Arrivals"
"""The class of the open loop's slots."""

_UNTIL_STOPPED_S = 3600.0
"""A user who has nothing left to do waits in Locust's own way, in which it can be stopped at once."""

CurrentSession = Callable[[], Session | None]


class Ending(FastHttpUser):
    """A user who knows that it was told to end.

    Locust kills a user who waits, and gevent does so a moment later: it may have begun to send in between, and would
    leave a request without its answer.
    """

    abstract = True
    ending = False

    def stop(self, force: bool = False) -> bool:  # noqa: FBT001, FBT002 - as Locust has it
        """End, at once or after what is being sent."""
        self.ending = True
        return bool(super().stop(force))


def user_classes(experiment: Experiment, session: CurrentSession) -> dict[str, type[Any]]:
    """User classes by name: the slots, and one class for each cohort, weighted by its share and tagged with its name.

    Args:
        experiment: Its cohorts give the classes.
        session: Gives the session of the test that runs, once there is one.
    """
    classes = {SLOTS: slot_class(session)}
    for cohort, settings in experiment.cohorts.items():
        name = class_name(cohort)
        while name in classes:
            name += "_"
        classes[name] = _cohort_class(name, cohort, settings.share * 100, session)
    return classes


def class_name(cohort: str) -> str:
    """The class name of a cohort.

    >>> class_name("canary-users")
    'CanaryUsers'
    """
    return "".join(part.capitalize() for part in cohort.split("-") if part)


def slot_class(session: CurrentSession) -> type[Any]:
    """The class of a slot: it waits for the next arrival that is due, and sends it."""

    class Sending(TaskSet):
        arrival: Arrival | None = None

        def __init__(self, parent: Any) -> None:
            super().__init__(parent)
            self.own: Own = {}

        def on_start(self) -> None:
            _enrol(session())

        def wait_time(self) -> float:
            return _UNTIL_STOPPED_S

        def _sleep(self, seconds: float) -> None:
            # Locust takes this for the time between tasks, in which a user may be killed.
            current = session()
            self.arrival = current.next_arrival() if current else None
            if self.arrival is None or self.user.ending:
                gevent.sleep(seconds)

        @task
        def predict(self) -> None:
            current = session()
            if self.arrival is not None and current is not None and not current.stopping:
                arrival, self.arrival = self.arrival, None
                current.send_arrival(arrival, self.own)

        def on_stop(self) -> None:
            current = session()
            if self.arrival is not None and current is not None:
                current.give_back(self.arrival)
            _resign(current)
            close(self.own.values())

    class Arrivals(Ending):
        tasks = [Sending]  # noqa: RUF012 - Locust's own way

    return Arrivals


def _cohort_class(name: str, cohort: str, share_percent: float, session: CurrentSession) -> type[Any]:
    """A class of users of one cohort; each has a connection of its own and waits for every answer."""

    class CohortUser(Ending):
        weight = share_percent

        def on_start(self) -> None:
            self.own: Own = {}
            _enrol(session())

        def wait_time(self) -> float:
            current = session()
            return _UNTIL_STOPPED_S if current is None or current.stopping else 0.0

        @tag(cohort)
        @task
        def predict(self) -> None:
            current = session()
            if current is None or current.stopping or self.ending:
                return
            current.send_freely(self.own, cohort)

        def on_stop(self) -> None:
            _resign(session())
            close(self.own.values())

    CohortUser.__name__ = CohortUser.__qualname__ = name
    return CohortUser


def _enrol(current: Session | None) -> None:
    if current is not None:
        current.enrol()


def _resign(current: Session | None) -> None:
    if current is not None:
        current.resign()
