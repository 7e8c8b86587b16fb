import msgspec
import pandas as pd
import pyarrow as pa
import pytest

from analysis import generator
from analysis.rows import SCHEMA, Rows, ShardSummary, effort
from analysis.tally import JUDGED, KEYS, Tally
from experiments.core.records import COLUMNS, Beat, ShardHeader, Trailer


def beats(count=20, **changes):
    plain = {"at_us": 0, "watermark_us": 0, "in_flight": 3, "cpu": 0.3, "lag_us": 2_000, "sent": 1000}
    return [Beat(**{**plain, **changes}) for _ in range(count)]


def summary(said, trailer=None, **header):
    head = ShardHeader(1, "r", "h", "host", 7, COLUMNS, 0, 0, **{"slots": 64, "client": "host_1", **header})
    return ShardSummary(
        "requests-host-7.jsonl", "", head, trailer or Trailer(0, 1000, 1000), said[-1], 1000, torn=False, gaps=0,
        repeated=0, last_end_us=0, effort=effort(head, said, trailer),
    )  # fmt: skip


def judged(late=0, total=1000):
    cell = dict.fromkeys(KEYS, "") | {"standing": JUDGED, "n": total, "latency_us": 1, "late": late}
    return Tally(pd.DataFrame([cell]))


def found(shards, late=0, attempts=None):
    columns = {name: pa.nulls(2, SCHEMA.field(name).type) for name in SCHEMA.names}
    columns["attempts"] = pa.array(attempts or [None, None], pa.int32())
    return {check.name: check for check in generator.checks(Rows(pa.table(columns), tuple(shards)), judged(late))}


def keeps_up(*shards, late=0):
    return found(shards, late)["load generator keeps up"]


def test_a_schedule_that_was_kept_is_said_so():
    check = keeps_up(summary(beats()), late=3)
    assert (check.ok, check.weakens) == (True, [])
    assert check.sentence == "3 of 1,000 requests started late; 0 never sent."


def test_a_saturated_process_makes_latency_void_even_where_little_is_late_and_is_named():
    check = keeps_up(summary(beats(17) + beats(3, cpu=0.97)), summary(beats()))
    assert (check.ok, check.weakens) == (False, ["latency"])
    assert "requests-host-7.jsonl used all of a core in 3 of 20 seconds" in check.sentence
    assert "--processes N" in check.sentence


@pytest.mark.parametrize("mode", ["open", "closed"])
def test_an_event_loop_that_keeps_requests_waiting_makes_latency_void(mode):
    check = keeps_up(summary(beats(17) + beats(3, lag_us=100_000), mode=mode), summary(beats(), mode=mode))
    assert (check.ok, check.weakens) == (False, ["latency"])
    assert "The generator was the bottleneck: the event loop of requests-host-7.jsonl kept requests" in check.sentence
    assert "for 100 ms or more in 3 of 20 seconds" in check.sentence
    assert "--processes N" in check.sentence
    assert keeps_up(summary(beats(18) + beats(2, lag_us=100_000), mode=mode)).ok
    assert keeps_up(summary(beats(17) + beats(3, lag_us=99_000), mode=mode)).ok


def test_what_each_process_sent_and_should_have_sent_is_told():
    some = [
        summary(beats(), Trailer(10_000_000, 90, 90, scheduled=100, never_sent=never), origin_us=0) for never in (10, 0)
    ]
    killed = summary(beats(at_us=20_000_000, sent=900, backlog=100), origin_us=0)
    killed = msgspec.structs.replace(killed, trailer=None)
    check = keeps_up(*some, killed)
    name = "requests-host-7.jsonl"
    assert f" Sent and due, a second: {name} 9.0 of 10.0, {name} 45.0 of 50.0, {name} 10.0 of 10.0." in check.sentence
    assert "1 more no worse" in keeps_up(*some, *some, killed).sentence
    assert "Sent and due" not in keeps_up(summary(beats(), mode="closed", origin_us=0)).sentence


def test_one_busy_second_is_no_saturation():
    assert keeps_up(summary(beats(5) + beats(1, cpu=1.0))).ok


def test_full_slots_speak_of_the_service_not_of_the_generator():
    check = keeps_up(summary(beats(), Trailer(0, 1000, 1000, starved=400)), late=400)
    assert not check.ok
    assert "The service answered more slowly than requests arrived" in check.sentence
    assert "all 64 slots busy" in check.sentence
    assert "bottleneck" not in check.sentence


def test_lateness_with_slots_and_cpu_to_spare_speaks_of_the_machine():
    check = keeps_up(summary(beats(19) + beats(1, lag_us=800_000), Trailer(0, 1000, 1000, never_sent=300)), late=100)
    assert not check.ok
    assert "held up for up to 800 ms though it had CPU to spare" in check.sentence


def test_a_closed_loop_has_no_schedule_but_may_be_saturated():
    assert keeps_up(summary(beats(), mode="closed")).sentence.startswith("users waited")
    assert not keeps_up(summary(beats(cpu=1.0), mode="closed")).ok


@pytest.mark.parametrize(("queued", "ok"), [(5, True), (500, False)])
def test_waiting_for_a_connection_of_ones_own_is_told(queued, ok):
    check = found([summary(beats(), Trailer(0, 1000, 1000, queued=queued))])["connections"]
    assert (check.ok, check.weakens == ["latency"]) == (ok, not ok)


def test_a_clock_that_was_set_during_the_load_voids_all():
    steady = [msgspec.structs.replace(beat, wall_us=at * 10) for at, beat in enumerate(beats())]
    assert "clock steady" not in found([summary(steady)])
    jumped = [msgspec.structs.replace(beat, wall_us=3_600_000_000 * (at > 9)) for at, beat in enumerate(beats())]
    assert found([summary(jumped)])["clock steady"].weakens == ["split", "errors", "latency"]


def test_retries_of_the_proxy_are_counted_where_it_tells_them():
    assert "retries by the proxy" not in found([summary(beats())])
    check = found([summary(beats())], attempts=[1, 3])["retries by the proxy"]
    assert (check.ok, check.sentence) == (True, "the proxy counts its tries: 1 of 2 requests took more than one.")
