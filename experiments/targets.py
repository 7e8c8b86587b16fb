"""Where an experiment runs: on this machine's embedded stack, or on a cluster; the conductor asks both the same."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from deploy.embedded import stack as embedded
from deploy.embedded.faults import NO_FAULTS, Faults
from experiments.core import journal
from experiments.core.errors import StackError
from experiments.core.home import stack_dir
from experiments.core.reading import Loaded
from experiments.core.stack import StackDir, StackInfo
from experiments.progress import Narrator

if TYPE_CHECKING:
    from deploy.cluster.foreign import Watch
    from deploy.cluster.lease import Held
    from deploy.cluster.stack import Wanted

Manifests = list[dict[str, Any]]


@dataclass(frozen=True)
class Tampering:
    """What a self-test does to a stack behind the experiment's back."""

    faults: Faults = NO_FAULTS
    edit: Callable[[Manifests], Manifests] | None = None


class Target(Protocol):
    """What a run needs of a place where stacks live."""

    def reserved(self, loaded: Loaded) -> AbstractContextManager[None]:
        """Have the routes of an experiment for oneself; raises StackError where another run has them."""

    def stack(
        self, loaded: Loaded, tampering: Tampering | None, narrator: Narrator
    ) -> AbstractContextManager[StackInfo]:
        """The stack: one that is up already is used and left, else one of our own, taken down at the end."""

    def route(self, name: str, phase: str, edit: Callable[[Manifests], Manifests] | None) -> journal.Change:
        """Put the routing of a phase in force."""

    def trouble(self, name: str) -> str | None:
        """Why a run cannot go on, in a sentence: its stack has died, or is another run's now."""


_BY = "experiments run"


@dataclass(frozen=True)
class Embedded:
    """This machine: real Envoy before one serving process for each arm."""

    def reserved(self, loaded: Loaded) -> AbstractContextManager[None]:
        """See Target."""
        return embedded.reserved(loaded.experiment.name)

    @contextlib.contextmanager
    def stack(self, loaded: Loaded, tampering: Tampering | None, narrator: Narrator) -> Iterator[StackInfo]:
        """See Target."""
        name, given = loaded.experiment.name, tampering or Tampering()
        if loaded.experiment.attach:
            raise StackError(f"{name}: attach is for stacks of others on a cluster; add --target kubernetes.")
        if embedded.is_up(name):
            if tampering:
                raise StackError(
                    f"{name}: its stack is up; a self-test needs its own; run: python -m deploy down {name}"
                )
            narrator.say(f"using the stack of {name} that is up; it will stay up")
            before = embedded.routing(name)
            try:
                yield embedded.up(loaded, progress=narrator.say)
            finally:
                wrong = embedded.trouble(name)
                if wrong is None:
                    embedded.settle(name, before, narrator.say)
                else:
                    narrator.say(f"routes cannot be left as on_end says: {wrong}")
            return
        try:
            yield embedded.up(
                loaded, faults=given.faults, edit=given.edit, owner_pid=os.getpid(), progress=narrator.say
            )
        finally:
            embedded.down(name, progress=narrator.say)

    def route(self, name: str, phase: str, edit: Callable[[Manifests], Manifests] | None) -> journal.Change:
        """See Target."""
        return embedded.route(name, phase, edit=edit, by=_BY)

    def trouble(self, name: str) -> str | None:
        """See Target."""
        wrong = embedded.trouble(name)
        return f"the stack died under the load: {wrong}" if wrong else None


@dataclass
class Kubernetes:
    """A cluster with Istio, by a context that the user chose."""

    wanted: "Wanted"
    _watch: "Watch | None" = field(default=None, repr=False)
    _held: "Held | None" = field(default=None, repr=False)

    @contextlib.contextmanager
    def reserved(self, loaded: Loaded) -> Iterator[None]:
        """See Target; a Lease in the cluster keeps runs from other machines away too.

        Whoever is refused here has changed nothing, and has nothing to take down.
        """
        from deploy.cluster import lease, stack
        from deploy.cluster.client import connect

        cluster, book = connect(self.wanted.context), StackDir(stack_dir(loaded.experiment.name)).journal
        with embedded.reserved(loaded.experiment.name):
            stack.refuse_elsewhere(loaded.experiment.name, cluster)
            stack.make_room(cluster, loaded, self.wanted)
            with lease.leased(cluster, loaded.experiment, lambda held: _note_loss(held, book)) as self._held:
                yield

    @contextlib.contextmanager
    def stack(self, loaded: Loaded, tampering: Tampering | None, narrator: Narrator) -> Iterator[StackInfo]:
        """See Target. What others change meanwhile goes to the journal."""
        from deploy.cluster import foreign, stack, switch
        from deploy.cluster.client import connect

        given = tampering or Tampering()
        if given.faults != NO_FAULTS:
            raise StackError("faults of serving processes are the embedded target's; a cluster's pods are not ours.")
        cluster = connect(self.wanted.context)
        with self._standing(loaded, given, narrator) as info, contextlib.ExitStack() as held:
            url = held.enter_context(stack.gateway(cluster, info))
            book = StackDir(stack_dir(loaded.experiment.name)).journal
            api = info.cluster.istio if info.cluster else ""
            scope = switch.scope_of(cluster, info, loaded.experiment)
            self._watch = held.enter_context(
                foreign.watching(cluster, scope, api, lambda entry: _note(entry, book, narrator))
            )
            yield msgspec.structs.replace(info, gateway_url=url)

    @contextlib.contextmanager
    def _standing(self, loaded: Loaded, given: Tampering, narrator: Narrator) -> Iterator[StackInfo]:
        """The stack, and what becomes of it: one that was there stays, whoever has put it up and from wherever."""
        from deploy.cluster import stack
        from deploy.cluster.client import connect

        cluster = connect(self.wanted.context)
        found = stack.standing(cluster, loaded)
        if found:
            narrator.say(f"using the stack of {loaded.experiment.name} that is up; it will stay up")
        try:
            yield stack.up(loaded, self.wanted, edit=given.edit, progress=narrator.say)
        finally:
            if self._held and self._held.lost:
                narrator.say(self._held.lost)
            else:
                stack.leave(loaded, self.wanted.context, found, narrator.say)

    def route(self, name: str, phase: str, edit: Callable[[Manifests], Manifests] | None) -> journal.Change:
        """See Target."""
        from deploy.cluster import stack

        return stack.route(name, phase, edit=edit, by=_BY, watch=self._watch)

    def trouble(self, name: str) -> str | None:  # noqa: ARG002 - what a cluster heals by itself is no trouble of ours
        """See Target. A pod that dies is evidence, not trouble: the cluster replaces it."""
        return self._held.lost if self._held else None


def _note(entry: journal.Foreign, book: Path, narrator: Narrator) -> None:
    journal.append(book, entry)
    narrator.say(f"somebody else: {entry.what}, by {entry.by}")


def _note_loss(held: "Held", book: Path) -> None:
    """From here on somebody else may change the routes, and nobody of us looks."""
    if book.parent.exists():
        what = f"the Lease of this run in namespace {held.experiment.namespace} was taken"
        journal.append(book, journal.Foreign(time.time_ns() // 1000, what, held.taker, object="Lease", lasting=True))
