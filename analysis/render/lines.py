"""What every rendering says of one thing, in the same words: cells of tables, before any layout."""

from collections.abc import Sequence

from analysis import words
from analysis.findings import Claim, Dispersion, Drift, Failures, Interval, Latency, Outputs, Secondary, Share
from analysis.render.text import safe
from analysis.report import Report


def between(interval: Interval) -> str:
    """An interval of shares or rates."""
    return f"{words.percent(interval.low)} to {words.percent(interval.high)}"


def expected(share: Share) -> str:
    """The configured share."""
    return "not configured" if share.expected is None else words.percent(share.expected)


def observed(share: Share) -> str:
    """The share that was seen, of how many."""
    return f"{words.percent(share.share.estimate)} of {words.count(share.requests)}"


def effect(claim: Claim) -> str:
    """A claim's estimate with its interval, in its unit."""
    interval = claim.interval
    if interval is None or interval.estimate is None:
        return "unknown"
    if claim.unit == "share beyond the limit":
        shares = [words.percent(value, 3) for value in (interval.estimate, interval.low, interval.high)]
        return f"{shares[0]}, {shares[1]} to {shares[2]}"
    if claim.kind == "latency":
        high = "unbounded" if interval.high is None else f"{interval.high:.2f}"
        return f"{interval.estimate:.2f}x, {interval.low:.2f} to {high}"
    if claim.kind == "errors":
        bounds = [words.points(value, signed=True) for value in (interval.low, interval.high or 0.0)]
        return f"{words.points(interval.estimate, signed=True)}, {bounds[0]} to {bounds[1]}"
    return f"{words.percent(interval.estimate)}, {between(interval)}"


def need(claim: Claim) -> str:
    """What an undecided claim still lacks, as a sentence with a space before it; nothing where that is not known."""
    if not claim.need:
        return ""
    seconds = words.duration(max(claim.need.seconds, 1))
    return f" Needs about {words.roughly(claim.need.requests)} more ({seconds})."


def evidence(claim: Claim) -> str:
    """The p-value or e-value that a claim rests on."""
    if claim.certain:
        return "impossible under the null"
    if claim.p_value is not None:
        return f"p = {claim.p_value:.2g}"
    if claim.ln_e_value is not None:
        return f"ln e = {claim.ln_e_value:.3g}"
    return ""


def level(claim: Claim) -> str:
    """What the interval is worth."""
    if claim.interval is None:
        return ""
    looks = "at every look" if claim.interval.anytime else "at the last look"
    return f"{words.percent(claim.interval.level, 3)} {looks}"


def classes(row: Failures) -> str:
    """Failures by class, the most frequent first."""
    ordered = sorted(row.classes.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{words.count(n)} {safe(name, 40)}" for name, n in ordered[:5])
    return f"{shown}, …" if len(ordered) > 5 else shown  # noqa: PLR2004 - the five most frequent


def arm_name(arm: str) -> str:
    """An arm, or what stands for none."""
    return safe(arm) if arm else "(unknown arm)"


WAITED = "latency from the intended start"
"""What a client that was promised a time has waited: the wait for a late sender included."""

ANSWERED = "latency of successful answers"
"""From the actual start, as the claims have it."""


def quantile(row: Latency, name: str) -> str:
    """A quantile that the sample supports."""
    return words.milliseconds(row.quantiles_us[name]) if name in row.quantiles_us else "too few"


def quantile_between(row: Latency, name: str) -> str:
    """The interval of a quantile, in ms; nothing where there is none."""
    if name not in row.intervals_us:
        return ""
    interval = row.intervals_us[name]
    low = words.milliseconds(interval.low).removesuffix(" ms")
    if interval.high is None:
        return f"{low} or more"
    return f"{low}–{words.milliseconds(interval.high).removesuffix(' ms')}"


def quantiles_note(rows: Sequence[Latency]) -> str:
    """What the intervals of a table of latencies are."""
    levels = {interval.level for row in rows for interval in row.intervals_us.values()}
    if not levels:
        return (
            "No intervals: they come from time batches, and these latencies are counted by phase (those from the "
            "intended start) or fill one batch only. No claim rests on them."
        )
    return (
        f"In ms, {words.percent(min(levels))} for each quantile by itself at this look, from its variation over time "
        "batches (Woodruff): without an upper end where slow spells are too few to bound it, none where latency "
        "wanders throughout. No claim rests on them: claims compare arms."
    )


def drift(row: Drift) -> str:
    """Whether a share stayed what it was."""
    change = f"{words.percent(row.before)} to {words.percent(row.after)} after {words.duration(row.at_s)}"
    where = f"phase {row.phase}: share of {row.arm} among {words.listed(row.cohorts)}"
    return f"{where}, {row.reading} (likeliest change: {change}, p = {row.p_value:.2g})."


def outputs(row: Outputs) -> str:
    """How the outputs of two arms compare."""
    text = f"{row.arm} and {row.baseline} name the same class for {row.agreeing} of {row.payloads} payloads"
    if row.distance_mean is not None:
        text += f" ({row.agreeing_top5} within the first five; total variation {row.distance_mean:.2f} on average)"
    if not row.labelled:
        return f"{text}; no labels are known."
    text = f"{text}; right: {row.arm} {row.right}, {row.baseline} {row.baseline_right} of {row.labelled} with a label"
    if row.p_value is None:
        return f"{text}; neither is right alone."
    return f"{text} (McNemar, exact, over distinct payloads: p = {row.p_value:.2g})."


def secondary(row: Secondary) -> str:
    """A statistic beside the claims, with what it assumes."""
    parts = [f"phase {row.phase}, {row.arm}: {row.name}"]
    if row.estimate is not None:
        ends = [_amount(value, row.unit) for value in (row.estimate, row.low, row.high)]
        parts.append(f"{ends[0]} ({words.level(1 - row.level)}: {ends[1]} to {ends[2]})")
    if row.p_value is not None:
        parts.append(f"p = {row.p_value:.2g}")
    return f"{', '.join(parts)}; assumes {row.assumption}."


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return "unbounded"
    if unit == "us":
        return words.milliseconds(value)
    return f"{100 * (value - 1):+.1f}%" if unit == "ratio" else f"{value:.3f}"


def dispersion(one: Dispersion) -> str:
    """How evenly an arm's share came."""
    return (
        f"Phase {one.phase}, {one.cohort}: share of {one.arm} over {one.windows} windows, "
        f"index {one.index:.2f} (1 = independent draws): {one.reading}."
    )


def records(report: Report) -> str:
    """Where the requests went."""
    seen = report.records
    parts = [
        ("judged", seen.judged),
        ("warm-up", seen.warm_up),
        ("in a transition", seen.transition),
        ("unfinished", seen.unfinished),
        ("outside any phase", seen.outside),
    ]
    told = ", ".join(f"{words.count(n)} {name}" for name, n in parts if n)
    return f"{words.requests(seen.requests)} recorded{': ' if told else ''}{told}."
