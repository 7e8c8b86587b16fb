"""Every public function of `analysis.stats`, at every extreme of every argument: a new one without a line here fails.

What is data is nothing, one, 10^18, infinite, no number, or hits of fewer trials. What is registered before a load
(alpha, margins, tuning) is taken from its domain, to the ends of it.
"""

import importlib
import inspect
import itertools
import math
import pkgutil
import random
import warnings
from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from analysis import stats
from analysis.stats import batches, bernoulli, dispersion, means, multinomial, ranks
from analysis.stats.exceedances import Histogram

NAN, INF = math.nan, math.inf
NUMBERS = [0.0, 1.0, 5.0, 1e-9, 0.5, 1e18, 1e300, INF, -INF, NAN, -1.0]
COUNTS = [0, 1, 5, 10**18, INF, NAN, -1]
ALPHAS = [1e-12, 0.05, 0.5]
SHARES = [1e-9, 0.5, 1 - 1e-9]
ARRAYS = [
    np.array(values, dtype=np.float64)
    for values in (
        [], [0], [1], [0, 0, 0], [1, 1, 1], [10**18, 1, 3], [INF, 1, 2], [NAN, 1, 2], [2] * 50, range(50),
        [10**18] * 50,
    )
]  # fmt: skip


def histogram(bins, *counts):
    table = np.array(counts, dtype=np.int64).reshape(len(counts), len(bins))
    return Histogram(np.array(bins, dtype=np.int64), table)


# Nine batches each: bins of nothing known (−2), of zero (−1), of infinity (the last).
HISTOGRAMS = [
    histogram([], *[[]] * 9), histogram([5], *[[0]] * 9), histogram([1024], [1], *[[0]] * 8),
    histogram([-1], *[[5]] * 9),
    histogram([-2, 1024], *[[5, 5]] * 9), histogram([-1, 1024, 3000], *[[1, 2, 3]] * 9),
    histogram([1024, 1047551], *[[10**15, 10**15]] * 9),
]  # fmt: skip
SUMS = [
    means.Sums(np.full(9, count, dtype=np.float64), np.full(9, total, dtype=np.float64), variance)
    for count, total, variance in (
        (0, 0, 0.0), (1, 5, 0.0), (1, 0, 0.0), (1, INF, NAN), (1, NAN, 1.0), (1e18, 1e30, 1.0), (1, 5, INF),
    )
]  # fmt: skip
TRIALS = [(0, 0), (1, 1), (0, 1), (0, 10**18), (10**18, 10**18), (NAN, 5), (5, INF), (7, 5)]
RATES = [bernoulli.observe(n, hits) for hits, n in TRIALS]
SPLITS = [
    multinomial.observe(counts, shares, [15.0, 700.0])
    for counts, shares in (
        ([], [0.7, 0.3]), ([[0, 0]], [0.7, 0.3]), ([[1e18, 1]], [1 - 1e-9, 1e-9]), ([[1e18, 0]], [0.5, 0.5]),
        ([[1, 0] * 25], [0.02] * 50),
    )
]  # fmt: skip
BINS = [np.array(bins, dtype=np.int64) for bins in ([], [-2], [-1], [0, 5], [1047551])]
PLACED = [(np.arange(counts.size), counts) for counts in ARRAYS]
VALUES = [
    (np.array(values, dtype=np.float64), np.array(counts, dtype=np.float64))
    for values, counts in (
        ([], []), ([1], [0]), ([1], [1]), ([0, 1], [5, 5]), ([1, 2, INF], [1, 1, 1]), ([1, NAN], [1, 1]),
        ([1, 2], [10**18, 10**18]), ([1, 2], [INF, 1]), ([1, 2], [NAN, 1]),
    )
]  # fmt: skip
BOTH = [[0, 0], [1, 0], [0, 1], [10**18, 1], [INF, 1], [NAN, 1]]
TWO = [[0.7, 0.3], [1e-9, 1 - 1e-9]]
P_VALUES = [[], [0.0, 1.0], [NAN, 0.01], [INF, 1e-300]]
LOGS = [[], [0.0], [INF, 0.0], [-INF, -INF], [NAN, 9.0], [1e300, -1e300]]
DISPERSIONS = [
    [], [dispersion.Dispersion(4.0, 20, 1.0, 1e-9)], [dispersion.Dispersion(0.0, 20, 1e-9, 1.0)],
    dispersion.over_scales([5e17] * 32, [1e18] * 32),
]  # fmt: skip
WEATHERS = [
    batches.weather(np.array(values, dtype=np.float64), independent)
    for values, independent in (([0, 0, 0], 1.0), ([1, -1] * 20, 1.0), ([1, -1] * 20, 0.0), ([NAN, 1], 1.0))
]
SUPERIORITIES = [ranks.brunner_munzel([5, 5], [4, 6]), ranks.brunner_munzel([1e18, 1], [1, 1e18])]
BOUNDS = {"v_opt": [100, 1], "g": [0.2, 0.5, 1e-9], "h": [0.8], "alpha_opt": [0.05], "one_sided": [True, False]}
WINDOWS = {"hits": ARRAYS, "totals": ARRAYS}
INTERVAL = {"hits": COUNTS, "n": COUNTS, "alpha": ALPHAS}
QUANTILE = {"values": ARRAYS, "counts": ARRAYS, "quantile": SHARES, "alpha": ALPHAS, "t_opt": [100]}
TAIL = {"x": NUMBERS, "p": SHARES, "freedom": [1, 4.5, 10**18], "a": [0.5, 10**18], "b": [0.5, 10**18]}
BINOMIAL = {"hits": COUNTS, "n": [0, 1, 5, 10**12, INF, NAN, -1], "p": SHARES, "q": SHARES}

