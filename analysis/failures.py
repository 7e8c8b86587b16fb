"""Does the canary fail more often than the baseline? Counts by routed arm → one claim for each canary."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from analysis import words
from analysis.answers import NOT_FINITE, WRONG_SHAPE
from analysis.findings import BROKEN, MODEL, SHOWN, UNDECIDED, VOID, Claim, Failures, Interval, Need
from analysis.needs import LEAST_MORE, smallest_multiple
from analysis.stats import bernoulli
from analysis.stats.fixed import newcombe
from analysis.stats.multiplicity import e_holm
from analysis.tally import OK, Tally
from experiments.core.hypotheses import ErrorsHypothesis, Hypotheses

TEST = "product of two Bernoulli mixture e-processes, valid at every look"


@dataclass(frozen=True)
class Arm:
    """Requests and failures of one arm in one phase."""

    requests: float = 0.0
    failed: float = 0.0

    def plus(self, other: "Arm") -> "Arm":
        """Both together."""
        return Arm(self.requests + other.requests, self.failed + other.failed)

    def scaled(self, multiple: float) -> "Arm":
        """That many times the data."""
        return Arm(self.requests * multiple, self.failed * multiple)

    @property
    def rate(self) -> bernoulli.Rate:
        """The evidence on its failure rate."""
        return bernoulli.observe(self.requests, self.failed)


@dataclass(frozen=True)
class Pair:
    """A canary and the baseline in one phase, and the requests that may belong to either.

    Of `lost` requests it is not even known whether they failed.
    """

    canary: Arm
    baseline: Arm
    unknown: Arm
    lost: float = 0.0

    def assigned(self) -> list[tuple[Arm, Arm]]:
        """Every extreme way to give out the unknown requests: failures and successes each wholly to one arm.

        The worst for one arm has its failures there and its successes with the other, which would dilute them here.
        """
        failed, served = self.unknown.failed, self.unknown.requests - self.unknown.failed
        ways = product(_to_either(Arm(failed, failed)), _to_either(Arm(served)), self._lost())
        return [
            (
                reduce(Arm.plus, [mine for mine, _ in way], self.canary),
                reduce(Arm.plus, [its for _, its in way], self.baseline),
            )
            for way in ways
        ]

    def _lost(self) -> list[tuple[Arm, Arm]]:
        """Lost requests as failures of either arm, as successes of either, and half and half where that is worse."""
        if not self.lost:
            return [(Arm(), Arm())]
        failed, served = Arm(self.lost, self.lost), Arm(self.lost)
        half, other = failed.scaled(0.5), served.scaled(0.5)
        return [*_to_either(failed), *_to_either(served), (half, other), (other, half)]

    @property
    def requests(self) -> float:
        """All requests."""
        return self.canary.requests + self.baseline.requests + self.unknown.requests + self.lost

    def scaled(self, multiple: float) -> "Pair":
        """That many times the data."""
        first, second, either = (arm.scaled(multiple) for arm in (self.canary, self.baseline, self.unknown))
        return Pair(first, second, either, multiple * self.lost)


def _to_either(some: Arm) -> list[tuple[Arm, Arm]]:
    """Some requests with the canary, or with the baseline; one way where there are none."""
    return [(some, Arm()), (Arm(), some)] if some.requests else [(Arm(), Arm())]


def with_arm(cells: Any) -> Any:
    """Cells with the arm that they were routed to; where no header says so, the one that answered."""
    return cells.assign(arm=np.where(cells["routed"] == "", cells["answered"], cells["routed"]))


def count(tally: Tally, phase: str) -> dict[str, Arm]:
    """Requests and failures of one phase by arm; under the empty name those of no known arm."""
    cells = with_arm(tally.in_phase(phase))
    cells = cells.assign(failed=cells["n"].where(cells["outcome"] != OK, 0))
    sums = cells.groupby("arm")[["n", "failed"]].sum()
    return {str(arm): Arm(float(row["n"]), float(row["failed"])) for arm, row in sums.iterrows()}


def pair(tally: Tally, phase: str, canary: str, baseline: str, lost: float) -> Pair:
    """A canary and the baseline in one phase; of a lost request nobody knows whether it failed."""
    arms = count(tally, phase)
    return Pair(arms.get(canary, Arm()), arms.get(baseline, Arm()), arms.get("", Arm()), lost)


def log_e_harm(found: Pair, margin: float) -> float:
    """The log e-value against every increase of at most the margin, by the assignment that speaks least for harm."""
    return min(bernoulli.log_e_above(c.rate, b.rate, margin) for c, b in found.assigned())


def is_shown(found: Pair, margin: float, alpha: float) -> bool:
    """Whether every increase of the margin or more is refuted, however the unknown requests are given out."""
    return all(_is_shown(canary, baseline, margin, alpha) for canary, baseline in found.assigned())


def _is_shown(canary: Arm, baseline: Arm, margin: float, alpha: float) -> bool:
    if not (canary.requests and baseline.requests):
        return False
    below = canary.failed / canary.requests - baseline.failed / baseline.requests < margin
    return below and bernoulli.log_e_difference(canary.rate, baseline.rate, margin) >= -math.log(alpha)


def interval(found: Pair, alpha: float) -> Interval:
    """The confidence sequence of the increase, wide enough for every way to give out the unknown."""
    each = [bernoulli.difference_interval(canary.rate, baseline.rate, alpha) for canary, baseline in found.assigned()]
    rates = found.canary.rate.estimate, found.baseline.rate.estimate
    estimate = None if rates[0] is None or rates[1] is None else rates[0] - rates[1]
    return Interval(estimate, min(low for low, _ in each), max(high for _, high in each), 1 - alpha, anytime=True)


def judge(
    tally: Tally, registered: Hypotheses, lost: float, rates: Mapping[str, float]
) -> tuple[list[Claim], list[Failures]]:
    """Every claim on failures, and the failures of each arm in every phase that compares arms.

    Null of a claim: the canary's failure rate is at most the margin above the baseline's, and requests fail
    independently. Failures that come in bursts break it: they look like more evidence than they are. Valid at every
    look: a product of mixtures (Robbins 1970; Howard et al. 2021, arXiv 1810.08240), claims by e-Holm. Fractions.

    Args:
        tally: Counts.
        registered: What was fixed before the load.
        lost: Requests that were sent and not recorded.
        rates: Planned arrivals a second by cohort.
    """
    units = [(hypothesis, phase) for hypothesis in registered.errors for phase in hypothesis.phases]
    pairs = {(h.id, phase): pair(tally, phase, h.canary, registered.baseline, lost) for h, phase in units}
    logs = {(h.id, phase): log_e_harm(pairs[h.id, phase], h.max_increase) for h, phase in units}
    refuted = dict(zip(logs, e_holm(list(logs.values()), registered.alpha_errors), strict=True))
    rate = math.fsum(rates.values())
    claims = []
    for hypothesis in registered.errors:
        place = _place(hypothesis, logs, refuted)
        if place is None:
            claims.append(_nowhere(hypothesis))
        else:
            key = hypothesis.id, place
            claims.append(_claim(hypothesis, registered, pairs[key], (place, logs[key], refuted[key]), rate))
    asked = {phase for _, phase in units}
    phases = [phase for phase in registered.batch_seconds if phase in asked]
    return claims, [row for phase in phases for row in _rows(tally, phase, registered)]


def _place(
    hypothesis: ErrorsHypothesis, logs: Mapping[tuple[str, str], float], refuted: Mapping[tuple[str, str], bool]
) -> str | None:
    """The phase to tell of: where the evidence of harm is strongest, else the one in which the claim is shown."""
    against = {logs[hypothesis.id, phase]: phase for phase in hypothesis.phases if refuted[hypothesis.id, phase]}
    return against[max(against)] if against else hypothesis.phase


def _nowhere(hypothesis: ErrorsHypothesis) -> Claim:
    reason = f"no phase sends requests to {hypothesis.canary} and to the baseline at once"
    return Claim(
        id=hypothesis.id,
        kind="errors",
        required=hypothesis.required,
        state=VOID,
        cause=MODEL,
        sentence=f"failures of {hypothesis.canary}: {reason}.",
        test=TEST,
        null="",
        requests=0,
        unit="difference of failure rates",
        arm=hypothesis.canary,
        reason=reason,
    )


def _claim(
    hypothesis: ErrorsHypothesis, registered: Hypotheses, found: Pair, where: tuple[str, float, bool], rate: float
) -> Claim:
    phase, log_e, broken = where
    alpha, margin = registered.alpha_errors, hypothesis.max_increase
    state = BROKEN if broken else SHOWN if is_shown(found, margin, alpha) else UNDECIDED
    between = interval(found, alpha)
    low, high = newcombe(
        (found.canary.failed, found.canary.requests), (found.baseline.failed, found.baseline.requests), alpha
    )
    return Claim(
        id=hypothesis.id,
        kind="errors",
        required=hypothesis.required,
        state=state,
        cause=MODEL,
        sentence=_sentence(hypothesis, registered.baseline, found, (phase, state, between)),
        test=TEST,
        null=f"{hypothesis.canary} fails at most {words.points(margin)} more often than {registered.baseline}",
        requests=round(found.requests),
        unit="difference of failure rates",
        margin_high=margin,
        interval=between,
        fixed=Interval(between.estimate, low, high, 1 - alpha, anytime=False),
        fixed_test="Newcombe's interval, for one look at the end",
        ln_e_value=log_e if math.isfinite(log_e) else None,
        certain=log_e == math.inf,
        need=_need(found, margin, alpha, rate) if state == UNDECIDED else None,
        phase=phase,
        arm=hypothesis.canary,
    )


def _sentence(hypothesis: ErrorsHypothesis, baseline: str, found: Pair, judged: tuple[str, str, Interval]) -> str:
    phase, state, between = judged
    canary, base = found.canary, found.baseline
    if not (canary.requests and base.requests):
        return f"phase {phase}: {hypothesis.canary} and {baseline} did not both get requests that could be judged."
    rates = (
        f"phase {phase}: {words.count(canary.failed)} of {words.requests(canary.requests)} "
        f"to {hypothesis.canary} failed, "
        f"{words.count(base.failed)} of {words.count(base.requests)} to {baseline}"
    )
    allowed = words.points(hypothesis.max_increase)
    if state == BROKEN:
        return f"{rates}: at least {words.points(between.low)} more often; {allowed} is allowed."
    if state == SHOWN:
        return f"{rates}: at most {words.points(max(between.high or 0.0, 0.0))} more often; {allowed} is allowed."
    bound = f"at most {words.points(between.high or 0.0)} more often by now, "
    return f"{rates}: {bound}not enough to tell whether it fails {allowed} more often."


def _need(found: Pair, margin: float, alpha: float, rate: float) -> Need | None:
    """The data that would decide the claim, either way, if the rates stay as they look."""
    if not (found.canary.requests and found.baseline.requests):
        return None

    def decided(multiple: float) -> bool:
        more = found.scaled(multiple)
        return is_shown(more, margin, alpha) or log_e_harm(more, margin) >= -math.log(alpha)

    multiple = smallest_multiple(decided)
    if multiple is None:
        return None
    more = max(multiple - 1, LEAST_MORE) * found.requests
    return Need(math.ceil(more), more / rate if rate else 0.0)


def _rows(tally: Tally, phase: str, registered: Hypotheses) -> Sequence[Failures]:
    """Each arm's failures in a phase, with their classes."""
    cells = with_arm(tally.in_phase(phase))
    failed = cells[cells["outcome"] != OK].groupby(["arm", "outcome"])["n"].sum()
    rows = []
    for arm, seen in sorted(count(tally, phase).items()):
        low, high = bernoulli.rate_interval(seen.rate, registered.alpha_errors)
        between = Interval(seen.rate.estimate, low, high, 1 - registered.alpha_errors, anytime=True)
        classes = {str(name): int(n) for (of, name), n in failed.items() if of == arm}
        kinds: dict[str, int] = {}
        for name, n in classes.items():
            kinds[kind_of(name)] = kinds.get(kind_of(name), 0) + n
        rows.append(Failures(phase, arm, round(seen.requests), round(seen.failed), between, classes, kinds))
    return rows


TIMEOUT = "timeout"
KINDS = (TIMEOUT, "connect", "4xx", "5xx", WRONG_SHAPE, NOT_FINITE, "other")
_CONNECT = {"connect", "reset", "tls", "refused", "dns"}


def kind_of(name: str) -> str:
    """The kind of a recorded failure: one of `KINDS`.

    >>> [kind_of(name) for name in ("timeout", "reset", "http-503", "http_4xx", "undecodable", "protocol")]
    ['timeout', 'connect', '5xx', '4xx', 'wrong shape', 'other']
    """
    status = re.match(r"http[-_]([45])[\dx]{2}$", name)
    if status:
        return f"{status[1]}xx"
    if name in _CONNECT or name in KINDS:
        return "connect" if name in _CONNECT else name
    return WRONG_SHAPE if name == "undecodable" else "other"
