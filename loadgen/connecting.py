"""Which connection a request goes over: what each cohort's `connections` says, else what suits the loop."""

from collections.abc import Iterable, Mapping

from experiments.core.spec import Cohort
from loadgen.predict import Connections, Dialer

PER_USER, PER_REQUEST, POOL = "per-user", "per-request", "pool:"

Own = dict[str, Connections]
"""A user's (in the open loop: a slot's) own connections, by cohort."""


class Switchboard:
    """The connections of one load process; a balancer before the arms may weigh connections, or single requests."""

    def __init__(self, dialer: Dialer, cohorts: Mapping[str, Cohort], *, open_loop: bool) -> None:
        self._dialer = dialer
        self._common = Connections(dialer)
        self._shared: dict[str, Connections] = {}
        for name, cohort in cohorts.items():
            shared = self._shared_by(cohort.connections or ("" if open_loop else PER_USER))
            if shared is not None:
                self._shared[name] = shared

    def _shared_by(self, policy: str) -> Connections | None:
        """What all users of a cohort share under a policy; None where each has its own."""
        if policy == PER_USER:
            return None
        if policy == PER_REQUEST:
            return Connections(self._dialer, keep=False)
        if policy.startswith(POOL):
            return Connections(self._dialer, limit=int(policy.removeprefix(POOL)))
        return self._common

    def of(self, cohort: str, own: Own) -> Connections:
        """The connections for a request of a cohort by a user who has `own` ones."""
        return self._shared.get(cohort) or own.get(cohort) or own.setdefault(cohort, Connections(self._dialer))

    @property
    def queued(self) -> int:
        """Requests that had to wait for a connection, so far."""
        return sum(each.queued for each in self._shared.values())

    def close(self) -> None:
        """Close what is shared and idle."""
        close(self._shared.values())


def close(connections: Iterable[Connections]) -> None:
    """Close every idle connection."""
    for each in connections:
        each.close()
