import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from loadgen.schedule import DueCounter, Part, Schedule, arrivals, splitmix64, uniforms

SHARES = {"everyone": 0.7, "canary-users": 0.25, "others": 0.05}

schedules = st.builds(
    Schedule,
    rate=st.floats(0.1, 50_000),
    pattern=st.sampled_from(["constant", "poisson"]),
    seed=st.integers(0, 2**63),
    shares=st.sampled_from([SHARES, {"all": 1.0}, {"nobody": 0.0, "all": 1.0}]),
    payloads=st.integers(1, 9).map(lambda count: tuple(f"p{index}" for index in range(count))),
)


def first(schedule, count, part=None):
    return list(itertools.islice(arrivals(schedule, part or Part()), count))


def test_the_bits_are_those_of_splitmix64():
    # Five outputs for seed 1234567, as published on rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64.
    published = [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    assert splitmix64(1234567, np.arange(5)).tolist() == published


@settings(max_examples=50, deadline=None)
@given(schedules, st.integers(1, 7))
def test_the_parts_of_any_number_of_workers_make_up_the_whole(schedule, workers):
    whole = first(schedule, 700)
    parts = [
        list(itertools.takewhile(lambda each: each.sequence < 700, arrivals(schedule, Part(index, workers))))
        for index in range(workers)
    ]
    assert sorted(itertools.chain.from_iterable(parts)) == whole


@settings(max_examples=30, deadline=None)
@given(schedules)
def test_it_is_the_same_whenever_it_is_drawn_and_goes_forward(schedule):
    drawn = first(schedule, 300)
    assert drawn == first(schedule, 300)
    assert [each.sequence for each in drawn] == list(range(300))
    assert all(a.offset_us <= b.offset_us for a, b in itertools.pairwise(drawn))
    assert all(each.cohort != "nobody" for each in drawn)


@settings(max_examples=30, deadline=None)
@given(schedules, st.integers(0, 6000), st.integers(1, 4))
def test_the_counter_counts_what_is_due(schedule, index, workers):
    part = Part(index % workers, workers)
    some = first(schedule, 5000, part)
    at = some[min(index, len(some) - 1)].offset_us
    assert DueCounter(schedule, part).due(at) == sum(each.offset_us <= at for each in some)


def test_the_counter_goes_on_from_where_it_was():
    schedule = Schedule(1000, "poisson", 3, SHARES, ("p",))
    once, again = DueCounter(schedule), DueCounter(schedule)
    steps = [once.due(at) for at in range(0, 20_000_000, 777_777)]
    assert steps[-1] == again.due(range(0, 20_000_000, 777_777)[-1])


def test_chosen_cohorts_keep_their_arrivals_and_nobody_elses():
    schedule = Schedule(100, "poisson", 5, SHARES, ("p", "q"))
    chosen = first(schedule, 200, Part(cohorts=frozenset(["canary-users"])))
    everybody = [each for each in first(schedule, 5000) if each.cohort == "canary-users"]
    assert chosen == everybody[:200]


def test_constant_arrivals_are_equally_far_apart():
    drawn = first(Schedule(3.0, "constant", 1, SHARES, ("p",)), 10_000)
    assert all(abs(each.offset_us - each.sequence * 1e6 / 3) <= 0.5 for each in drawn)


@pytest.mark.parametrize("seed", range(3))
def test_poisson_gaps_are_exponential(seed):
    drawn = first(Schedule(50.0, "poisson", seed, SHARES, ("p",)), 20_000)
    gaps = np.diff([0, *(each.offset_us for each in drawn)])
    assert stats.kstest(gaps, stats.expon(scale=20_000).cdf).pvalue > 1e-4
    # Gaps of a Poisson process do not depend on one another.
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 4 / np.sqrt(len(gaps))


@pytest.mark.parametrize("seed", range(3))
def test_cohorts_and_payloads_come_in_their_shares_independently(seed):
    payloads = tuple("abcd")
    drawn = first(Schedule(50.0, "constant", seed, SHARES, payloads), 40_000)
    table = np.array(
        [[sum(1 for each in drawn if (each.cohort, each.payload) == (c, p)) for p in payloads] for c in SHARES]
    )
    expected = np.outer(list(SHARES.values()), np.full(4, 1 / 4)) * len(drawn)
    assert stats.chisquare(table.ravel(), expected.ravel()).pvalue > 1e-4


def test_streams_and_seeds_do_not_share_their_draws():
    indices = np.arange(5000)
    draws = [uniforms(seed, stream, indices) for seed in (1, 2) for stream in (0, 1, 2)]
    for a, b in itertools.combinations(draws, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(indices))
    assert all((draw >= 0).all() and (draw < 1).all() for draw in draws)
