"""Was the traffic split as configured? Counts by arm → one claim for each phase and expectation."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from analysis import words
from analysis.draws import Draws, by_window, examine, with_arm
from analysis.findings import BROKEN, ROUTING, SHOWN, UNDECIDED, VOID, Claim, Interval, Need, Share
from analysis.needs import LEAST_MORE, smallest_multiple
from analysis.stats import bernoulli, multinomial
from analysis.stats.fixed import shares_p_value
from analysis.stats.multiplicity import e_holm
from analysis.tally import Tally
from experiments.core.hypotheses import Hypotheses, SplitHypothesis

TOO_EVEN = "the arms take turns more evenly than any random draw: whatever splits here is not the weighted route"

BEFORE_A_HIT = 0.8
"""The part of alpha for an arm that should get nothing while it gets nothing; the rest bounds a leak that was seen."""


OF_LEAKS = 0.1
"""The part of alpha for what other arms leak away, where an arm's share of all requests rests on both."""


@dataclass(frozen=True)
class Counts:
    """Requests by period (rows) and arm (columns), and those of each period that may belong to any arm."""

    arms: tuple[str, ...]
    known: tuple[tuple[float, ...], ...]
    unknown: tuple[float, ...]

    @property
    def totals(self) -> tuple[float, ...]:
        """Known requests by arm."""
        return tuple(math.fsum(column) for column in zip(*self.known, strict=True)) or (0.0,) * len(self.arms)

    @property
    def requests(self) -> float:
        """All requests."""
        return math.fsum(self.totals) + math.fsum(self.unknown)

    def assigned(self) -> list[tuple[tuple[float, ...], ...]]:
        """The counts by period with the unknown requests given wholly to each arm in turn."""
        if not math.fsum(self.unknown):
            return [self.known]
        return [
            tuple(
                tuple(count + (more if index == arm else 0) for index, count in enumerate(period))
                for period, more in zip(self.known, self.unknown, strict=True)
            )
            for arm in range(len(self.arms))
        ]

    def nearest(self, shares: Sequence[float]) -> tuple[tuple[float, ...], ...]:
        """The counts by period with the unknown requests given out so that the shares come nearest to some shares.

        Neither end need be the one that agrees best: 70, 30 and 400 unknown may well be 350 and 150.
        """
        return tuple(_filled(period, more, shares) for period, more in zip(self.known, self.unknown, strict=True))

    def scaled(self, multiple: float) -> "Counts":
        """That many times the data."""
        known = tuple(tuple(multiple * count for count in period) for period in self.known)
        return Counts(self.arms, known, tuple(multiple * count for count in self.unknown))


def _filled(period: Sequence[float], more: float, shares: Sequence[float]) -> tuple[float, ...]:
    n = math.fsum(period) + more
    wanting = [max(n * share - count, 0.0) for count, share in zip(period, shares, strict=True)]
    part = more / math.fsum(wanting) if more else 0.0
    return tuple(count + part * want for count, want in zip(period, wanting, strict=True))


@dataclass(frozen=True)
class Judged:
    """Counts against their expectation: ln E of being outside the tolerance, whether inside is shown, intervals."""

    log_e: float
    shown: bool
    intervals: tuple[tuple[float, float], ...]


def count(tally: Tally, phase: str, cohorts: Sequence[str], arms: Sequence[str], lost: float = 0) -> Counts:
    """The judged requests of some cohorts in a phase.

    Args:
        tally: Counts.
        phase: Its name; each of its periods is counted for itself.
        cohorts: Whose requests.
        arms: In the order of the columns.
        lost: Requests of which nothing is recorded, on top of those whose arm is unknown.
    """
    cells = tally.in_phase(phase)
    cells = with_arm(cells[cells["cohort"].isin(list(cohorts))])
    sums = cells.groupby(["period", "arm"])["n"].sum()
    periods = sorted(set(cells["period"]))
    known = tuple(tuple(float(sums.get((period, arm), 0)) for arm in arms) for period in periods)
    totals = cells.groupby("period")["n"].sum()
    unknown = [float(totals[period]) - math.fsum(row) for period, row in zip(periods, known, strict=True)]
    if unknown:
        unknown[-1] += lost
    return Counts(tuple(arms), known, tuple(unknown))