CASES = {
    "bands.band_sum": {"n": COUNTS, "m": COUNTS, "alpha": ALPHAS, "first_look": [100, 1]},
    "bands.dkw_radius": {"n": COUNTS, "alpha": ALPHAS},
    "bands.largest_gap": {"first": ARRAYS, "second": ARRAYS},
    "batches.freedom_of": {"batches": [0, 1, 2, 60], "lag1": [*NUMBERS]},
    "batches.inflation": {"lag1": NUMBERS},
    "batches.lag_correlation": {"residuals": ARRAYS},
    "batches.scales": {"batches": [0, 1, 2, 15, 10**6]},
    "batches.scored": {
        "difference": [np.zeros(1)], "residuals": [np.zeros((9, 1)), np.ones((50, 1))], "floor": [1e-300, 1.0],
        "seen": WEATHERS,
    },
    "batches.weather": {"residuals": ARRAYS, "independent": [0.0, 1.0, 1e-300, INF, NAN]},
    "bernoulli.difference_interval": {"first": RATES, "second": RATES, "alpha": ALPHAS},
    "bernoulli.log_e_above": {"first": RATES, "second": RATES, "difference": [-1.0, 0.0, 1e-9, 0.05, 1.0]},
    "bernoulli.log_e_difference": {"first": RATES, "second": RATES, "difference": [-1.0, 0.0, 1e-9, 0.05, 1.0]},
    "bernoulli.observe": {"n": COUNTS, "hits": COUNTS, "zero_weight": [0.0, 0.75, 1.0]},
    "bernoulli.rate_interval": {"rate": RATES, "alpha": ALPHAS},
    "bernoulli.zero_bound": {"n": COUNTS, "alpha": ALPHAS},
    "bins.bin_of": {"values": [*ARRAYS, np.array(NUMBERS)]},
    "bins.lower_edge": {"bins": BINS},
    "bins.middle": {"bins": BINS},
    "bins.quantile_bin": {"bins": BINS, "counts": [np.zeros(2, int), np.ones(1, int), np.full(2, 10**18)],
                          "probability": SHARES},
    "blocks.block_length": {"series": [*ARRAYS, np.array([1e300, -1e300] * 20), np.full(30, 0.1)]},
    "boundaries.bernoulli_sequence": {**INTERVAL, "t_opt": [100], "alpha_opt": [0.05]},
    "boundaries.best_rho": {"v_opt": [1, 100, 10**18], "alpha": ALPHAS},
    "boundaries.beta_binomial_bound": {"v": [0, 1, 100, 10**18, INF, NAN], "alpha": ALPHAS, **BOUNDS},
    "boundaries.beta_binomial_log_mixture": {"s": NUMBERS, "v": [0, 1, 10**18, INF, NAN], **BOUNDS},
    "boundaries.double_stitching_bound": {
        "p": SHARES, "t": COUNTS, "alpha": ALPHAS, "t_opt": [100], "delta": [0.5], "s": [1.4], "eta": [2.0],
    },
    "boundaries.lil_radius": {"n": COUNTS, "alpha": ALPHAS, "m": [1, 100], "a": [0.85]},
    "changepoint.bernoulli_change": {**WINDOWS, "trim": [0.0, 0.15]},
    "changepoint.change_p_value": {"statistic": NUMBERS, "trim": [0.01, 0.15]},
    "changepoint.level_change": {"values": ARRAYS, "trim": [0.0, 0.15]},
    "changepoint.poisson_change": {"events": ARRAYS, "exposure": ARRAYS, "trim": [0.0, 0.15]},
    "changepoint.trend_p_value": WINDOWS,
    "dispersion.design_effect": {"found": DISPERSIONS, "level": [0.01, 1.0]},
    "dispersion.dispersion": WINDOWS,
    "dispersion.merged": {"values": [one for one in ARRAYS if one.size], "size": [1, 3, 100]},
    "dispersion.over_scales": {**WINDOWS, "change": [None, 0, 1, 5, 100]},
    "dispersion.p_too_even": {"found": DISPERSIONS},
    **{f"distributions.{name}": TAIL for name in (
        "beta_quantile", "beta_upper", "chi_square_above", "chi_square_below", "normal_above", "normal_below",
        "normal_density", "normal_quantile", "normal_upper", "student_above", "student_upper",
    )},
    **{f"distributions.binomial_{name}": BINOMIAL for name in (
        "above", "at_most", "quantile", "two_sided", "upper",
    )},
    "exceedances.density_ratio": {"canary": HISTOGRAMS, "baseline": HISTOGRAMS, "quantile": SHARES},
    "exceedances.needed": {"quantile": SHARES},
    "exceedances.quantile_ratio": {"canary": HISTOGRAMS, "baseline": HISTOGRAMS, "quantile": SHARES},
    "exceedances.share_beyond": {**WINDOWS, "allowed": SHARES, "spells": [None, *WEATHERS]},
    "fixed.clopper_pearson": INTERVAL,
    "fixed.jeffreys": INTERVAL,
    "fixed.newcombe": {"first": TRIALS, "second": TRIALS, "alpha": ALPHAS},
    "fixed.sample_ratio": {"counts": BOTH, "shares": TWO},
    "fixed.shares_p_value": {"counts": BOTH, "shares": [*TWO, [1.0, 0.0]]},
    "fixed.wilson": INTERVAL,
    "likelihood.deviance": {"x": NUMBERS, "m": NUMBERS},
    "likelihood.divergence": {"n": COUNTS, "hits": COUNTS, "share": SHARES},
    "likelihood.divergence_interval": {"n": COUNTS, "hits": COUNTS, "budget": NUMBERS},
    "likelihood.log_evidence": {"counts": BOTH[:4], "prior": [[0.5, 0.5], [1e-9, 1.0]], "shares": TWO},
    "likelihood.stirling_remainder": {"x": NUMBERS},
    "means.mean_ratio": {"canary": SUMS, "baseline": SUMS},
    "means.mean_sequence": {
        "n": COUNTS, "mean": NUMBERS, "variance": [0.0, 1.0, INF, NAN], "alpha": ALPHAS, "tuned_for": [1000],
    },
    "means.variance_of": {"values": ARRAYS, "counts": ARRAYS},
    "multinomial.log_e_outside": {"split": SPLITS, "arm": [0, 1], "low": [0.0, 0.25], "high": [0.35, 1.0]},
    "multinomial.log_mean_exp": {"logs": LOGS},
    "multinomial.observe": {"periods": [[], *([one] for one in BOTH[:4])], "shares": TWO, "concentrations": [[15.0]]},
    "multinomial.observed_gap": {"count": COUNTS, "total": COUNTS, "share": SHARES},
    "multinomial.share_interval": {"split": SPLITS, "arm": [0, 1], "alpha": ALPHAS},
    "multiplicity.benjamini_hochberg": {"p_values": P_VALUES, "rate": ALPHAS},
    "multiplicity.e_benjamini_hochberg": {"log_e_values": LOGS, "rate": ALPHAS},
    "multiplicity.e_holm": {"log_e_values": LOGS, "alpha": ALPHAS},
    "multiplicity.holm": {"p_values": P_VALUES, "alpha": ALPHAS},
    "paired.mcnemar": {"only_first": COUNTS, "only_second": COUNTS},
    "quantiles.at_rank": {"values": ARRAYS, "counts": ARRAYS, "rank": NUMBERS},
    "quantiles.harrell_davis": QUANTILE,
    "quantiles.order_statistic_interval": QUANTILE,
    "quantiles.quantile_p_value": {"at_most": COUNTS, "below": COUNTS, "n": COUNTS, "quantile": SHARES},
    "quantiles.quantile_sequence": QUANTILE,
    "quantiles.two_sample_p": {"first": VALUES, "second": VALUES, "quantile": SHARES, "t_opt": [100, 10**18]},
    "ranks.aligned": {"first": PLACED, "second": PLACED},
    "ranks.brunner_munzel": {"first": ARRAYS, "second": ARRAYS, "alpha": ALPHAS},
    "ranks.shift_ratio": {"first": VALUES, "second": VALUES, "alpha": ALPHAS},
    "ranks.superiority_interval": {"found": SUPERIORITIES, "n": COUNTS, "m": COUNTS, "alpha": ALPHAS},
    "roots.root": {
        "function": [lambda x: x - 0.5, lambda x: math.copysign(1.0, x - 0.5), lambda x: math.copysign(INF, x - 0.5)],
        "low": [-1e300, -1.0, 0.0], "high": [0.5, 1.0, 1e300], "xtol": [0.0, 1e-12, 1.0],
    },
    "woodruff.quantile_interval": {"arm": HISTOGRAMS, "quantile": SHARES, "alpha": ALPHAS},
}  # fmt: skip

