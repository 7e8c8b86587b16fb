"""The Locust users: slots of the open loop, and for the closed loop one class for each cohort."""

from collections.abc import Callable
from typing import Any

from locust import FastHttpUser, tag, task

from experiments.core.spec import Experiment
from loadgen.predict import Connections
from loadgen.schedule import Arrival
from loadgen.session import Session

SLOTS = "Arrivals"
"""The class of the open loop's slots."""

_UNTIL_STOPPED_S = 3600.0
"""A user who has nothing left to do waits in Locust's own way, in which it can be stopped at once."""

CurrentSession = Callable[[], Session | None]


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
    """The class of a slot: it claims the next arrival, waits until it is due, and sends it."""

    class Arrivals(FastHttpUser):
        arrival: Arrival | None = None

        def wait_time(self) -> float:
            current = session()
            if current is None or current.stopping:
                self.arrival = None
                return _UNTIL_STOPPED_S
            self.arrival, seconds = current.claim()
            return seconds

        @task
        def predict(self) -> None:
            current = session()
            if self.arrival is not None and current is not None and not current.stopping:
                current.send_arrival(self.arrival)

    return Arrivals


def _cohort_class(name: str, cohort: str, share_percent: float, session: CurrentSession) -> type[Any]:
    """A class of users of one cohort; each has a connection of its own and waits for every answer."""

    class CohortUser(FastHttpUser):
        weight = share_percent
        connections: Connections | None = None

        def wait_time(self) -> float:
            current = session()
            return _UNTIL_STOPPED_S if current is None or current.stopping else 0.0

        @tag(cohort)
        @task
        def predict(self) -> None:
            current = session()
            if current is None or current.stopping:
                return
            if self.connections is None:
                self.connections = Connections(current.target)
            current.send_freely(self.connections, cohort)

        def on_stop(self) -> None:
            if self.connections is not None:
                self.connections.close()

    CohortUser.__name__ = CohortUser.__qualname__ = name
    return CohortUser
