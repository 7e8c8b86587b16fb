import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from experiments.core.profile import Piece, Profile, steady
from loadgen.schedule import NOTHING, Arrivals, DueCounter, Part, Schedule, Since, arrivals, splitmix64, uniforms

SHARES = {"everyone": 0.7, "canary-users": 0.25, "others": 0.05}

schedules = st.builds(
    Schedule,
    rates=st.floats(0.1, 50_000).map(steady),
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


RAMP = Profile((Piece(0, 40, 5), Piece(0, 0, 3), Piece(200, 20, 10), Piece(50, 50)))


def simpson(profile, until):
    """Expected arrivals by numerical integration of the rate, piece by piece: no formula of ours."""
    grid = np.linspace(0, until, 1001)
    starts = np.cumsum([0, *(piece.seconds for piece in profile.pieces[:-1])])
    rates = np.array([rate_at(profile, starts, at) for at in grid])
    return integrate.trapezoid(rates, grid)


def rate_at(profile, starts, at):
    index = int(np.searchsorted(starts, at, side="right")) - 1
    piece = profile.pieces[index]
    if np.isinf(piece.seconds):
        return piece.first
    return piece.first + (piece.last - piece.first) * (at - starts[index]) / piece.seconds


@pytest.mark.parametrize("until", [2.5, 6.0, 12.0, 20.0])
def test_expected_counts_are_the_integral_of_the_rate(until):
    assert RAMP.expected(until) == pytest.approx(simpson(RAMP, until), rel=2e-3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 2000), min_size=1, max_size=50))
def test_times_turn_expected_counts_round(counts):
    times = RAMP.times(np.array(counts))
    assert [RAMP.expected(at) for at in times] == pytest.approx(counts, abs=1e-6)


def test_constant_arrivals_under_a_ramp_come_whenever_one_more_is_expected():
    drawn = first(Schedule(RAMP, "constant", 1, SHARES, ("p",)), 1500)
    assert [RAMP.expected(each.offset_us / 1e6) for each in drawn[1:]] == pytest.approx(range(1, 1500), abs=1e-3)
    # Nothing comes while the rate is 0, from the 5th to the 8th second.
    assert not [each for each in drawn if 5_000_001 < each.offset_us < 7_999_999]


@pytest.mark.parametrize("seed", range(3))
def test_poisson_counts_follow_a_ramp(seed):
    drawn = np.array([each.offset_us for each in first(Schedule(RAMP, "poisson", seed, SHARES, ("p",)), 4000)]) / 1e6
    edges = np.array([0, 2, 3, 4, 5, *np.arange(8.5, 18, 0.5)])
    observed = np.histogram(drawn, edges)[0]
    expected = np.diff([simpson(RAMP, at) if at else 0 for at in edges])
    assert stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), expected.size) > 1e-4


def taken_until(drawn, offset_us):
    taken = []
    while (arrival := drawn.peek()) is not None and arrival.offset_us <= offset_us:
        taken.append(drawn.take())
    return taken


@settings(max_examples=15, deadline=None)
@given(schedules, st.integers(2, 5), st.integers(0, 300), st.integers(1, 200))
def test_when_a_worker_is_lost_the_others_take_its_arrivals_from_then_on(schedule, workers, when, ahead):
    whole = first(schedule, 600)
    now, since, end = whole[when].offset_us, whole[when + ahead].offset_us, whole[-1].offset_us - 1
    assume(now < since < end)
    sent, lost = [], workers - 1
    for index in range(workers):
        drawn, counter = Arrivals(schedule, Part(index, workers)), DueCounter(schedule, Part(index, workers))
        mine = taken_until(drawn, now)
        assert counter.due(now) == len(mine)
        if index != lost:
            parts = [Since(0, Part(index, workers)), Since(since, Part(index, workers - 1))]
            drawn.redivide(parts)
            counter.redivide(parts)
            mine += taken_until(drawn, end)
            assert counter.due(end) == len(mine)
        sent += mine
    missing = {each for each in whole if now < each.offset_us < since and each.sequence % workers == lost}
    assert len(sent) == len(set(sent))
    assert set(sent) | missing == {each for each in whole if each.offset_us <= end}


@settings(max_examples=8, deadline=None)
@given(schedules, st.integers(2, 4), st.integers(0, 300), st.integers(1, 900), st.integers(1, 900))
def test_word_of_another_division_that_comes_late_loses_nothing(schedule, workers, when, late, later):
    whole = first(schedule, 2400)
    since = [whole[when].offset_us, whole[when + late].offset_us]
    heard = [whole[when + late].offset_us, whole[when + late + later].offset_us]
    end = whole[-1].offset_us - 1
    sent, lost = [], workers - 1
    for index in range(lost):
        drawn, counter = Arrivals(schedule, Part(index, workers)), DueCounter(schedule, Part(index, workers))
        prompt = DueCounter(schedule, Part(index, workers))
        mine, parts = [], [Since(0, Part(index, workers))]
        # One worker is lost, and back before the others have heard the last of it.
        for from_us, at_us, of in zip(since, heard, (workers - 1, workers), strict=True):
            mine += taken_until(drawn, at_us)
            counter.due(at_us)
            parts.append(Since(from_us, Part(index, of)))
            for each in (drawn, counter, prompt):
                each.redivide(parts)
        mine += taken_until(drawn, end)
        assert len(mine) == len(set(mine))
        assert counter.due(end) == prompt.due(end)
        sent += mine
    wanted = {each for each in whole if since[0] <= each.offset_us < since[1]}
    wanted |= {each for each in whole if each.offset_us <= end and each.sequence % workers != lost}
    assert wanted <= set(sent)