MATHEMATICS = "distributions."
"""NaN of NaN is what a function of mathematics says; of numbers in its domain it is not."""

KEEPS = {"dispersion.merged", "ranks.aligned"}
"""These put in order, or add, what they are given."""

RAISES = {"bins.quantile_bin": "a quantile of nothing"}
AT_MOST = 150


def public():
    for _, module_name, _ in pkgutil.iter_modules(stats.__path__):
        module = importlib.import_module(f"analysis.stats.{module_name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                yield f"{module_name}.{name}", function


FUNCTIONS = dict(public())


def told(value):
    """Every number in a result, however deep."""
    if is_dataclass(value):
        return [one for field in fields(value) for one in told(getattr(value, field.name))]
    if isinstance(value, list | tuple):
        return [one for each in value for one in told(each)]
    if isinstance(value, np.ndarray):
        return value.ravel().tolist()
    return [value] if isinstance(value, float | int | np.number) else []


def calls(name):
    """Arguments by name: all combinations, or some of very many."""
    pools = {key: CASES[name][key] for key in inspect.signature(FUNCTIONS[name]).parameters}
    if math.prod(map(len, pools.values())) <= AT_MOST:
        combinations = list(itertools.product(*pools.values()))
    else:
        drawn = random.Random(name)
        combinations = [tuple(drawn.choice(pool) for pool in pools.values()) for _ in range(AT_MOST)]
    for values in combinations:
        sizes = {one.shape for one in values if isinstance(one, np.ndarray) and one.ndim == 1}
        if len(sizes) <= 1 or name == "batches.scored":
            yield dict(zip(pools, values, strict=True))


def test_every_public_function_has_its_extremes():
    assert set(CASES) == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_extreme_has_an_answer(name):
    asked = 0
    for arguments in calls(name):
        asked += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = FUNCTIONS[name](**arguments)
        except ValueError as refusal:
            if str(refusal) != RAISES.get(name):
                raise AssertionError(arguments) from refusal
            continue
        if name in KEEPS:
            continue
        if name.startswith(MATHEMATICS) and not all(map(math.isfinite, told(list(arguments.values())))):
            continue
        if name.startswith(MATHEMATICS) and not (arguments.get("x", 0) >= 0 and 0 <= arguments.get("n", 0) < INF):
            continue  # outside the domain of some
        assert not any(math.isnan(one) for one in told(found)), (arguments, found)
    assert asked
