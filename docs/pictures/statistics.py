"""Draw the pictures of docs/statistics.md and print the figures that it names: python docs/pictures/statistics.py.

The same seeds give the same files, byte for byte, with the versions in constraints.txt.
"""

import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from analysis.split import Counts, judge_counts
from analysis.stats import bernoulli
from analysis.stats.dispersion import dispersion
from analysis.stats.fixed import wilson
from analysis.stats.multinomial import observe
from experiments.core import hypotheses
from experiments.core.hypotheses import (
    ALPHA,
    CONCENTRATIONS,
    ERRORS_PART,
    LATENCY_PART,
    SPLIT_PART,
    Hypotheses,
    SplitHypothesis,
)

HERE = Path(__file__).resolve().parent
SHARE = 0.3
RUNS, LOOK, REQUESTS = 400, 100, 10_000


def save(figure: Figure, name: str) -> None:
    """One small SVG, without the date."""
    figure.savefig(HERE / f"{name}.svg", format="svg", metadata={"Date": None}, bbox_inches="tight")


def canvas(title: str, across: str, up: str) -> tuple[Figure, mpl.axes.Axes]:
    """An empty picture."""
    figure = Figure(figsize=(6, 3))
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def peeking() -> None:
    """How often a healthy 70/30 split has been called wrong by now, where one looks every 100 requests."""
    random = np.random.default_rng(1)
    looks = np.arange(LOOK, REQUESTS + 1, LOOK)
    hits = random.binomial(LOOK, SHARE, size=(RUNS, looks.size)).cumsum(axis=1)
    scores = (hits - looks * SHARE) ** 2 / (looks * SHARE * (1 - SHARE))
    fixed = np.maximum.accumulate(scores > stats.chi2.isf(0.05, 1), axis=1).mean(axis=0)
    logs = [
        [observe([[n - hit, hit]], [1 - SHARE, SHARE], CONCENTRATIONS).log_e for n, hit in zip(looks, run, strict=True)]
        for run in hits.tolist()
    ]
    anytime = np.maximum.accumulate(np.array(logs) >= -math.log(0.05), axis=1).mean(axis=0)
    figure, axes = canvas("A healthy split, looked at every 100 requests", "requests", "called wrong so far")
    axes.plot(looks, fixed, label="χ² at 5 %, as if each look were the only one")
    axes.plot(looks, anytime, label="e-process at 5 %")
    axes.axhline(0.05, color="grey", linewidth=0.8, linestyle=":")
    axes.legend(frameon=False, fontsize=8)
    save(figure, "peeking")
    error = math.sqrt(0.05 * 0.95 / RUNS)
    print(f"peeking: chi-square {fixed[-1]:.3f}, e-process {anytime[-1]:.4f}, s.e. of .05 {error:.3f}, {RUNS} runs")


def worst_case() -> None:
    """The interval of a 30 % share of 2 000 requests as more and more of them name no arm."""
    registered = Hypotheses(
        alpha=ALPHA, alpha_split=ALPHA * SPLIT_PART, alpha_errors=0.0, alpha_latency=0.0,
        concentrations=list(CONCENTRATIONS), baseline="old", split=[], unconfigured=[], errors=[], latency=[],
        batch_seconds={}, min_batches=0, looks=[],
    )  # fmt: skip
    claim = SplitHypothesis("split", "split", ["everyone"], {"old": 0.7, "new": 0.3}, 0.1, required=True)
    parts = np.linspace(0, 0.12, 25)
    found = []
    for part in parts:
        known = 2000 * (1 - part)
        counts = Counts(("old", "new"), ((0.7 * known, 0.3 * known),), (2000 * part,))
        found.append(judge_counts(counts, claim, registered))
    low, high = (np.array([one.intervals[1][end] for one in found]) for end in (0, 1))
    figure, axes = canvas("2,000 requests; some name no arm", "per cent without an arm", "share of the canary")
    axes.fill_between(100 * parts, low, high, alpha=0.3, label="what the true share may be")
    axes.axhspan(0.2, 0.4, color="grey", alpha=0.12, label="30 % ± 10 pp is configured")
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    axes.set_ylim(0, 0.6)
    save(figure, "worst-case")
    last = max(part for part, one in zip(parts, found, strict=True) if one.shown)
    print(f"worst case: none missing {low[0]:.3f} to {high[0]:.3f}; shown up to {100 * last:.1f}% without an arm")


