"""The brakes of a run: what they look at, and when they say nothing."""

import time

import msgspec

from experiments.brakes import WINDOW_S, Brakes
from experiments.core.records import Row, RunDir
from experiments.core.spec import AbortIf


def row(arm, *, ago_s=1.0, error=None, latency_us=1_000):
    end_us = time.time_ns() // 1000 - int(ago_s * 1e6)
    return Row(0, "id", "everyone", "p", None, end_us - latency_us, latency_us, 503 if error else 200, None, error,
               f"split/{arm}", None, None, 0)  # fmt: skip


def why(tmp_path, rule, rows):
    """What brakes say of a shard with these rows."""
    shard = tmp_path / "requests-host-1.jsonl"
    lines = [b"{}", *(msgspec.json.encode(each) for each in rows)]  # the header is passed over
    shard.write_bytes(b"\n".join(lines) + b"\n")
    return Brakes(RunDir(tmp_path), rule).why()


def test_an_arm_that_fails_ends_the_run_and_is_named(tmp_path):
    rows = [row("large", error="http-503") for _ in range(9)] + [row("large") for _ in range(21)]
    rows += [row("small") for _ in range(300)]  # which would hide it, were they counted together
    said = why(tmp_path, AbortIf(errors=0.2), rows)
    assert said == "9 of the last 30 requests to large failed; abort_if.errors is 0.2"


def test_a_slow_arm_ends_the_run(tmp_path):
    rows = [row("large", latency_us=3_000_000) for _ in range(3)] + [row("large") for _ in range(120)]
    said = why(tmp_path, AbortIf(p99=2.0), rows)
    assert said == "p99 of the last 123 requests to large is 3 s; abort_if.p99 is 2 s"


def test_few_requests_old_ones_and_healthy_ones_say_nothing(tmp_path):
    few = [row("large", error="http-503") for _ in range(10)]
    old = [row("large", error="http-503", ago_s=WINDOW_S + 5) for _ in range(100)]
    healthy = [row("large") for _ in range(100)] + [row("large", error="http-503") for _ in range(2)]
    for rows in (few, old, healthy):
        assert why(tmp_path, AbortIf(errors=0.2, p99=2.0), rows) is None


def test_it_looks_once_a_second_and_at_new_rows_only(tmp_path):
    brakes = Brakes(RunDir(tmp_path), AbortIf(errors=0.2))
    assert brakes.why() is None
    (tmp_path / "requests-host-1.jsonl").write_bytes(
        b"{}\n" + b"\n".join(msgspec.json.encode(row("large", error="timeout")) for _ in range(30)) + b"\n"
    )
    assert brakes.why() is None
    brakes._next = 0.0
    assert brakes.why() == "30 of the last 30 requests to large failed; abort_if.errors is 0.2"
