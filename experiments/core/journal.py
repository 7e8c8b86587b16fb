"""Which routing was in force from when to when: changes as they were written, periods as they are judged.

A stack's journal is a file of JSON lines that only `deploy` writes. A change takes two lines: one when it was applied,
one when probes through the gateway saw it, so that a process that dies in between leaves the truth behind.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from experiments.core.errors import RecordsError

ROUTING_KINDS = ("VirtualService", "DestinationRule", "Gateway")
"""The kinds of objects that decide which pod a request goes to."""


class Applied(msgspec.Struct, frozen=True, tag="applied", tag_field="kind"):
    """A routing was handed to the gateway or the cluster."""

    sequence: int
    phase: str
    at_us: int
    by: str
    http: list[dict[str, Any]]
    arms: list[str]


class Effective(msgspec.Struct, frozen=True, tag="effective", tag_field="kind"):
    """Probes on fresh connections through the gateway saw that routing; without probes, a bounded wait ended."""

    sequence: int
    at_us: int
    probes: int
    seen: bool = True


class Foreign(msgspec.Struct, frozen=True, tag="foreign", tag_field="kind"):
    """Somebody else changed what is live.

    `object` is the kind of what was changed, such as `VirtualService`; `lasting` says that no later phase of ours puts
    it right.
    """

    at_us: int
    what: str
    by: str
    object: str = ""
    lasting: bool = False

    @property
    def routes(self) -> bool:
        """Whether it was the routing that was changed, and not what stands behind the routes."""
        return self.object in ROUTING_KINDS


Entry = Applied | Effective | Foreign
_decoder = msgspec.json.Decoder(Entry)


@dataclass(frozen=True)
class Change:
    """One routing: when it was applied, and when it was seen to be in force (None: never seen)."""

    sequence: int
    phase: str
    applied_us: int
    effective_us: int | None
    by: str
    http: Sequence[dict[str, Any]]
    arms: Sequence[str]


@dataclass(frozen=True)
class Period:
    """The time in which one routing was in force: from `start_us` (included) to `end_us` (excluded).

    What lies between the end of a period and the start of the next is transition.
    """

    index: int
    phase: str
    start_us: int
    end_us: int


def append(path: Path, entry: Entry) -> None:
    """Add a line to a journal, durably."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, msgspec.json.encode(entry) + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RecordsError(f"{path}: cannot be written: {error.strerror}; free space or change permissions.") from error


def moved(entry: Entry, ahead_us: int, uncertainty_us: int) -> Entry:
    """An entry in the time of a clock that is `ahead_us` ahead; what is not known of that clock widens the transition.

    >>> moved(Effective(1, 1_000, 3), 500, 20).at_us, moved(Foreign(1_000, "", ""), 500, 20).at_us
    (1520, 1500)
    """
    widened = {Applied: -uncertainty_us, Effective: uncertainty_us}.get(type(entry), 0)
    return msgspec.structs.replace(entry, at_us=entry.at_us + ahead_us + widened)


def read(path: Path) -> list[Entry]:
    """All entries of a journal, in order; an empty list where there is no file.

    Raises:
        RecordsError: a line is no entry; the message names it.
    """
    if not path.exists():
        return []
    entries: list[Entry] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            entries.append(_decoder.decode(line))
        except msgspec.MsgspecError as error:
            raise RecordsError(f"{path}:{number}: no journal entry ({error}); is it another tool's file?") from error
    return entries


def changes(entries: Iterable[Entry]) -> list[Change]:
    """The routings that a journal tells of, in order of their application."""
    found: dict[int, Change] = {}
    for entry in entries:
        if isinstance(entry, Applied):
            found[entry.sequence] = Change(
                entry.sequence, entry.phase, entry.at_us, None, entry.by, entry.http, entry.arms
            )
        elif isinstance(entry, Effective) and entry.sequence in found:
            found[entry.sequence] = replace(found[entry.sequence], effective_us=entry.at_us)
    return [found[sequence] for sequence in sorted(found)]


def periods(
    known: Sequence[Change], end_us: int, uncertainty_us: int = 0, foreign: Sequence[Foreign] = ()
) -> list[Period]:
    """The periods between transitions.

    Args:
        known: Changes in order.
        end_us: Where the last period ends.
        uncertainty_us: How far clocks of load processes may be off: added to each transition on both sides.
        foreign: What others changed: from a change of the routing on, it is not known which one is in force.

    Returns:
        One period for each change that became effective before the next was applied, or before somebody else's change.
    """
    found = []
    for index, change in enumerate(known):
        following = known[index + 1].applied_us - uncertainty_us if index + 1 < len(known) else end_us
        if change.effective_us is None:
            continue
        start = change.effective_us + uncertainty_us
        spoilt = [entry.at_us - uncertainty_us for entry in disturbing(known, index, foreign)]
        end = min([following, *spoilt])
        if start < end:
            found.append(Period(change.sequence, change.phase, start, end))
    return found


def disturbing(known: Sequence[Change], index: int, foreign: Sequence[Foreign]) -> list[Foreign]:
    """What others changed of the routing that was in force after one of the changes: since then, or before and lasting.

    Args:
        known: Changes in order.
        index: Which of them.
        foreign: What others changed.
    """
    since = known[index].applied_us
    until = known[index + 1].applied_us if index + 1 < len(known) else None
    return [
        entry
        for entry in foreign
        if entry.routes and (until is None or entry.at_us < until) and (entry.at_us >= since or entry.lasting)
    ]