def batches() -> None:
    """Two equal arms, each slow for seconds at a time: how often a test by request, or by batch, tells them apart."""
    random = np.random.default_rng(2)
    steps, each, batch = 2400, 8, 120
    runs, wrong = 400, np.zeros(2)
    shown = None
    for _ in range(runs):
        wander = np.zeros((2, steps))
        for step in range(1, steps):
            wander[:, step] = 0.9 * wander[:, step - 1] + math.sqrt(1 - 0.9**2) * random.standard_normal(2)
        noise = random.standard_normal((2, steps, each))
        slow = (wander[:, :, None] + noise > 0).mean(axis=2)
        gap = slow[0] - slow[1]
        single = gap.mean() / math.sqrt(2 * 0.25 / (steps * each))
        means = gap.reshape(-1, batch).mean(axis=1)
        whole = means.mean() / (means.std(ddof=1) / math.sqrt(means.size))
        wrong += abs(single) > stats.norm.isf(0.025), abs(whole) > stats.t.isf(0.025, means.size - 1)
        shown = wander if shown is None else shown
    figure, axes = canvas("How slow each of two equal arms is, second by second", "seconds", "log latency, moving")
    for name, line in zip(("baseline", "canary"), shown[:, :600], strict=True):
        axes.plot(np.arange(600) / 10, line, linewidth=0.8, label=name)
    for edge in range(0, 61, 12):
        axes.axvline(edge, color="grey", linewidth=0.5, linestyle=":")
    axes.legend(frameon=False, fontsize=8)
    save(figure, "batches")
    print(f"batches: called different {wrong[0] / runs:.3f} by request, {wrong[1] / runs:.3f} by batch, {runs} runs")


def draws() -> None:
    """Windows of a 50/50 split by independent draws, by turns, and by users that stick."""
    random = np.random.default_rng(3)
    windows, n = 40, 50
    totals = np.full(windows, n)
    kinds = {
        "independent draws": random.binomial(n, 0.5, windows),
        "taking turns": np.full(windows, n // 2),
        "ten requests a user": 10 * random.binomial(n // 10, 0.5, windows),
    }
    figure, axes = canvas("Share of the canary in windows of 50 requests", "window", "share")
    for name, hits in kinds.items():
        found = dispersion(hits, totals)
        axes.plot(hits / n, marker=".", linewidth=0.7, label=name)
        low, high = wilson(int(hits.sum()), int(totals.sum()), 0.05)
        print(f"draws: {name}: index {found.index if found else 0:.2f}, naive 95% interval {low:.3f} to {high:.3f}")
    axes.legend(frameon=False, fontsize=8)
    save(figure, "draws")


def states() -> None:
    """Four intervals against one margin."""
    figure, axes = canvas("A claim: at most +20 %", "canary / baseline", "")
    rows = [("shown", 0.98, 1.12), ("undecided", 1.05, 1.35), ("broken", 1.27, 1.6)]
    for height, (name, low, high) in enumerate(reversed(rows)):
        axes.plot([low, high], [height + 1, height + 1], linewidth=5, solid_capstyle="butt")
        axes.text(0.81, height + 1, name, verticalalignment="center")
    axes.text(
        0.81, 0, "void: no interval, for what was measured cannot speak for the claim", verticalalignment="center"
    )
    axes.axvline(1.2, color="black", linewidth=0.8)
    axes.set(xlim=(0.8, 1.7), ylim=(-0.6, 3.6), yticks=[])
    save(figure, "states")


def failures() -> None:
    """How many more failures a canary may have after so many clean requests, beside a baseline that does not fail."""
    alpha, baseline = ALPHA * ERRORS_PART, bernoulli.observe(1000, 0)
    requests = np.unique(np.geomspace(10, 2000, 40).round())
    figure, axes = canvas(
        "No failure, or one, in a canary's first requests", "requests to the canary", "points more, at most"
    )
    found = {}
    for hits, label in ((0, "none failed"), (1, "one failed")):
        found[hits] = [
            bernoulli.difference_interval(bernoulli.observe(n, hits), baseline, alpha)[1] for n in requests.tolist()
        ]
        axes.plot(requests, 100 * np.array(found[hits]), label=label)
    axes.axhline(5, color="grey", linewidth=0.8, linestyle=":", label="5 points are allowed")
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8)
    save(figure, "failures")
    enough = {hits: int(requests[np.array(highs) < 0.05][0]) for hits, highs in found.items()}
    first, last = 100 * found[0][0], 100 * found[0][-1]
    print(f"failures: none of 10 {first:.1f}, none of 2,000 {last:.2f} points; 5 pp shown from about {enough} requests")


def looks() -> None:
    """What part of alpha may have been spent by when, and the registered looks."""
    alpha = ALPHA * LATENCY_PART
    registered, part = hypotheses.looks(alpha), np.linspace(0.05, 1, 96)
    spent = 2 * stats.norm.sf(stats.norm.isf(alpha / 2) / np.sqrt(part))
    figure, axes = canvas("Latency may err by so much until then", "part of the phase that is over", "alpha spent")
    axes.plot(part, spent)
    axes.plot([one.fraction for one in registered], np.cumsum([one.alpha for one in registered]), "o", label="looks")
    axes.legend(frameon=False, fontsize=8)
    save(figure, "looks")
    print("looks:", ", ".join(f"{one.alpha:.5f} at {one.fraction:g}" for one in registered), f"of {alpha:g}")


def main() -> None:
    """All of them."""
    mpl.rcParams["svg.hashsalt"] = "splitproof"
    mpl.rcParams["svg.fonttype"] = "none"
    for draw in (peeking, worst_case, batches, draws, failures, looks, states):
        draw()


if __name__ == "__main__":
    main()