def judge_draws(counts: Counts, draws: Draws, hypothesis: SplitHypothesis, registered: Hypotheses) -> Judged:
    """Counts judged for what they are worth: fewer requests where they were not drawn independently.

    One clear change of the shares is no lack of independence: against the claim it does not count as such, for the
    claim it does.
    """
    judged = judge_counts(counts.scaled(1 / draws.factor), hypothesis, registered)
    if draws.within == draws.factor:
        return judged
    against = judge_counts(counts.scaled(1 / draws.within), hypothesis, registered)
    return Judged(against.log_e, judged.shown, judged.intervals)


def judge_counts(counts: Counts, hypothesis: SplitHypothesis, registered: Hypotheses) -> Judged:
    """Every way to give out the unknown requests, and of each finding the one that claims least."""
    shares = [hypothesis.shares[arm] for arm in counts.arms]
    ways = [*counts.assigned(), *([counts.nearest(shares)] if math.fsum(counts.unknown) else [])]
    each = [_judge_assigned(periods, shares, hypothesis.tolerance, registered) for periods in ways]
    lows = [min(one.intervals[arm][0] for one in each) for arm in range(len(shares))]
    highs = [max(one.intervals[arm][1] for one in each) for arm in range(len(shares))]
    return Judged(
        log_e=min(one.log_e for one in each),
        shown=all(one.shown for one in each) and counts.requests > 0,
        intervals=tuple(zip(lows, highs, strict=True)),
    )


def _judge_assigned(
    periods: Sequence[Sequence[float]], shares: Sequence[float], tolerance: float, registered: Hypotheses
) -> Judged:
    alpha = registered.alpha_split
    some = [arm for arm, share in enumerate(shares) if share > 0]
    split = multinomial.observe(
        [[period[arm] for arm in some] for period in periods], [shares[arm] for arm in some], registered.concentrations
    )
    n = math.fsum(math.fsum(period) for period in periods)
    leaks = {arm: math.fsum(period[arm] for period in periods) for arm, share in enumerate(shares) if share <= 0}
    intervals = [_leak_interval(n, leaks[arm], alpha) if arm in leaks else (0.0, 1.0) for arm in range(len(shares))]
    for arm, between in zip(some, _of_all(split, n, leaks, alpha), strict=True):
        intervals[arm] = between
    margins = [(max(share - tolerance, 0.0), min(share + tolerance, 1.0)) for share in shares]
    outside = [multinomial.log_e_outside(split, place, *margins[arm]) for place, arm in enumerate(some)]
    inside = all(low <= a and b <= high for (low, high), (a, b) in zip(margins, intervals, strict=True))
    return Judged(math.inf if any(leaks.values()) else max(outside), inside and n > 0, tuple(intervals))


def _of_all(split: multinomial.Split, n: float, leaks: Mapping[int, float], alpha: float) -> list[tuple[float, float]]:
    """Shares of all requests: of those that do not leak, times the part that does not.

    Either sequence may miss, so they share alpha; with one arm, or where nothing can leak, only one of them can.
    """
    alone = len(split.counts) == 1
    own = alpha if not leaks else (1 - OF_LEAKS) * alpha
    each = (
        [(1.0, 1.0)] if alone else [multinomial.share_interval(split, place, own) for place in range(len(split.counts))]
    )
    if not leaks:
        return each
    least, most = _leak_interval(n, math.fsum(leaks.values()), alpha if alone else OF_LEAKS * alpha)
    return [(low * (1 - most), high * (1 - least)) for low, high in each]


def _leak_interval(n: float, hits: float, alpha: float) -> tuple[float, float]:
    """The share of an arm that should get nothing."""
    if hits == 0:
        return 0.0, bernoulli.zero_bound(n, BEFORE_A_HIT * alpha)
    # No bet on "never": that one was lost with the first hit, and had its own part of alpha.
    return bernoulli.rate_interval(bernoulli.observe(n, hits, zero_weight=0.0), (1 - BEFORE_A_HIT) * alpha)


@dataclass(frozen=True)
class Place:
    """What was counted of some cohorts in one phase, how it was drawn, and how it is judged."""

    counts: Counts
    draws: Draws
    judged: Judged

    @property
    def effective(self) -> float:
        """The number of independent draws that the requests are worth."""
        return self.counts.requests / self.draws.factor


def place(tally: Tally, hypothesis: SplitHypothesis, cohorts: Sequence[str], what: tuple[Hypotheses, float]) -> Place:
    """Some cohorts of a hypothesis.

    Args:
        tally: Counts.
        hypothesis: Its phase and shares.
        cohorts: Of the hypothesis.
        what: What was registered, and how many requests were lost.
    """
    registered, lost = what
    drawn = [arm for arm, share in hypothesis.shares.items() if 0 < share < 1]
    counts = count(tally, hypothesis.phase, cohorts, list(hypothesis.shares), lost)
    draws = examine(by_window(tally, hypothesis.phase, cohorts), drawn)
    return Place(counts, draws, judge_draws(counts, draws, hypothesis, registered))


