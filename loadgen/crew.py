"""The workers of a test, as their master sees them: who takes which part, who is lost, who has closed what."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from loadgen.session import Closed


@dataclass
class Crew:
    """Everybody who was given a part, by Locust's client id.

    Attributes:
        workers: Client id to place in the division at the start.
        active: The clients that take part now, in the order of their places.
        shards: Client id to the path of its shard, on its own machine.
        closed: Client id to what it did, once it has closed its shard.
        lost_s: Client id to the second of the schedule at which it was found lost.
    """

    workers: Mapping[str, int]
    active: list[str] = field(default_factory=list)
    shards: dict[str, str] = field(default_factory=dict)
    closed: dict[str, Closed] = field(default_factory=dict)
    lost_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.active = sorted(self.workers, key=self.workers.__getitem__)

    def observe(self, alive: Iterable[str], at_s: float) -> bool:
        """Take note of who is alive; whether that changes who takes part."""
        found = set(alive) | set(self.closed)
        now = sorted(found & set(self.workers), key=self.workers.__getitem__)
        changed = bool(now) and now != self.active
        for client in self.active:
            if client not in found:
                self.lost_s.setdefault(client, at_s)
        for client in now:
            self.lost_s.pop(client, None)
        if changed:
            self.active = now
        return changed

    @property
    def division(self) -> dict[str, int]:
        """Who takes which part from now on."""
        return {client: place for place, client in enumerate(self.active)}

    def waiting_for(self) -> set[str]:
        """Who has not closed its shard, and is not lost."""
        return set(self.workers) - set(self.closed) - set(self.lost_s)

    def unclosed(self) -> list[str]:
        """A sentence part for each who has not closed its shard: who it is, and where its records lie."""
        found = []
        for client, place in sorted(self.workers.items(), key=lambda item: item[1]):
            if client not in self.closed:
                when = f"lost after {self.lost_s[client]:.0f} s" if client in self.lost_s else "no word from it"
                shard = self.shards.get(client)
                where = f"its records: {shard}" if shard else "it recorded nothing that is known"
                found.append(f"worker {client} (part {place + 1} of {len(self.workers)}): {when}; {where}")
        return found