@settings(max_examples=8, deadline=None)
@given(schedules, st.integers(0, 300), st.integers(1, 600), st.integers(1, 600), st.integers(1, 600))
def test_a_worker_that_was_held_up_takes_just_what_nobody_else_took(schedule, when, lost, back, rest):
    whole = first(schedule, 2400)
    held, gone, again = (whole[at].offset_us for at in (when, when + lost, when + lost + back))
    end = whole[when + lost + back + rest].offset_us
    divisions = [(0, (0, 1, 2)), (gone, (0, 1)), (again, (0, 1, 2))]

    def parts(worker, known):
        return [
            Since(at, Part(who.index(worker), len(who)) if worker in who else NOTHING) for at, who in divisions[:known]
        ]

    sent = []
    for worker in range(2):
        drawn = Arrivals(schedule, Part(worker, 3))
        for at, known in ((gone, 2), (again, 3)):
            sent += taken_until(drawn, at - 1)
            drawn.redivide(parts(worker, known))
        sent += taken_until(drawn, end)
    drawn, counter = Arrivals(schedule, Part(2, 3)), DueCounter(schedule, Part(2, 3))
    mine = taken_until(drawn, held - 1)
    # It stood still until the others had taken over, and asks before it goes on.
    for each in (drawn, counter):
        each.redivide(parts(2, 2))
    mine += taken_until(drawn, again - 1)
    for each in (drawn, counter):
        each.redivide(parts(2, 3))
    mine += taken_until(drawn, end)
    assert counter.due(end) == len(mine)
    sent += mine
    assert len(sent) == len(set(sent))
    assert set(sent) == {each for each in whole if each.offset_us <= end}


def test_an_arrival_that_is_given_back_comes_again_whoever_has_the_part_then():
    schedule = Schedule(steady(1000), "poisson", 3, SHARES, ("p",))
    drawn, whole = Arrivals(schedule), first(schedule, 20)
    taken = [drawn.take() for _each in range(4)]
    drawn.give_back(taken[2])
    assert [drawn.take() for _each in range(3)] == [whole[2], *whole[4:6]]
    drawn.give_back(whole[5])
    drawn.redivide([Since(0, Part()), Since(10_000_000, Part(0, 2))])
    assert drawn.take() == whole[5]


def test_whose_part_is_nothing_has_no_next_arrival_and_finds_that_out_at_once():
    drawn = Arrivals(Schedule(steady(1000), "poisson", 3, SHARES, ("p",)), NOTHING)
    assert drawn.peek() is None
    drawn.redivide([Since(0, NOTHING), Since(7_000_000, Part(1, 2))])
    assert drawn.peek().offset_us >= 7_000_000


def test_the_counter_goes_on_from_where_it_was():
    schedule = Schedule(steady(1000), "poisson", 3, SHARES, ("p",))
    once, again = DueCounter(schedule), DueCounter(schedule)
    steps = [once.due(at) for at in range(0, 20_000_000, 777_777)]
    assert steps[-1] == again.due(range(0, 20_000_000, 777_777)[-1])


def test_chosen_cohorts_keep_their_arrivals_and_nobody_elses():
    schedule = Schedule(steady(100), "poisson", 5, SHARES, ("p", "q"))
    chosen = first(schedule, 200, Part(cohorts=frozenset(["canary-users"])))
    everybody = [each for each in first(schedule, 5000) if each.cohort == "canary-users"]
    assert chosen == everybody[:200]


def test_constant_arrivals_are_equally_far_apart():
    drawn = first(Schedule(steady(3.0), "constant", 1, SHARES, ("p",)), 10_000)
    assert all(abs(each.offset_us - each.sequence * 1e6 / 3) <= 0.5 for each in drawn)


@pytest.mark.parametrize("seed", range(3))
def test_poisson_gaps_are_exponential(seed):
    drawn = first(Schedule(steady(50.0), "poisson", seed, SHARES, ("p",)), 20_000)
    gaps = np.diff([0, *(each.offset_us for each in drawn)])
    assert stats.kstest(gaps, stats.expon(scale=20_000).cdf).pvalue > 1e-4
    # Gaps of a Poisson process do not depend on one another.
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 4 / np.sqrt(len(gaps))


@pytest.mark.parametrize("seed", range(3))
def test_cohorts_and_payloads_come_in_their_shares_independently(seed):
    payloads = tuple("abcd")
    drawn = first(Schedule(steady(50.0), "constant", seed, SHARES, payloads), 40_000)
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