def judge(
    tally: Tally, registered: Hypotheses, lost: float, rates: Mapping[str, float]
) -> tuple[list[Claim], list[Share]]:
    """Every split claim, and what each cohort's arms got.

    Null of a claim: each arm gets its configured share within the tolerance, and nothing where 0 is configured, each
    request being drawn for itself. Users who stick to an arm and pods that take turns break it; `draws` looks for both,
    and cannot see users who stick but send all the time. Valid at every look: Lindon & Malek 2022 (arXiv 2011.03567),
    several claims by Holm 1979 on e-values (Vovk & Wang 2021). Shares are fractions.

    Args:
        tally: Counts.
        registered: What was fixed before the load.
        lost: Requests that were sent and not recorded.
        rates: Planned arrivals a second of each cohort, to say how long more data takes.
    """
    what = registered, lost
    units = [(hypothesis, cohort) for hypothesis in registered.split for cohort in hypothesis.cohorts]
    single = {(one.id, cohort): place(tally, one, [cohort], what) for one, cohort in units}
    logs = [found.judged.log_e for found in single.values()]
    refuted = dict(zip(single, e_holm(logs, registered.alpha_split), strict=True))
    claims: list[Claim] = []
    shares: list[Share] = []
    for hypothesis in registered.split:
        against = [cohort for cohort in hypothesis.cohorts if refuted[hypothesis.id, cohort]]
        own = {cohort: single[hypothesis.id, cohort] for cohort in hypothesis.cohorts}
        pooled = place(tally, hypothesis, hypothesis.cohorts, what)
        worst = max(found.judged.log_e for found in own.values())
        told = own[against[0]] if against and worst < math.inf else pooled
        claims.append(_claim(hypothesis, registered, (told, pooled, worst), against, rates))
        for cohort, found in own.items():
            shares += _shares(hypothesis, cohort, found, registered)
    return claims, shares


def _shares(hypothesis: SplitHypothesis, cohort: str, found: Place, registered: Hypotheses) -> Iterator[Share]:
    counts, n = found.counts, math.fsum(found.counts.totals)
    for arm, total, (low, high) in zip(counts.arms, counts.totals, found.judged.intervals, strict=True):
        interval = Interval(total / n if n else None, low, high, 1 - registered.alpha_split, anytime=True)
        yield Share(
            phase=hypothesis.phase,
            cohorts=[cohort],
            arm=arm,
            expected=hypothesis.shares[arm],
            requests=round(counts.requests),
            count=round(total),
            unknown=round(math.fsum(counts.unknown)),
            share=interval,
            effective=math.floor(found.effective),
        )


def _state(pooled: Place, against: Sequence[str]) -> str:
    if against:
        return BROKEN
    if pooled.draws.too_even:
        return VOID
    return SHOWN if pooled.judged.shown and not pooled.draws.changed else UNDECIDED


def _claim(
    hypothesis: SplitHypothesis,
    registered: Hypotheses,
    found: tuple[Place, Place, float],
    against: Sequence[str],
    rates: Mapping[str, float],
) -> Claim:
    told, pooled, worst = found
    counts, state = told.counts, _state(pooled, against)
    arm = _told_arm(hypothesis, counts, registered.baseline)
    at = counts.arms.index(arm)
    expected, known = hypothesis.shares[arm], math.fsum(counts.totals)
    worth = counts.scaled(1 / told.draws.factor)
    fixed = shares_p_value(worth.totals, [hypothesis.shares[name] for name in counts.arms])
    low, high = told.judged.intervals[at]
    return Claim(
        id=hypothesis.id,
        kind="split",
        required=hypothesis.required,
        state=state,
        cause=ROUTING,
        sentence=_sentence(hypothesis, told, state, against, arm),
        test="mixture of Dirichlet-multinomial e-processes, valid at every look",
        null=f"each arm gets its share within {words.points(hypothesis.tolerance)}; none where 0 is configured",
        requests=round(counts.requests),
        effective=math.floor(told.effective),
        unit="share",
        margin_low=max(expected - hypothesis.tolerance, 0.0),
        margin_high=min(expected + hypothesis.tolerance, 1.0),
        interval=Interval(
            counts.totals[at] / known if known else None, low, high, 1 - registered.alpha_split, anytime=True
        ),
        fixed_test=fixed[0] if fixed else None,
        fixed_p_value=fixed[1] if fixed else None,
        ln_e_value=worst if math.isfinite(worst) else None,
        certain=worst == math.inf,
        need=_need(hypothesis, pooled, registered, rates) if state == UNDECIDED else None,
        phase=hypothesis.phase,
        arm=arm,
        reason=TOO_EVEN if state == VOID else "",
    )


