"""Where the load of a run comes from: Locust as a child of ours, or as pods; the conductor asks both the same."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from deploy.locust_manifests import LoadForm
from experiments.core import children, home, records
from experiments.core.access import variables
from experiments.core.errors import StackError
from experiments.core.reading import Loaded, to_mapping
from experiments.core.stack import StackDir, StackInfo, read_payloads
from experiments.progress import Narrator

if TYPE_CHECKING:
    from deploy.cluster.load import Bringing

LOCUSTFILE = home.CHECKOUT / "loadgen" / "canary.py"

LAST_LOOK_S = 20.0
"""How long a phase may be held beyond its time, for the look that sees all of it."""

_END_MARGIN_S = 10.0


class Load(Protocol):
    """A load under way. `ahead_us` is how far its clock is ahead of ours, to within `uncertainty_us`."""

    @property
    def ahead_us(self) -> int:
        """Microseconds; 0 on this machine."""

    @property
    def uncertainty_us(self) -> int:
        """Microseconds; 0 on this machine."""

    @property
    def account(self) -> records.RunInfo | None:
        """What a master on another machine says of the run, once it has ended."""

    def trouble(self) -> str | None:
        """Why it sends no more, though nobody has ended it."""


@dataclass(frozen=True)
class Here:
    """Locust on this machine: it patches the whole process when imported, so it gets one of its own."""

    processes: int = 1

    @contextlib.contextmanager
    def started(self, loaded: Loaded, stack: StackInfo, run: records.RunDir, narrator: Narrator) -> Iterator[Load]:
        """Send for as long as the block; what is in flight at its end is waited for."""
        del narrator
        process = _spawn(loaded, stack, run, self.processes)
        try:
            yield _Child(process, run)
        finally:
            children.end(process, loaded.experiment.load.timeout + _END_MARGIN_S, signal.SIGINT)


@dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes]
    run: records.RunDir
    ahead_us: int = 0
    uncertainty_us: int = 0
    account: records.RunInfo | None = None

    def trouble(self) -> str | None:
        if self.process.poll() is None:
            return None
        last = children.last_lines(self.run.path / "locust.log")
        return f"Locust ended early with exit code {self.process.returncode}: {last or 'it said nothing'}"


def longest_s(loaded: Loaded) -> float:
    """How long a load may go on at most, should nobody end it."""
    experiment = loaded.experiment
    total = experiment.load.warmup + sum(phase.duration for phase in experiment.phases) + 60
    return total + LAST_LOOK_S * len(experiment.phases)


def _spawn(loaded: Loaded, stack: StackInfo, run: records.RunDir, processes: int) -> subprocess.Popen[bytes]:
    # The experiment as it is run, not the file: values may have been changed for this run.
    copy = run.path / "experiment.json"
    records.write_json(copy, to_mapping(loaded.experiment))
    arguments = [
        sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--experiment", str(copy),
        "--host", stack.gateway_url, "--run-time", f"{longest_s(loaded):.0f}s", "--loglevel", "WARNING",
    ]  # fmt: skip
    if processes > 1:
        arguments += ["--processes", str(processes)]
    return children.spawn(arguments, run.path / "locust.log", {"SPLITPROOF_RUN": str(run.path)})


@dataclass(frozen=True)
class InCluster:
    """Locust's master and workers as pods.

    Attributes:
        image: A container image with this checkout in /splitproof, installed.
        workers: Load processes.
        host: The way in from the inside; the Service of the gateway if None.
        namespace: Where they run.
        payloads_claim: A claim that holds the request bodies, in place of ConfigMaps.
        within_s: Seconds for the pods to become ready.
    """

    image: str
    workers: int = 3
    host: str | None = None
    namespace: str = "splitproof-load"
    payloads_claim: str | None = None
    within_s: float = 300.0

    @contextlib.contextmanager
    def started(self, loaded: Loaded, stack: StackInfo, run: records.RunDir, narrator: Narrator) -> Iterator[Load]:
        """Send for as long as the block; at its end the records are here, and the pods are gone."""
        from deploy.cluster import load
        from deploy.cluster.client import connect

        if stack.cluster is None:
            raise StackError(f"{loaded.experiment.name}: --load in-cluster is for a stack on a cluster.")
        cluster, experiment, form = connect(stack.cluster.context), loaded.experiment, self._form(loaded, stack, run)
        try:
            load.put_up(cluster, experiment, form, narrator.say)
            master = load.await_pods(cluster, experiment, form, self.within_s, narrator.say)
            with load.brought(cluster, master, run) as bringing:
                narrator.say(
                    f"the load's clock is {bringing.ahead_us / 1000:+.1f} ms from ours, "
                    f"to within {bringing.uncertainty_us / 1000:.1f} ms"
                )
                try:
                    yield _Elsewhere(bringing)
                finally:
                    load.finish(bringing, experiment.load.timeout + 3 * _END_MARGIN_S, narrator.say)
        finally:
            removed = load.take_down(cluster, experiment, self.namespace)
            narrator.say(f"{cluster}: {len(removed)} objects of the load removed from namespace {self.namespace}")

    def _form(self, loaded: Loaded, stack: StackInfo, run: records.RunDir) -> LoadForm:
        from deploy import istio
        from deploy.cluster.client import connect

        cohorts = loaded.experiment.cohorts.values()
        names = variables(value for cohort in cohorts for value in cohort.headers.values())
        bodies = {} if self.payloads_claim else read_payloads(StackDir(home.stack_dir(loaded.experiment.name)).payloads)
        host = self.host
        if host is None and stack.cluster is not None:
            host = istio.from_inside(connect(stack.cluster.context), stack.cluster.selector, stack.cluster.front)
        return LoadForm(
            image=self.image,
            host=host or "",
            workers=self.workers,
            namespace=self.namespace,
            payloads={f"{name}.json": body for name, body in bodies.items()},
            payloads_claim=self.payloads_claim,
            run_id=run.path.name,
            secrets={name: os.environ[name] for name in names},
            access=stack.access,
        )


@dataclass(frozen=True)
class _Elsewhere:
    bringing: "Bringing"

    @property
    def ahead_us(self) -> int:
        return self.bringing.ahead_us

    @property
    def uncertainty_us(self) -> int:
        return self.bringing.uncertainty_us

    @property
    def account(self) -> records.RunInfo | None:
        return self.bringing.info

    def trouble(self) -> str | None:
        if self.bringing.trouble:
            return self.bringing.trouble
        ended = self.bringing.info.ended if self.bringing.info else None
        return f"the load in the cluster ended early: {ended.detail or ended.how}" if ended else None
