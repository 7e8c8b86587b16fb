"""When is a routing in force? Probes through every replica of the gateway see its route header."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.asking import ask
from deploy.cluster.client import Cluster
from deploy.cluster.forward import forwarded
from deploy.cluster.objects import listed
from deploy.cluster.readiness import is_ready
from deploy.cluster.refusals import FORBIDDEN, ApiError
from experiments.core.access import DIRECT, Access, expanded
from experiments.core.errors import StackError
from experiments.core.routing import ROUTE_HEADER, predict_path
from experiments.core.spec import Experiment
from experiments.core.stack import PLAIN, StackInfo

PROBES = 3
"""Consecutive fresh connections to each replica that must see a routing before it counts as effective."""

BLIND_S = 5.0
"""Where no header tells, a routing counts as effective after this time; all of it is transition."""

_WITHIN_S = 30.0
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Eyes:
    """Where probes go in: one URL for each replica of the gateway, or the gateway's own if replicas cannot be told.

    `access` says what they ask for, and over TLS whom they trust.
    """

    urls: Sequence[str]
    every_replica: bool
    access: Access = DIRECT


@contextlib.contextmanager
def eyes(cluster: Cluster, stack: StackInfo) -> Iterator[Eyes]:
    """A way into each ready replica of the gateway, through the API server.

    Where that is not allowed to us, the front door is the only way in, and one replica may lag unseen.
    """
    front = stack.cluster.front if stack.cluster else PLAIN
    labels = ",".join(f"{name}={value}" for name, value in (stack.cluster.selector if stack.cluster else {}).items())
    with contextlib.ExitStack() as opened:
        try:
            pods = [pod for pod in listed(cluster, "v1", "Pod", "", labels) if is_ready(pod)]
            urls = [opened.enter_context(forwarded(cluster, pod, front.pod_port, front.scheme)) for pod in pods]
        except ApiError as error:
            if error.status != FORBIDDEN:
                raise
            urls = []
        yield Eyes(urls or [stack.gateway_url], bool(urls), stack.access)


def tells(http: Sequence[Mapping[str, Any]], phase: str) -> bool:
    """Whether every destination of these routes sets the route header of this phase."""
    set_by = [
        ((destination.get("headers") or {}).get("response") or {}).get("set", {}).get(ROUTE_HEADER, "")
        or ((rule.get("headers") or {}).get("response") or {}).get("set", {}).get(ROUTE_HEADER, "")
        for rule in http
        for destination in rule.get("route") or ()
    ]
    return bool(set_by) and all(value.partition("/")[0] == phase for value in set_by)


def await_effective(experiment: Experiment, phase: str, seen_by: Eyes) -> None:
    """Return once the last of enough probes through every replica met the routing of a phase.

    Raises:
        StackError: it is not met in time; the message says what was met instead.
    """
    end = time.monotonic() + _WITHIN_S
    path = predict_path(experiment.model)
    for url in seen_by.urls:
        for headers in _senders(experiment):
            seen = ""
            while not all((seen := _route(f"{url}{path}", headers, seen_by.access)) == phase for _ in range(PROBES)):
                if time.monotonic() > end:
                    raise _not_taken(experiment, phase, url, seen)
                time.sleep(_PAUSE_S)


def _senders(experiment: Experiment) -> list[dict[str, str]]:
    """The headers of each cohort: each meets a rule of its own."""
    found = [expanded(cohort.headers) for cohort in experiment.cohorts.values()]
    return [headers for index, headers in enumerate(found) if headers not in found[:index]]


def _route(url: str, headers: Mapping[str, str], access: Access) -> str:
    """The phase that a fresh connection meets; empty where the answer names none.

    A GET costs no prediction, and Envoy sets the header on refusals of the model server and on its own errors too.
    """
    answer = ask(url, headers=headers, access=access)
    return (answer.headers.get(ROUTE_HEADER, "") if answer else "").partition("/")[0]


def _not_taken(experiment: Experiment, phase: str, url: str, seen: str) -> StackError:
    return StackError(
        f"{experiment.name}: the gateway at {url} has not taken phase {phase!r} within {_WITHIN_S:.0f} s; it still "
        f"answers with {f'phase {seen!r}' if seen else 'no route of ours'}; see: istioctl proxy-status"
    )
