"""The tally as one Ibis expression: it runs on the embedded DuckDB, live, and on Spark where rows outgrow one machine.

`analysis.counting` counts the same rows in memory in a fraction of the time; tests hold the two against each other.
"""

from collections.abc import Sequence
from typing import Any

import ibis
import pyarrow as pa

from analysis.answers import UNUSABLE, Answer
from analysis.rows import Rows
from analysis.stats.bins import PER_OCTAVE, ZERO
from analysis.tally import JUDGED, KEYS, LATE_US, OK, OUTSIDE, TRANSITION, UNFINISHED, WARM_UP, Plan
from experiments.core.hypotheses import batch_seconds


def tables(rows: Rows, answers: Sequence[Answer], plan: Plan) -> dict[str, pa.Table]:
    """What the query reads, by name, in its order."""
    return {
        "requests": rows.table.replace_schema_metadata(None),
        "answers": _answers_table(answers),
        "periods": _periods_table(plan),
        "shards": _shards_table(rows),
    }


def expression(tables: tuple[Any, ...], plan: Plan) -> Any:
    """The one query: rows joined with what is known of their output, their period and their process, then counted.

    Args:
        tables: Requests, answers, periods and shards.
        plan: What else must be known.
    """
    keyed = _keys(_known(tables), plan)
    return keyed.group_by(list(KEYS)).aggregate(
        n=keyed.count(), latency_us=keyed.latency_us.sum(), late=keyed.is_late.sum()
    )


def waited_expression(tables: tuple[Any, ...], plan: Plan) -> Any:
    """The same for `Tally.waited`: successful answers that count, by their latency from the intended start."""
    keyed = _keys(_known(tables), plan)
    counted = keyed.filter(
        (keyed.standing == JUDGED) & (keyed.outcome == OK) & (keyed.answered != "") & keyed.waited_bin.notnull()
    )
    return (
        counted.group_by(["phase", "answered", "waited_bin"])
        .aggregate(n=counted.count(), latency_us=counted.waited_us.sum())
        .rename(bin="waited_bin")
    )


def _known(tables: tuple[Any, ...]) -> Any:
    """Rows with their period, process and output."""
    requests, answers, periods, shards = tables
    rows = requests.mutate(end_us=requests.start_us + requests.latency_us)
    placed = _in_periods(rows, _with_cuts(rows, periods))
    return (
        placed.join(shards, "shard", how="left", rname="{name}_of_shard")
        .join(answers, ["payload", "signature"], how="left", rname="{name}_of_answer")
        .join(_routes(requests), "route", how="left", rname="{name}_of_route")
    )


def _routes(requests: Any) -> Any:
    """What each different route header says: there are few, and a pattern is dear."""
    routes = requests.select("route").distinct()
    return routes.mutate(
        routed_phase=routes.route.re_extract(r"^([^/]*)/", 1), routed_arm=routes.route.re_extract(r"^[^/]*/(.*)$", 1)
    )


def _with_cuts(rows: Any, periods: Any) -> Any:
    """Where each period stops counting: at the start of the oldest request still in flight at its end.

    From there on only requests that were fast enough would be in the period, which would favour the faster arm.
    """
    in_flight = rows.join(
        periods, (rows.start_us >= periods.from_us) & (rows.start_us < periods.to_us) & (rows.end_us >= periods.to_us)
    )
    cuts = in_flight.group_by("period").aggregate(oldest_us=in_flight.start_us.min())
    joined = periods.join(cuts, "period", how="left", rname="{name}_of_cut")
    cut = ibis.least(joined.oldest_us.fill_null(joined.to_us), joined.horizon_us)
    return joined.mutate(cut_us=cut).drop("oldest_us", "period_of_cut", "horizon_us")


def _in_periods(rows: Any, periods: Any) -> Any:
    inside = (rows.start_us >= periods.from_us) & (rows.start_us < periods.cut_us)
    return rows.join(periods, inside, how="left")


