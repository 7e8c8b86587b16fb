"""What is counted in memory is what a database counts, whatever the rows: two ways, written apart, that agree."""

from dataclasses import replace

import ibis
import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import counting, query
from analysis.answers import NOT_FINITE, Answer
from analysis.rows import Rows, ShardSummary, arrow_table
from analysis.tally import KEYS, SUMS, Plan, as_text
from experiments.core.journal import Period
from experiments.core.records import Row, Trailer
from tests.analysis.synthetic import experiment, header

ANSWERS = [
    Answer("cat", "s1", "old", ""),
    Answer("cat", "s2", "new", ""),
    Answer("cat", "s3", "", "near nobody"),
    Answer("dog", "s1", "", NOT_FINITE),
]
PLAN = Plan(
    arms=("old", "new"),
    periods=[Period(4, "a", 100, 200), Period(5, "b/c", 220, 300), Period(9, "", 300, 400)],
    batch_seconds={"a": 20e-6, "b/c": 7e-6},
    warm_until_us=110,
    by_header=False,
    horizons={5: 280},
    limits_us=(20, 300_000),
)
ROUTES = [None, "", "a/old", "a/new", "b/c/old", "b/new", "/old", "a/stranger", "a/", "no slash"]


@st.composite
def rows(draw):
    """Requests of all kinds: on the edges of periods, late, in flight at their ends, failed, unknown."""
    start = draw(st.integers(80, 420))
    return Row(
        sequence=draw(st.integers(0, 9)),
        request_id="r",
        cohort=draw(st.sampled_from(["everyone", "canary-users"])),
        payload=draw(st.sampled_from(["cat", "dog", "bird"])),
        intended_us=draw(st.sampled_from([None, start, start - 5, start - 300_000])),
        start_us=start,
        latency_us=draw(st.sampled_from([0, 1, 3, 20, 30, 1023, 1024, 1025, 10**7])),
        status=draw(st.sampled_from([200, 204, 0, 503, 404])),
        signature=draw(st.sampled_from([None, "s1", "s2", "s3", "s9"])),
        error=draw(st.sampled_from([None, None, None, "timeout", ""])),
        route=draw(st.sampled_from(ROUTES)),
        upstream_us=None,
        pod=None,
        response_bytes=1,
    )


def by_query(known, plan):
    connection = ibis.duckdb.connect()
    try:
        tables = tuple(ibis.memtable(table) for table in query.tables(known, ANSWERS, plan).values())
        cells, waited = (
            connection.to_pyarrow(asked(tables, plan)).to_pandas()
            for asked in (query.expression, query.waited_expression)
        )
    finally:
        connection.disconnect()
    keys = ["phase", "answered", "bin"]
    return (
        cells[[*KEYS, *SUMS]].sort_values(list(KEYS), ignore_index=True),
        waited[[*keys, "n", "latency_us"]].sort_values(keys, ignore_index=True),
    )


def ended(at_us):
    """A process that recorded everything that was issued up to a moment."""
    known = header(experiment())
    return ShardSummary("s", "", known, Trailer(at_us=at_us, rows=0, locust_requests=0), None, 0, False, 0, 0, None)  # noqa: FBT003


def agree(some, plan):
    tables = [arrow_table(some[::2], 0), arrow_table(some[1::2], 1)]
    known = Rows(pa.concat_tables(tables), (ended(10**9), ended(350)))
    found = counting.tally(known, ANSWERS, plan)
    cells, waited = by_query(known, plan)
    pd.testing.assert_frame_equal(as_text(found.cells), cells)
    pd.testing.assert_frame_equal(as_text(found.waited), waited)


@settings(max_examples=12, deadline=None)
@given(st.lists(rows(), max_size=120), st.booleans(), st.booleans())
def test_two_ways_of_counting_agree(some, by_header, known):
    agree(some, replace(PLAN, by_header=by_header, periods=PLAN.periods if known else []))


def test_sums_beyond_64_bits_are_sums_all_the_same():
    row = Row(0, "r", "everyone", "cat", 120, 120, 10**16, 200, "s1", None, None, None, None, 1)
    known = Rows(arrow_table([row] * 2000, 0), (ended(10**9),))
    assert counting.tally(known, ANSWERS, PLAN).cells["latency_us"].sum() == 2000 * 10**16
