"""Every form says the numbers of the JSON: they are read back from each, and compared to the digits that it shows."""

import csv
import io
import json
import re
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from analysis.judge import examine
from analysis.publish import Subject
from analysis.render.annotations import render_annotations
from analysis.render.json_report import render_json
from analysis.render.markdown import render_markdown
from analysis.render.tallies import render_csv, render_parquet
from analysis.render.terminal import print_report
from tests.analysis.synthetic import Truth, misrouted, write_run

QUANTILES = ("p50", "p90", "p95", "p99")
KINDS = {
    "promote": Truth(),
    "model": Truth(failing={"new": 0.1, "old": 0.02}, median_ms={"old": 20.0, "new": 900.0}),
    "routing": replace(misrouted("split", {"old": 0.5, "new": 0.5}), failing={"new": 0.004}),
}


@pytest.fixture(scope="module", params=KINDS)
def subject(request, tmp_path_factory):
    return Subject(examine(write_run(tmp_path_factory.mktemp("run"), truth=KINDS[request.param])))


@pytest.fixture(scope="module")
def told(subject):
    return json.loads(render_json(subject.report))


def in_markdown(report):
    """Cells of the tables by their titles."""
    tables = {}
    for title, table in re.findall(
        r"<summary>(.*?)</summary>\n\n(.*?)\n\n</details>", render_markdown(report), re.DOTALL
    ):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        tables[title.lower()] = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]
    return tables


def in_terminal(report):
    """The same from the terminal, wide enough for every cell to stand on one line."""
    stream = io.StringIO()
    print_report(report, stream, width=400)
    tables = {}
    for part in stream.getvalue().split("\n\n"):
        title, _, *rows = [*part.strip().splitlines(), ""]
        cells = [re.split(r" {2,}", row.rstrip()) for row in rows if row.strip()]
        tables[title.strip()] = list(joined(cells)) if title.startswith("latency") else cells
    return tables


def joined(lines):
    """Rows of latencies as Markdown has them: what stands below a quantile in brackets after it; no caption."""
    rows = [line for line in lines if len(line) == 4 + len(QUANTILES)]
    for row in rows:
        below = lines[lines.index(row) + 1 : lines.index(row) + 2] or [[]]
        own = below[0][1:] if below[0] and not below[0][0] else []
        supported = [cell for cell in row[4:] if cell != "too few"]
        assert len(own) in (0, len(supported))
        yield [*row[:4], *(f"{cell} ({own.pop(0)})" if own and cell != "too few" else cell for cell in row[4:])]


def number(text):
    """The first figure of a cell, in base units: shares as such, latencies in microseconds."""
    found = re.match(r"\s*(-?[\d,.]+)(%| ms)?", text.removeprefix("under "))
    return float(found[1].replace(",", "")) * {"%": 0.01, " ms": 1000, None: 1}[found[2]]


def between(cell):
    """The interval in brackets after a quantile, in microseconds."""
    found = re.search(r"\((.*)\)", cell)
    return found and [1000 * float(end.replace(",", "")) for end in re.split("[–-]| or more", found[1]) if end]


def near_interval(interval):
    """What is shown of one: three digits."""
    if interval is None:
        return None
    return [pytest.approx(end, rel=0.006) for end in (interval["low"], interval["high"]) if end is not None]


def of(text):
    """`12 of 1,234`: both."""
    first, second = text.split(" of ")
    return number(first), number(second)


def near(share):
    """To the tenth of a point that is shown; below that, to the first digit; below 0.001 %, that it is below."""
    if share >= 0.001 or share == 0:
        return pytest.approx(share, abs=0.00051)
    return pytest.approx(share, rel=0.51) if share >= 1e-5 else pytest.approx(1e-5)


@pytest.mark.parametrize("read", [in_markdown, in_terminal], ids=["markdown", "terminal"])
def test_tables_for_people(subject, told, read):
    tables = read(subject.report)
    assert len(tables["shares"]) == len(told["shares"])
    for cells, share in zip(tables["shares"], told["shares"], strict=True):
        got = next(cell for cell in cells if " of " in cell)
        assert (number(got), number(got.split(" of ")[1])) == (near(share["share"]["estimate"]), share["requests"])
        low, high = next(cell for cell in cells if " to " in cell).split(" to ")
        assert (number(low), number(high)) == (near(share["share"]["low"]), near(share["share"]["high"]))
    latencies = [*tables["latency of successful answers"], *tables["latency from the intended start"]]
    for cells, row in zip(latencies, [*told["latencies"], *told["waited"]], strict=True):
        assert [cells[0], cells[1], number(cells[2])] == [row["phase"], row["arm"], row["requests"]]
        assert number(cells[3]) == pytest.approx(row["mean_us"], rel=0.006)
        for name, cell in zip(QUANTILES, cells[4:], strict=True):
            shown = row["quantiles_us"].get(name)
            assert cell.startswith("too few") if shown is None else number(cell) == pytest.approx(shown, rel=0.006)
            assert between(cell) == near_interval(row["intervals_us"].get(name))
    for cells, row in zip(tables["failures by routed arm"], told["failures"], strict=True):
        assert of(cells[2]) == (row["failed"], row["requests"])
        low, high = cells[3].split(" to ")
        assert (number(low), number(high)) == (near(row["rate"]["low"]), near(row["rate"]["high"]))


def test_counts_for_notebooks_give_the_report_s_shares_and_failures(subject, told):
    rows = list(csv.DictReader(io.StringIO(render_csv(subject.examined).decode())))
    parquet = pq.read_table(io.BytesIO(render_parquet(subject.examined))).to_pylist()
    for table in (rows, parquet):
        judged = [row for row in table if row["standing"] == "judged"]
        for share in told["shares"]:
            arm = [row["answered"] or row["routed"] for row in judged]
            own = [
                int(row["requests"])
                for row, who in zip(judged, arm, strict=True)
                if (row["phase"], row["cohort"], who) == (share["phase"], share["cohorts"][0], share["arm"])
            ]
            assert sum(own) == share["count"]
        failed = sum(int(row["requests"]) for row in judged if row["outcome"] != "ok")
        assert failed >= sum(row["failed"] for row in told["failures"])


def test_sentences_are_the_same_everywhere(subject, told):
    claims = {claim["sentence"] for claim in told["claims"] if claim["state"] != "shown"}
    commands = render_annotations(subject.report).replace("%25", "%")
    assert told["verdict"]["sentence"] in commands
    assert all(sentence in commands for sentence in list(claims)[:5])
