"""The workers of a test, as their master sees them: who takes which part, who is lost, who has closed what."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from loadgen.session import Closed, Division


@dataclass
class Crew:
    """Everybody who was given a part, by Locust's client id.

    Attributes:
        workers: Client id to place in the division at the start; who came late has a place after those.
        active: The clients that take part now, in the order of their places.
        divisions: Who takes which part, and since when: all that there were, the first one first.
        shards: Client id to the path of its shard, on its own machine.
        closed: Client id to what it did, once it has closed its shard.
        gone_s: Client id to the second of the schedule at which it was found gone: lost, or gone in order.
        idle: Client id of who came late and was given nothing to do, to how often it was seen so.
        draining: The test ends: who closes its shard from now on leaves no part to others.
    """

    workers: dict[str, int]
    active: list[str] = field(default_factory=list)
    divisions: list[Division] = field(default_factory=list)
    shards: dict[str, str] = field(default_factory=dict)
    closed: dict[str, Closed] = field(default_factory=dict)
    gone_s: dict[str, float] = field(default_factory=dict)
    idle: Counter[str] = field(default_factory=Counter)
    draining: bool = False

    def __post_init__(self) -> None:
        self.active = sorted(self.workers, key=self.workers.__getitem__)
        self.divisions = [Division(0, dict(self.workers))]

    def observe(self, alive: Iterable[str], at_s: float) -> bool:
        """Take note of who is alive; whether that changes who takes part."""
        found = set(alive) | set(self.closed) if self.draining else set(alive) - set(self.closed)
        now = sorted(found & set(self.workers), key=self.workers.__getitem__)
        changed = bool(now) and now != self.active
        for client in self.active:
            if client not in found:
                self.gone_s.setdefault(client, at_s)
        for client in now:
            self.gone_s.pop(client, None)
        if changed:
            self.active = now
        return changed

    def admit(self, client: str) -> None:
        """Somebody came after the start: once it is seen alive, it takes part."""
        self.workers.setdefault(client, len(self.workers))

    def left_out(self, ready: Iterable[str], looks: int) -> list[str]:
        """Who came after the start and has now been seen so often without having asked for a part."""
        strangers = set(ready) - set(self.workers)
        self.idle.update(strangers)
        return sorted(client for client in strangers if self.idle[client] == looks)

    def divide(self, offset_us: int) -> None:
        """Who is active now takes the schedule from `offset_us` on."""
        self.divisions.append(Division(offset_us, {client: place for place, client in enumerate(self.active)}))

    def waiting_for(self) -> set[str]:
        """Who has not closed its shard, and is not lost."""
        return set(self.workers) - set(self.closed) - set(self.gone_s)

    def unclosed(self) -> list[str]:
        """A sentence part for each who has not closed its shard: who it is, and where its records lie."""
        found = []
        for client in self._by_place():
            if client not in self.closed:
                when = f"lost after {self.gone_s[client]:.0f} s" if client in self.gone_s else "no word from it"
                shard = self.shards.get(client)
                where = f"its records: {shard}" if shard else "it recorded nothing that is known"
                found.append(f"{self._named(client)}: {when}; {where}")
        return found

    def departed(self, *, open_loop: bool) -> list[str]:
        """A sentence for each who closed its shard and left while the test went on."""
        gone = [client for client in self._by_place() if client in self.closed and client in self.gone_s]
        return [
            f"Of the load, {self._named(client)} left in order after {self.closed[client].until_us / 1e6:.0f} s: "
            f"its records are whole{f', {self._hole(client)}' if open_loop else ''}."
            for client in gone
        ]

    def _hole(self, client: str) -> str:
        until_us = self.closed[client].until_us
        after = [each.offset_us for each in self.divisions[1:] if client not in each.workers]
        next_us = next((offset for offset in after if offset >= until_us), None)
        when = "to the end" if next_us is None else f"of {(next_us - until_us) / 1e6:.1f} s, until others took them,"
        return f"its part of the arrivals {when} was not sent"

    def _by_place(self) -> list[str]:
        return sorted(self.workers, key=self.workers.__getitem__)

    def _named(self, client: str) -> str:
        return f"worker {client} (part {self.workers[client] + 1} of {len(self.workers)})"
