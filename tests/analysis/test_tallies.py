"""Verdicts on tallies: what must not matter does not, and no count is too small, large or strange to be judged."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import balance, failures, latency, secondary, split
from analysis.findings import Claim
from experiments.core import hypotheses
from tests.analysis.counted import cell, tally_of
from tests.analysis.synthetic import EXPERIMENT, Truth, experiment

RATES = {"everyone": 80.0, "canary-users": 20.0}
quick = settings(max_examples=6, deadline=None)


def judged(tally, chosen=None, lost=0.0):
    """Every claim, and every interval beside them."""
    registered = hypotheses.hypotheses(chosen or experiment())
    claims, shares = split.judge(tally, registered, lost, RATES)
    on_failures, rows = failures.judge(tally, registered, lost, RATES)
    on_latency, _ = latency.judge(tally, registered, RATES)
    beside = [*balance.dispersions(tally, registered, ["old", "new"]), *balance.drifts(tally, registered)]
    return [*claims, *on_failures, *on_latency], [*shares, *rows, *beside, *secondary.describe(tally, registered)]


def verdicts(claims):
    return [(one.id, one.state, one.interval, one.ln_e_value, one.requests) for one in claims]


SOME = st.integers(0, 400)


@st.composite
def cells(draw, sizes=SOME):
    """Requests of both arms over some windows, some of which failed or name no arm."""
    found = []
    for window in range(draw(st.integers(1, 10))):
        for arm in ("old", "new"):
            for outcome in ("ok", "http-503", "timeout"):
                n = draw(sizes)
                found.append(cell(n, arm, outcome=outcome, window=window, known=outcome != "timeout"))
    return [one for one in found if one["n"]] or [cell(1, "old")]


@pytest.mark.slow
@quick
@given(cells(), st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_their_shards_matter(given_cells, random):
    whole = judged(tally_of(given_cells))[0]
    shuffled = random.sample(given_cells, len(given_cells))
    assert verdicts(judged(tally_of(shuffled))[0]) == verdicts(whole)
    # Each cell is divided among three shards, whose tallies are added in any order.
    parts = [[], [], []]
    for one in given_cells:
        cuts = sorted((random.randint(0, one["n"]), random.randint(0, one["n"])))
        for part, n in zip(parts, (cuts[0], cuts[1] - cuts[0], one["n"] - cuts[1]), strict=True):
            part.append({**one, "n": n, "latency_us": one["latency_us"] * n // one["n"]})
    together = tally_of(parts[2]) + (tally_of(parts[0]) + tally_of(parts[1]))
    assert verdicts(judged(together)[0]) == verdicts(whole)
    assert (
        together.cells[["n", "latency_us"]].sum().tolist()
        == tally_of(given_cells).cells[["n", "latency_us"]].sum().tolist()
    )


@pytest.mark.slow
@quick
@given(cells())
def test_the_names_of_arms_do_not_matter(given_cells):
    text = msgspec.json.encode(EXPERIMENT).replace(b'"old"', b'"zebra"').replace(b'"new"', b'"ant"')
    other = experiment(**msgspec.json.decode(text))
    names = {"old": "zebra", "new": "ant", "": ""}
    renamed = [{**one, "answered": names[one["answered"]], "routed": names[one["routed"]]} for one in given_cells]
    plain, again = judged(tally_of(given_cells))[0], judged(tally_of(renamed), other)[0]
    assert [(one.state, one.interval, one.ln_e_value) for one in again] == [
        (one.state, one.interval, one.ln_e_value) for one in plain
    ]


def test_nothing_at_all_is_judged_undecided():
    claims, _ = judged(tally_of([]))
    assert {one.state for one in claims if one.kind != "latency"} == {"undecided"}


def told(value):
    if isinstance(value, dict):
        return [one for each in value.values() for one in told(each)]
    if isinstance(value, list):
        return [one for each in value for one in told(each)]
    return [value] if isinstance(value, float) else []


def check_sane(claims, beside):
    """No number that is none; every interval in order; a state for every claim; a sentence."""
    for one in [*claims, *beside]:
        assert not any(math.isnan(number) for number in told(msgspec.to_builtins(one))), one
        if isinstance(one, Claim):
            assert one.state in ("shown", "broken", "undecided", "void")
            assert one.sentence
            if one.interval and one.interval.high is not None:
                assert one.interval.low <= one.interval.high


@pytest.mark.slow
@quick
@given(cells(st.sampled_from([0, 1, 2, 10**9, 10**15])), st.sampled_from([0.0, 1.0, 10.0**15]))
def test_counts_of_every_size_are_judged(given_cells, lost):
    check_sane(*judged(tally_of(given_cells), lost=lost))


@pytest.mark.slow
@pytest.mark.parametrize(
    "given_cells",
    [
        [],
        [cell(1, "old")],
        [cell(1, "new")],
        [cell(10**18, "old")],
        [cell(10**18, "new")],
        [cell(10**17, "old"), cell(1, "new")],
        [cell(10**9, "old", outcome="http-503"), cell(10**9, "new", outcome="http-503")],
        [cell(10**9, "old", known=False, outcome="timeout")],
        [cell(700, "old", window=w) for w in range(20)] + [cell(300, "new", window=w) for w in range(20)],
        [
            {**cell(50, arm, window=w), "bin": at}
            for w in range(20)
            for arm in ("old", "new")
            for at in (-1, 14336, 14337, 14338, 62 * 1024)
        ],
    ],
    ids=[
        "nothing",
        "one",
        "one canary",
        "all old",
        "all new",
        "one beside 10^17",
        "all failed",
        "none known",
        "equal latencies",
        "some 0, some endless",
    ],
)
def test_extremes_are_judged(given_cells):
    check_sane(*judged(tally_of(given_cells)))


def test_fifty_arms():
    arms = [f"a{number}" for number in range(50)]
    chosen = experiment(
        arms={arm: {"keras": "ResNet50"} for arm in arms},
        phases=[{"name": "split", "route": {arms[0]: 51, **dict.fromkeys(arms[1:], 1)}, "for": 45.0}],
    )
    found = tally_of([cell(10**6, arms[0])] + [cell(1, arm) for arm in arms[1:3]])
    check_sane(*judged(found, chosen))


@pytest.mark.slow
def test_the_scale_of_time_does_not_matter(tmp_path):
    """Everything twice as slow: half the arrivals, phases twice as long, latencies doubled."""
    from analysis.judge import judge
    from tests.analysis.synthetic import write_run

    phases = [{**phase, "for": 2 * phase["for"]} for phase in EXPERIMENT["phases"]]
    slow = experiment(phases=phases, load={"arrivals": 50.0, "warmup": 10.0})
    doubled = replace(Truth(), median_ms={"old": 40.0, "new": 40.0}, effective_us=60_000)
    plain, other = judge(write_run(tmp_path / "plain")), judge(write_run(tmp_path / "slow", slow, doubled))
    assert other.verdict.word == plain.verdict.word
    assert [one.state for one in other.claims] == [one.state for one in plain.claims]
    for one, again in zip(plain.claims, other.claims, strict=True):
        ends = [[each.interval.low, each.interval.high] for each in (one, again)]
        assert ends[1] == pytest.approx(ends[0], rel=0.02, abs=0.005)
    ratios = np.array(list(other.latencies[0].quantiles_us.values())) / list(plain.latencies[0].quantiles_us.values())
    assert ratios == pytest.approx(2.0, rel=0.01)