def _told_arm(hypothesis: SplitHypothesis, counts: Counts, baseline: str) -> str:
    """The arm that the sentence is about: a leak's, else the canary furthest from its share."""
    leaks = [(total, arm) for arm, total in zip(counts.arms, counts.totals, strict=True) if not hypothesis.shares[arm]]
    if leaks and max(leaks)[0] > 0:
        return max(leaks)[1]
    whole = [arm for arm in counts.arms if hypothesis.shares[arm] >= 1]
    if whole:
        return whole[0]
    n = math.fsum(counts.totals) or 1.0
    gaps = {
        arm: abs(total / n - hypothesis.shares[arm])
        for arm, total in zip(counts.arms, counts.totals, strict=True)
        if hypothesis.shares[arm] and arm != baseline
    }
    return max(gaps, key=lambda arm: gaps[arm]) if gaps else baseline


def _nothing_known(counts: Counts, cohorts: str) -> str:
    n = counts.requests
    if not n:
        return f"no request of {cohorts} could be judged"
    return f"none of {words.requests(n)} of {cohorts} can be given to an arm: they failed without saying which"


def _sentence(hypothesis: SplitHypothesis, told: Place, state: str, against: Sequence[str], arm: str) -> str:
    counts = told.counts
    leak = state == BROKEN and not hypothesis.shares[arm]
    cohorts = words.listed(hypothesis.cohorts if leak or not against else list(against[:1]))
    known = math.fsum(counts.totals)
    hits = counts.totals[counts.arms.index(arm)]
    expected = hypothesis.shares[arm]
    allowed = f"{words.percent(expected)} ± {words.points(hypothesis.tolerance)}"
    where = f"phase {hypothesis.phase}: "
    if not known:
        return f"{where}{_nothing_known(counts, cohorts)}."
    if leak:
        return (
            f"{where}{words.count(hits)} of {words.requests(known)} of {cohorts} reached {arm}, which should get none."
        )
    got = f"{where}{arm} got {words.percent(hits / known)} of {words.requests(known)} of {cohorts}"
    if state == BROKEN:
        return f"{got}; {allowed} is configured: the split is wrong.{_about_draws(told)}"
    if state == SHOWN:
        return f"{got}; {allowed} is configured.{_about_draws(told)}"
    if state == VOID:
        return f"{got}, as configured, but {TOO_EVEN}."
    unknown = math.fsum(counts.unknown)
    others = f"; {words.count(unknown)} more may belong to any arm" if unknown else ""
    return f"{got}{others}: not enough to tell whether {allowed} holds.{_about_draws(told)}"


def _about_draws(told: Place) -> str:
    """What a reader must know where requests were not independent draws of one share."""
    draws = told.draws
    if draws.changed and draws.change is not None:
        shares = f"{words.percent(draws.change.before)} to {words.percent(draws.change.after)}"
        return f" The share of {draws.arm} changed from {shares} on the way."
    if draws.factor > 1:
        worth = f"{words.requests(told.counts.requests)} are worth {words.count(told.effective)} independent ones"
        return f" Requests stick to arms: {worth}."
    return ""


def _need(hypothesis: SplitHypothesis, found: Place, registered: Hypotheses, rates: Mapping[str, float]) -> Need | None:
    """The data that would decide the claim if the shares stay as they look; without any, if they are as configured."""
    counts, n = found.counts, found.counts.requests
    if found.draws.changed:
        return None
    seen = counts if n else Counts(counts.arms, (tuple(hypothesis.shares[arm] for arm in counts.arms),), (0.0,))

    def decided(multiple: float) -> bool:
        judged = judge_draws(seen.scaled(multiple), found.draws, hypothesis, registered)
        return judged.shown or judged.log_e >= -math.log(registered.alpha_split)

    multiple = smallest_multiple(decided)
    if multiple is None:
        return None
    # What is decided for the cohorts together may still be open for each: then a little more is asked for.
    more = max(multiple - 1, LEAST_MORE) * n if n else multiple
    rate = math.fsum(rates[cohort] for cohort in hypothesis.cohorts)
    return Need(math.ceil(more), more / rate if rate else 0.0)
