"""What a statistic costs from ten thousand to a billion requests: milliseconds, the best of five, on one core.

python benchmarks/statistics/cost.py

Two arms, 70/30, with latencies of lognormal arms (σ = .5) in sixty batches of time. Nothing here sees a request: counts
are drawn as a billion requests would leave them.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

from analysis.stats import (
    bands,
    bernoulli,
    boundaries,
    changepoint,
    dispersion,
    exceedances,
    fixed,
    multinomial,
    multiplicity,
    paired,
    quantiles,
    ranks,
    woodruff,
)
from analysis.stats.bins import bin_of, lower_edge, middle
from analysis.stats.exceedances import Histogram
from experiments.core.hypotheses import CONCENTRATIONS

SIZES = tuple(10**power for power in range(4, 10))
BATCHES = 60
SIGMA = 0.5
REPEATS = 5
ALLOWED_MS = 50.0
SHARES = (0.7, 0.3)

Statistic = tuple[str, Callable[[], object]]


def histogram(random: np.random.Generator, n: int, factor: float) -> Histogram:
    """Latencies of an arm by batch, on the bins that it reached."""
    bins = np.arange(bin_of([600])[0], bin_of([2_000_000])[0])
    ends = stats.norm.cdf(np.log(lower_edge(bins + 1) / 50_000 / factor) / SIGMA)
    ends[-1] = 1.0
    counts = random.multinomial(n // BATCHES, np.diff(ends, prepend=0), BATCHES)
    some = counts.sum(axis=0) > 0
    return Histogram(bins[some], counts[:, some])


def of_counts(random: np.random.Generator, n: int) -> Iterator[Statistic]:
    """Splits and failures."""
    canary = int(random.binomial(n, SHARES[1]))
    counts = [float(n - canary), float(canary)]
    split = multinomial.observe([counts], SHARES, CONCENTRATIONS)
    failed = [float(random.binomial(int(k), 0.01)) for k in counts]
    base, ours = (bernoulli.observe(k, f) for k, f in zip(counts, failed, strict=True))
    yield "split: mixture of e-processes", lambda: multinomial.observe([counts], SHARES, CONCENTRATIONS)
    yield "split: 50 arms", lambda: multinomial.observe([[n / 50] * 50], [0.02] * 50, CONCENTRATIONS)
    yield "split: confidence sequence", lambda: multinomial.share_interval(split, 1, 0.05)
    yield "split: outside the tolerance", lambda: multinomial.log_e_outside(split, 1, 0.25, 0.35)
    yield "share: chi-square or exact", lambda: fixed.shares_p_value(counts, SHARES)
    yield "share: sample ratio", lambda: fixed.sample_ratio(counts, SHARES)
    yield "failures: rate, every look", lambda: bernoulli.rate_interval(ours, 0.05)
    yield "failures: difference, every look", lambda: bernoulli.difference_interval(ours, base, 0.05)
    yield "failures: e-value of harm", lambda: bernoulli.log_e_above(ours, base, 0.001)
    yield "failures: Bernoulli sequence", lambda: boundaries.bernoulli_sequence(failed[1], counts[1], 0.05, 100)
    yield "failures: Newcombe", lambda: fixed.newcombe((failed[1], counts[1]), (failed[0], counts[0]), 0.05)
    for name, function in (("Wilson", fixed.wilson), ("exact", fixed.clopper_pearson), ("Jeffreys", fixed.jeffreys)):
        yield f"rate: {name}", lambda function=function: function(failed[1], counts[1], 0.05)  # type: ignore[misc]
    yield "outputs: McNemar", lambda: paired.mcnemar(int(0.0051 * n), int(0.0049 * n))
    yield "a hundred claims: e-Holm", lambda: multiplicity.e_holm([1.0] * 100, 0.05)


def of_windows(random: np.random.Generator, n: int) -> Iterator[Statistic]:
    """What varies over time."""
    totals = np.full(BATCHES, n // BATCHES)
    hits = random.binomial(totals, SHARES[1])
    yield "windows: dispersion at all scales", lambda: dispersion.over_scales(hits, totals)
    yield "windows: change point of a share", lambda: changepoint.bernoulli_change(hits, totals)
    yield "windows: change point of a rate", lambda: changepoint.poisson_change(hits, totals)
    yield "windows: change point of a level", lambda: changepoint.level_change(hits / totals)
    yield "windows: trend", lambda: changepoint.trend_p_value(hits, totals)


def of_latencies(random: np.random.Generator, n: int) -> Iterator[Statistic]:
    """Histograms."""
    base, ours = (histogram(random, int(n * share), by) for share, by in zip(SHARES, (1.0, 1.02), strict=True))
    first, second = ((middle(one.bins), one.counts.sum(axis=0).astype(np.float64)) for one in (base, ours))
    aligned = ranks.aligned((base.bins, first[1]), (ours.bins, second[1]))
    found = ranks.brunner_munzel(*aligned)
    assert found is not None
    for quantile in (0.5, 0.99):
        yield f"latency: ratio of p{100 * quantile:g}", lambda q=quantile: exceedances.quantile_ratio(ours, base, q)  # type: ignore[misc]
    ratio = exceedances.quantile_ratio(ours, base, 0.99)
    assert ratio is not None
    yield "latency: interval of the ratio of p99", lambda: ratio.interval(0.0125)
    yield "latency: both p-values of the ratio of p99", lambda: (ratio.p_above(1.2), ratio.p_below(1.2))
    yield "quantile: from batches", lambda: woodruff.quantile_interval(ours, 0.99, 0.05)
    yield "quantile: every look", lambda: quantiles.quantile_sequence(*second, 0.99, 0.05, 100)
    yield "quantile: one look", lambda: quantiles.order_statistic_interval(*second, 0.99, 0.05)
    yield "quantile: two arms, every look", lambda: quantiles.two_sample_p(second, first, 0.99, 100)
    yield "ranks: two arms on the same bins", lambda: ranks.aligned((base.bins, first[1]), (ours.bins, second[1]))
    yield "ranks: Brunner-Munzel", lambda: ranks.brunner_munzel(*aligned)
    yield "ranks: its interval", lambda: ranks.superiority_interval(found, base.n, ours.n, 0.05)
    yield "ranks: Hodges-Lehmann", lambda: ranks.shift_ratio(first, second, 0.05)
    yield "distribution: largest gap", lambda: bands.largest_gap(*aligned)
    yield "distribution: band", lambda: bands.band_sum(base.n, ours.n, 0.05, 100)


def milliseconds(statistic: Callable[[], object]) -> float:
    """The best of five."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        statistic()
        best = min(best, time.perf_counter() - started)
    return 1000 * best


def main() -> None:
    """Print the table, and what is dearer than it may be."""
    table: dict[str, list[float]] = {}
    for n in SIZES:
        random = np.random.default_rng(1)
        for of in (of_counts, of_windows, of_latencies):
            for name, statistic in of(random, n):
                table.setdefault(name, []).append(milliseconds(statistic))
    print(f"| statistic, ms | {' | '.join(f'10^{len(str(n)) - 1}' for n in SIZES)} |\n|---|{'---|' * len(SIZES)}")
    for name, found in table.items():
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in found)} |")
    dear = [name for name, found in table.items() if max(found) > ALLOWED_MS]
    print(f"\nDearer than {ALLOWED_MS:g} ms: {', '.join(dear) or 'none'}.")


if __name__ == "__main__":
    main()
