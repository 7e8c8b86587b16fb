"""What must not matter does not: order of rows, split of shards, names of arms; tallies add."""

import msgspec

from analysis.answers import attribute_outputs
from analysis.counting import tally
from analysis.rows import read_rows
from analysis.tally import KEYS, SUMS, Plan
from experiments.core import journal, records
from tests.analysis.synthetic import EXPERIMENT, Layout, experiment, write_run


def essence(report):
    return report.verdict, report.claims, report.shares, report.failures, report.latencies


def test_order_of_rows_and_split_of_shards(judged):
    plain = judged()
    assert essence(judged(layout=Layout(shuffled=True))) == essence(plain)
    assert essence(judged(layout=Layout(workers=3))) == essence(plain)


def test_names_of_arms(judged):
    text = msgspec.json.encode(EXPERIMENT).replace(b'"old"', b'"zebra"').replace(b'"new"', b'"ant"')
    # The verdict may not depend on which name sorts first.
    renamed = experiment(**msgspec.json.decode(text))
    from dataclasses import replace

    from tests.analysis.synthetic import Truth

    truth = replace(Truth(), median_ms={"zebra": 20.0, "ant": 20.0}, serves={"zebra": "old", "ant": "new"})
    other, plain = judged(truth, chosen=renamed), judged()
    assert other.verdict.word == plain.verdict.word
    assert [claim.state for claim in other.claims] == [claim.state for claim in plain.claims]
    assert [claim.interval for claim in other.claims] == [claim.interval for claim in plain.claims]


def counted(run, periods):
    rows = read_rows(run, records.read_info(run))
    plan = Plan(("old", "new"), periods, {}, rows.origin_us + 5_000_000, by_header=False)
    return tally(rows, attribute_outputs(run, records.read_references(run)), plan)


def test_tallies_add(tmp_path):
    run = write_run(tmp_path, layout=Layout(workers=2))
    periods = journal.periods(journal.changes(journal.read(run.journal)), 2**62)
    whole = counted(run, periods)
    parts = []
    shards = run.shards()
    for shard in shards:
        other = next(path for path in shards if path != shard)
        hidden = other.rename(other.with_suffix(".hidden"))
        parts.append(counted(run, periods))
        hidden.rename(other)
    together = (parts[0] + parts[1]).cells
    # A period's end depends on what else was in flight then; everything but the few requests there adds up.
    columns = [key for key in KEYS if key not in ("standing", "period", "phase", "window")]
    sums = list(SUMS)
    assert together.groupby(columns)[sums].sum().equals(whole.cells.groupby(columns)[sums].sum())
    assert (together["n"].sum(), whole.cells["n"].sum()) == (7000, 7000)