def _keys(rows: Any, plan: Plan) -> Any:
    """Every row's cell."""
    routed = _known_arm(rows.routed_arm, plan.arms)
    answered = routed if plan.by_header else rows.arm.fill_null("")
    return rows.select(
        standing=_standing(rows, plan),
        period=rows.period.fill_null(-1),
        phase=rows.phase.fill_null(""),
        window=((rows.start_us - rows.from_us) // rows.batch_us).fill_null(-1).cast("int64"),
        cohort=rows.cohort,
        answered=answered,
        routed=routed,
        reason=ibis.cases((answered != "", ""), else_=_reason(rows)),
        outcome=_outcome(rows),
        stale=(rows.routed_phase != "") & (rows.routed_phase != rows.phase).fill_null(False),  # noqa: FBT003 - Ibis takes it so
        over=_over(rows, plan.limits_us),
        bin=latency_bin(rows.latency_us),
        waited_bin=latency_bin(rows.end_us - rows.intended_us),
        waited_us=rows.end_us - rows.intended_us,
        latency_us=rows.latency_us,
        is_late=((rows.start_us - rows.intended_us) > LATE_US).fill_null(False).cast("int64"),  # noqa: FBT003
    ).mutate(stale=lambda keyed: keyed.stale.fill_null(False).cast("int64"))  # noqa: FBT003


def _standing(rows: Any, plan: Plan) -> Any:
    first = min((period.start_us for period in plan.periods), default=0)
    return ibis.cases(
        (rows.start_us < plan.warm_until_us, WARM_UP),
        (rows.start_us >= rows.watermark_us, UNFINISHED),
        (rows.period.notnull(), JUDGED),
        ((rows.start_us >= first) & bool(plan.periods), TRANSITION),
        else_=OUTSIDE,
    )


def _over(rows: Any, limits_us: Sequence[int]) -> Any:
    """How many limits the latency from the intended start reaches; from the actual one where nothing was intended."""
    intended = rows.end_us - rows.intended_us.fill_null(rows.start_us)
    return sum(((intended >= limit).cast("int64") for limit in limits_us), start=ibis.literal(0, "int64"))


def _known_arm(name: Any, arms: Sequence[str]) -> Any:
    return ibis.cases((name.isin(list(arms)), name), else_="")


def _reason(rows: Any) -> Any:
    """Why no arm is named."""
    return ibis.cases((rows.signature.isnull(), "no output"), else_=rows.reason.fill_null("output not kept"))


def _outcome(rows: Any) -> Any:
    """`ok`, the error class that the load process recorded, what is wrong with the output, or the status."""
    served = rows.status.between(200, 299)
    status = ibis.literal("http-") + rows.status.cast("string")
    unusable = served & rows.reason.isin(list(UNUSABLE))
    return ibis.cases((rows.error.notnull(), rows.error), (unusable, rows.reason), (served, OK), else_=status)


def latency_bin(latency_us: Any) -> Any:
    """`stats.bins.bin_of` as an expression."""
    value = ibis.greatest(latency_us, 1).cast("float64")
    octave = value.log2().floor()
    within = (value * ibis.literal(2.0).pow(-octave) * PER_OCTAVE).floor() - PER_OCTAVE
    return ibis.cases((latency_us < 1, ZERO), else_=(octave * PER_OCTAVE + within)).cast("int64")


def _answers_table(answers: Sequence[Answer]) -> pa.Table:
    names = ("payload", "signature", "arm", "reason")
    columns = [pa.array([getattr(answer, name) for answer in answers], type=pa.string()) for name in names]
    return pa.table(dict(zip(names, columns, strict=True)))


def _periods_table(plan: Plan) -> pa.Table:
    lengths = [plan.batch_seconds.get(period.phase) or batch_seconds(0) for period in plan.periods]
    return pa.table(
        {
            "period": pa.array([period.index for period in plan.periods], type=pa.int64()),
            "phase": pa.array([period.phase for period in plan.periods], type=pa.string()),
            "from_us": pa.array([period.start_us for period in plan.periods], type=pa.int64()),
            "to_us": pa.array([period.end_us for period in plan.periods], type=pa.int64()),
            "horizon_us": pa.array(
                [plan.horizons.get(period.index, period.end_us) for period in plan.periods], type=pa.int64()
            ),
            "batch_us": pa.array([round(length * 1e6) for length in lengths], type=pa.int64()),
        }
    )


def _shards_table(rows: Rows) -> pa.Table:
    return pa.table(
        {
            "shard": pa.array(range(len(rows.shards)), type=pa.int32()),
            "watermark_us": pa.array([shard.watermark_us for shard in rows.shards], type=pa.int64()),
        }
    )
