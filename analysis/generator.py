"""Was the load the one that was planned, and if not: was the generator too slow, or the service?

Each load process says once a second what it did; nothing here is estimated.
"""

from collections.abc import Iterator, Sequence

import pyarrow.compute as pc

from analysis import words
from analysis.findings import Check
from analysis.rows import LAGGING_US, Effort, Rows, ShardSummary
from analysis.tally import WARM_UP, Tally

MAX_LATE = 0.1
"""Share of requests that may start late before the load is no longer the one that was planned."""

MAX_BUSY = 0.1
"""Share of its time that a load process may use all of a core: what waits for it then looks like the service."""

MAX_LAGGING = 0.1
"""Share of its seconds in which a load process's event loop may keep something waiting for `LAGGING_US` or more."""

MOST_NAMED = 4
"""Load processes whose rates are told: those that fell behind the most."""

MAX_QUEUED = 0.1
"""Share of requests that may wait for a connection of ours: their latency is partly our own."""

MAX_CLOCK_STEP_US = 250_000
"""How far the wall clock may move away from a shard's clock before rows and routing journal tell two times."""


def checks(rows: Rows, tally: Tally) -> Iterator[Check]:
    """What load processes say of themselves."""
    yield _keeps_up(rows.shards, tally)
    yield from _connections(rows.shards)
    yield from _clock(rows.shards)
    yield from _retries(rows)


def _keeps_up(shards: Sequence[ShardSummary], tally: Tally) -> Check:
    # All of the load but its warm-up: also what falls between two phases was planned.
    loaded = tally.cells[tally.cells["standing"] != WARM_UP]
    total, late = int(loaded["n"].sum()), int(loaded["late"].sum())
    never = sum(shard.trailer.never_sent for shard in shards if shard.trailer)
    kept = late <= MAX_LATE * total and never <= MAX_LATE * max(total, 1)
    busy = [shard for shard in shards if _is_busy(shard.effort)]
    lagging = [shard for shard in shards if _is_lagging(shard.effort)]
    if any(shard.header.mode == "open" for shard in shards):
        sentence = f"{words.count(late)} of {words.requests(total)} started late; {words.count(never)} never sent."
    else:
        sentence = "users waited for each answer: there is no schedule to keep."
    cause = (
        _busy_sentence(busy) if busy else _lag_sentence(lagging) if lagging else "" if kept else _cause(shards, late)
    )
    sentence += _rates(shards)
    ok = kept and not busy and not lagging
    return Check("load generator keeps up", ok=ok, sentence=f"{sentence}{cause}", weakens=[] if ok else ["latency"])


def _is_busy(effort: Effort) -> bool:
    return effort.busy > max(MAX_BUSY * effort.beats, 1)


def _is_lagging(effort: Effort) -> bool:
    return effort.lagging > max(MAX_LAGGING * effort.beats, 1)


def _rates(shards: Sequence[ShardSummary]) -> str:
    """What each load process sent and what it should have sent, a second: those first that fell behind the most."""
    timed = [shard for shard in shards if shard.effort.due and shard.effort.seconds]
    if not timed:
        return ""
    timed.sort(key=lambda shard: shard.effort.sent / (shard.effort.due or 1))
    said = [
        f"{shard.name} {shard.effort.sent / shard.effort.seconds:,.1f} "
        f"of {(shard.effort.due or 0) / shard.effort.seconds:,.1f}"
        for shard in timed[:MOST_NAMED]
    ]
    more = f", {len(timed) - MOST_NAMED} more no worse" if len(timed) > MOST_NAMED else ""
    return f" Sent and due, a second: {', '.join(said)}{more}."


def _lag_sentence(lagging: Sequence[ShardSummary]) -> str:
    worst = max(lagging, key=lambda shard: shard.effort.lagging / shard.effort.beats)
    return (
        f" The generator was the bottleneck: the event loop of {worst.name} kept requests waiting for "
        f"{words.milliseconds(LAGGING_US)} or more in {words.count(worst.effort.lagging)} of "
        f"{words.count(worst.effort.beats)} seconds; give it a core of its own, or start more load processes "
        "(--processes N) or workers."
    )


def _busy_sentence(busy: Sequence[ShardSummary]) -> str:
    worst = max(busy, key=lambda shard: shard.effort.busy / shard.effort.beats)
    return (
        f" The generator was the bottleneck: {worst.name} used all of a core in {words.count(worst.effort.busy)} of "
        f"{words.count(worst.effort.beats)} seconds; start more load processes (--processes N) or workers."
    )


def _cause(shards: Sequence[ShardSummary], late: int) -> str:
    """Why a schedule was not kept by processes that had time to spare."""
    starved = sum(shard.effort.starved for shard in shards)
    if starved > late / 2:
        slots = max((shard.header.slots or 0 for shard in shards), default=0)
        room = f"all {words.count(slots)} slots" if slots else "every slot"
        return (
            f" The service answered more slowly than requests arrived: {words.count(starved)} arrivals found {room} "
            "busy, and waited; raise load.slots to send them on time all the same, or lower the arrivals."
        )
    lag = max((shard.effort.lag_us for shard in shards), default=0)
    return (
        f" The generator was held up for up to {words.milliseconds(lag)} though it had CPU to spare: "
        "give it a machine, or a core, of its own."
    )


def _connections(shards: Sequence[ShardSummary]) -> Iterator[Check]:
    queued, sent = (sum(getattr(shard.effort, name) for shard in shards) for name in ("queued", "sent"))
    if not queued:
        return
    ok = queued <= MAX_QUEUED * sent
    sentence = (
        f"{words.count(queued)} of {words.requests(sent)} waited for one of the connections that their pool allows"
    )
    advice = "." if ok else ": that wait is in their latency; allow more (connections: pool:N)."
    yield Check("connections", ok=ok, sentence=sentence + advice, weakens=[] if ok else ["latency"])


def _clock(shards: Sequence[ShardSummary]) -> Iterator[Check]:
    moved = max((shard.effort.clock_moved_us for shard in shards), default=0)
    if moved > MAX_CLOCK_STEP_US:
        sentence = (
            f"the wall clock of a load process was set by {words.milliseconds(moved)} during the load: its rows and "
            "the routing journal may tell two times; let the clock settle, then run again."
        )
        yield Check("clock steady", ok=False, sentence=sentence, weakens=["split", "errors", "latency"])


def _retries(rows: Rows) -> Iterator[Check]:
    """What the proxy says of its own retries; ours are none. A look while the load runs has counts and no rows."""
    if "attempts" not in rows.table.column_names:
        return
    attempts = rows.table["attempts"]
    said = len(attempts) - attempts.null_count
    if said:
        more = int(pc.sum(pc.greater(attempts, 1)).as_py() or 0)
        sentence = f"the proxy counts its tries: {words.count(more)} of {words.requests(said)} took more than one."
        yield Check("retries by the proxy", ok=True, sentence=sentence)
