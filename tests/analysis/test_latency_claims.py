"""Means, absolute limits, looks, batches that hang together; outputs and kinds of failures beside them."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from scipy import stats

from analysis.latency import judge as judge_latency
from analysis.stats.batches import Weather, scales, weather
from analysis.stats.bins import bin_of
from analysis.stats.exceedances import Histogram, quantile_ratio, share_beyond
from analysis.stats.means import Sums, mean_ratio
from experiments.core import hypotheses
from experiments.core.errors import ExperimentError
from tests.analysis.synthetic import Truth, experiment

CLAIMS = {"latency": {"mean": {"margin": 0.2}, "p99": {"limit": 0.1}, "p95": {"margin": 0.5, "limit": 0.1}}}
SPLIT = [{"name": "split", "route": {"old": 50, "new": 50}, "for": 45.0}]


def states(report):
    return {claim.id.split("/", 2)[2]: claim.state for claim in report.claims if claim.kind == "latency"}


def test_mean_and_limits_of_a_healthy_canary(judged):
    report = judged(chosen=experiment(claims=CLAIMS, phases=[{**SPLIT[0], "for": 75.0}]))
    assert states(report) == {"mean": "shown", "p99/limit": "shown", "p95": "shown", "p95/limit": "shown"}
    limit = next(claim for claim in report.claims if claim.id.endswith("p99/limit"))
    # 20 ms · e^(.3 z) reaches 100 ms at z = 5.4: never.
    assert limit.interval.estimate == 0
    assert limit.interval.high < 0.01
    assert "from when they were due" in limit.sentence
    told = {one.name.split(":")[0] for one in report.secondary}
    assert {"Brunner-Munzel", "Hodges-Lehmann", "distribution bands"} <= told
    assert all("in time" in one.assumption for one in report.secondary)


def test_mean_and_limits_of_a_slow_canary(judged):
    truth = replace(Truth(), median_ms={"old": 20.0, "new": 80.0})
    report = judged(truth, chosen=experiment(claims=CLAIMS, phases=SPLIT))
    assert set(states(report).values()) == {"broken"}
    claim = next(claim for claim in report.claims if claim.id.endswith("p99/limit"))
    # P(80 e^(.3 z) ≥ 100) = P(z ≥ .744).
    assert claim.interval.estimate == pytest.approx(stats.norm.sf(np.log(100 / 80) / 0.3), abs=0.03)


def test_a_limit_on_the_mean_is_refused():
    with pytest.raises(ExperimentError, match="a limit is for quantiles"):
        experiment(claims={"latency": {"mean": {"limit": 0.1}}})


def test_a_claim_says_something():
    with pytest.raises(ExperimentError, match="needs a margin such as"):
        experiment(claims={"latency": {"p50": {"required": True}}})


def test_alpha_of_the_looks_is_that_of_lan_and_demets():
    # O'Brien-Fleming-like spending at .025: .00153 halfway (Lan & DeMets 1983, table 1, one side).
    halfway, end = hypotheses.looks(0.025, (0.5, 1.0))
    assert halfway.alpha == pytest.approx(0.00153, abs=5e-6)
    assert halfway.alpha + end.alpha == pytest.approx(0.025)


def test_a_large_harm_of_the_first_half_stays_broken(tmp_path):
    """What was decided at a registered look is decided, whatever comes after."""
    from analysis.judge import examine
    from tests.analysis.synthetic import write_run

    chosen = experiment(phases=[{**SPLIT[0], "for": 180.0}], claims={"latency": {"p50": {"margin": 0.2}}})
    seen = examine(write_run(tmp_path, chosen, replace(Truth(), median_ms={"old": 20.0, "new": 40.0}))).evidence
    cells = seen.tally.cells
    # The second half of the canary's answers, made as fast as half of the baseline's.
    late = (cells["answered"] == "new") & (cells["window"] >= 32)
    healed = cells.assign(bin=cells["bin"].where(~late, cells["bin"] - 2048))
    tally = type(seen.tally)(healed)
    (both,), _ = judge_latency(tally, seen.registered, {})
    last_only = msgspec.structs.replace(seen.registered, looks=[hypotheses.Look(1.0, 0.0125)])
    (last,), _ = judge_latency(tally, last_only, {})
    assert (both.state, last.state != "broken") == ("broken", True)


def test_answers_that_are_no_answers_are_failures(tmp_path):
    from analysis.judge import judge
    from experiments.core import records
    from tests.analysis.synthetic import write_run

    run = write_run(tmp_path, truth=replace(Truth(), garbled=0.05))
    (path,) = run.outputs()
    outputs = list(records.read_outputs(path))
    path.unlink()
    appender = records.Appender(path)
    for output in outputs:
        odd = [0.5, 0.5] if output.payload == "cat" else [None, 0.0, 1.0] if output.payload == "dog" else output.values
        appender.append(msgspec.structs.replace(output, values=odd) if "garbled" in output.signature else output)
    appender.close()
    rows = judge(run).failures
    kinds = {name for row in rows for name in row.kinds}
    assert kinds == {"wrong shape", "not finite"}
    assert {row.arm for row in rows} == {"old", "new"}


def test_outputs_are_compared_by_more_than_their_first_class(judged):
    # By hand from synthetic.OUTPUTS: total variation .4, .7 and .3; one payload on which old alone is right.
    (outputs,) = judged().outputs
    assert outputs.distance_mean == pytest.approx((0.4 + 0.6 + 0.4) / 3, abs=0.07)
    assert outputs.agreeing_top5 == 3
    assert outputs.p_value == 1.0
    assert [one.estimate for one in outputs.accuracy] == [pytest.approx(2 / 3), 1.0]


def test_ratio_of_means_equals_fieller_and_covers():
    random, missed = np.random.default_rng(2), 0
    for _ in range(150):
        counts = random.poisson(20, (2, 30)).astype(float)
        sums = [np.array([random.gamma(4 * n, 5.0) if n else 0.0 for n in arm]) for arm in counts]
        found = mean_ratio(*(Sums(n, s, 100.0) for n, s in zip(counts, sums, strict=True)))
        low, high = found.interval(0.05)
        missed += not low <= 1 <= high
    assert missed / 150 <= 0.05 + 2 * (0.05 * 0.95 / 150) ** 0.5


def test_share_beyond_is_never_surer_than_the_binomial():
    hits, totals = np.zeros(20, dtype=np.int64), np.full(20, 50)
    found = share_beyond(hits, totals, 0.01)
    assert found.p_below >= stats.binom.cdf(0, 1000, 0.01)
    assert found.interval(0.05)[1] >= 1 - 0.025 ** (1 / 1000) - 1e-12
    assert share_beyond(hits[:1], totals[:1], 0.01) is None


def test_coarser_batches_are_used_where_requests_cluster_only():
    random = np.random.default_rng(3)
    independent = random.standard_normal(60)
    independent -= independent.mean()
    assert not weather(independent, float((independent**2).sum())).clustered or independent.size == 0
    clustered = weather(np.repeat(random.standard_normal(15), 4) - 0.0, 1.0)
    assert clustered.clustered
    assert clustered.wanders
    assert weather(np.repeat([1.0, -1.0], 10), 1.0).endless
    assert all(60 // size >= 4 for size in scales(60))


def test_the_price_of_wandering_by_hand():
    # Twice the spread of single requests: half of it is common. A correlation of 0.2 + 1/√25; of that half alone, .8.
    seen = Weather(batches=25, lag1=0.2, index=2.0)
    assert (seen.largest_lag, seen.common, seen.persistence) == pytest.approx((0.4, 0.5, 0.8))
    assert seen.inflation == pytest.approx(0.5 + 0.5 * 1.8 / 0.2)
    assert seen.freedom == pytest.approx(25 * 0.36 / 1.64 - 1)
    calm = Weather(batches=25, lag1=-0.1, index=0.9)
    assert (calm.clustered, calm.inflation, calm.freedom) == (False, 1.0, 24.0)


def test_inflation_is_that_of_a_wandering_arm_with_noise():
    """Against the variance of the sum of an AR(1) in white noise, worked out from its covariances."""
    phi, common, batches = 0.7, 0.5, 1000
    gaps = np.abs(np.subtract.outer(np.arange(batches), np.arange(batches)))
    covariance = common * phi**gaps + (1 - common) * np.eye(batches)
    lag1, index = common * phi, 1 / (1 - common)
    seen = Weather(batches, lag1 - 1 / batches**0.5, index)
    assert seen.inflation == pytest.approx(covariance.sum() / batches, rel=0.01)


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    from analysis.judge import examine
    from tests.analysis.synthetic import write_run

    chosen = experiment(phases=SPLIT, claims={"latency": {"p50": {"margin": 0.2}}})
    return examine(write_run(tmp_path_factory.mktemp("wandering"), chosen)).evidence


def wandering(examined, block, margin, bins=400):
    """The claim where the canary is faster and slower in turn, for `block` batches each; 1024 bins are an octave."""
    cells = examined.tally.cells
    shift = np.where(cells["window"] // block % 2 == 0, bins, -bins) * (cells["answered"] == "new")
    tally = type(examined.tally)(cells.assign(bin=cells["bin"] + shift))
    (one,) = examined.registered.latency
    registered = msgspec.structs.replace(
        examined.registered,
        latency=[msgspec.structs.replace(one, margin=margin)],
        looks=[hypotheses.Look(1.0, 0.0125)],
    )
    (claim,), _ = judge_latency(tally, registered, {"all": 40.0})
    return claim


def test_wandering_costs_width_and_leaves_a_wide_margin_shown(examined):
    wide, close = wandering(examined, 4, 5.0), wandering(examined, 4, 0.2)
    assert (wide.state, wide.reason) == ("shown", "")
    assert close.state == "undecided"
    assert "wanders for longer than a time batch" in close.reason
    assert close.reason in close.sentence
    assert wandering(examined, 4, 0.2, bins=0).state == "shown"


def test_batches_that_are_too_few_to_exclude_a_wandering_say_so(examined):
    """A canary that is a tenth faster or slower from batch to batch, neighbours somewhat alike by chance."""
    cells = examined.tally.cells[examined.tally.cells["window"] < 12]
    jumps = np.round(np.convolve(np.random.default_rng(7).standard_normal(14), [1, 0.8])[1:14] * 110).astype(int)
    shift = jumps[cells["window"].clip(0)] * (cells["answered"] == "new")
    tally = type(examined.tally)(cells.assign(bin=cells["bin"] + shift))
    registered = msgspec.structs.replace(examined.registered, looks=[hypotheses.Look(1.0, 0.0125)])
    (claim,), _ = judge_latency(tally, registered, {"all": 40.0})
    assert (claim.state, claim.interval is not None) == ("undecided", True)
    assert "too few to exclude that latency wanders" in claim.sentence


def test_a_canary_that_is_44_times_as_slow_is_shown_to_be_by_twelve_batches(tmp_path):
    """Of independent answers, whose batches look clustered by chance: no share is so many standard errors."""
    from analysis.judge import judge
    from tests.analysis.gallery import long_names

    (claim,) = (one for one in judge(long_names(tmp_path)).claims if one.kind == "latency")
    assert claim.state == "broken"
    # Medians of 900 and 20 ms.
    assert 20 < claim.interval.low < 45 < claim.interval.high < 100


def twins(random, factor, wander, shape=(12, 20)):
    """Two arms, the first slower by a factor; `wander` is the part of the variance that a batch has in common."""
    found = []
    for by in (factor, 1.0):
        level = [random.standard_normal()]
        while len(level) < shape[0]:
            level.append(0.6 * level[-1] + 0.8 * random.standard_normal())
        common = np.array(level)[:, None] * np.sqrt(wander)
        values = bin_of(1e5 * by * np.exp(0.5 * (common + random.standard_normal(shape) * np.sqrt(1 - wander))))
        bins, places = np.unique(values, return_inverse=True)
        counts = np.zeros((shape[0], bins.size), dtype=np.int64)
        np.add.at(counts, (np.repeat(np.arange(shape[0]), shape[1]), places.ravel()), 1)
        found.append(Histogram(bins, counts))
    return found


def test_arms_lie_apart_where_their_exact_intervals_do():
    """By hand: all of the slow arm at 8, all of the fast one within 2 and 2.002; 12 batches keep 1/1.15² of 120."""
    even = np.full((12, 1), 10)
    canary, baseline = quantile_ratio(Histogram(np.array([3072]), even), Histogram(np.array([1024]), even), 0.5).arms
    by_chance = pytest.approx(2 * 0.5 ** (120 / 1.15**2), rel=1e-9, abs=0)
    assert (canary.apart(baseline, 1.2), canary.apart(baseline, 3.99)) == (by_chance, by_chance)
    assert (canary.apart(baseline, 4.001), baseline.apart(canary, 1.0)) == (1, 1)
    assert canary.least_ratio(baseline, 1e-9) == pytest.approx(8 / (2 * 1025 / 1024))
    assert baseline.least_ratio(canary, 1e-9) == pytest.approx(2 / (8 * 1025 / 1024))
    assert canary.least_ratio(baseline, 1e-60) == 0


@pytest.mark.parametrize("wander", [0.0, 0.4, 1.0])
def test_the_interval_of_a_ratio_is_what_is_not_refuted_whichever_way_it_was_found(wander):
    random = np.random.default_rng(12)
    for factor in (0.02, 1.0, 40.0):
        found = quantile_ratio(*twins(random, factor, wander), 0.5)
        for alpha in (0.1, 0.01):
            low, high = found.interval(2 * alpha)
            if low > 0:
                assert found.p_above(low * 0.999) <= alpha < found.p_above(low * 1.003)
            if high < np.inf:
                assert found.p_below(high * 1.003) <= alpha < found.p_below(high * 0.997)


def test_arms_that_wander_alike_do_not_lie_apart_more_often_than_promised():
    random, runs, alpha = np.random.default_rng(13), 400, 0.05
    wrong = 0
    for _ in range(runs):
        canary, baseline = quantile_ratio(*twins(random, 1.0, 1.0), 0.5).arms
        wrong += min(canary.apart(baseline, 1.0), baseline.apart(canary, 1.0)) <= alpha
    assert wrong / runs <= alpha


def test_wandering_without_end_says_nothing_whatever_the_margin(examined):
    claim = wandering(examined, 8, 5.0)
    assert (claim.state, claim.interval) == ("undecided", None)
    assert "run the phase longer" in claim.sentence
