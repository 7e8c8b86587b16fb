"""Tables of other load tools: judged by the same code, whatever tool wrote them; bad ones are one clear line."""

import gzip
import random

import duckdb
import pytest

from analysis.__main__ import analysis
from analysis.findings import BROKEN, SHOWN, UNDECIDED, VOID
from analysis.render.json_report import render_json
from analysis.tables.judge import judge_table
from experiments.core import command
from experiments.core.errors import SplitproofError
from tests.analysis import foreign
from tests.analysis.foreign import WRITERS, sent

EXPECT = "old=70%,new=30%"


def states(report):
    return {claim.id.rpartition("/whole-table")[0] or claim.id: claim.state for claim in report.claims}


def of(report, kind):
    return next(claim for claim in report.claims if claim.kind == kind)


@pytest.fixture(scope="module")
def healthy():
    return sent()


@pytest.mark.parametrize("written", WRITERS)
def test_a_healthy_table_of_each_tool_is_promoted(written, tmp_path, healthy):
    table = WRITERS[written](tmp_path / "table", healthy)
    report = judge_table(table, written.partition(".")[0], EXPECT)
    assert report.verdict.word == "promote", report.verdict
    assert [one.count for one in report.shares] == [sum(r.arm == arm for r in healthy) for arm in ("old", "new")]
    assert of(report, "split").state == SHOWN


def test_tools_agree_on_the_same_requests(tmp_path, healthy):
    """Start, latency and arm are the same to a microsecond, so everything that is judged is."""
    found = {
        written: judge_table(WRITERS[written](tmp_path / written, healthy), written.partition(".")[0], EXPECT)
        for written in ("vegeta.csv", "vegeta.jsonl", "k6.csv", "k6.jsonl")
    }
    first, *others = ((one.claims, one.shares, one.failures, one.latencies, one.records) for one in found.values())
    assert all(other == first for other in others)


@pytest.mark.slow
def test_faults_are_found_in_the_claim_that_they_break(tmp_path):
    cases = {
        "split": sent(shares={"old": 0.5, "new": 0.5}),
        "errors": sent(failing={"new": 0.2}),
        "latency": sent(slower={"new": 2.0}),
    }
    for kind, requests in cases.items():
        report = judge_table(foreign.vegeta_csv(tmp_path / kind, requests), "vegeta", EXPECT)
        broken = {claim.kind for claim in report.claims if claim.state == BROKEN}
        assert (report.verdict.word, broken) == ("roll back", {kind})


def test_same_table_same_bytes_whatever_its_order_or_name(tmp_path, healthy):
    first = render_json(judge_table(foreign.k6_json(tmp_path / "one.json", healthy), "k6", EXPECT))
    shuffled = random.Random(3).sample(healthy, len(healthy))
    assert render_json(judge_table(foreign.k6_json(tmp_path / "two.txt", shuffled), "k6", EXPECT)) == first


def test_parquet_and_gzip_are_read_like_the_text(tmp_path, healthy):
    plain = foreign.k6_csv(tmp_path / "k6.csv", healthy)
    zipped = tmp_path / "k6.csv.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    expected = render_json(judge_table(plain, "k6", EXPECT))
    assert render_json(judge_table(zipped, "k6", EXPECT)) == expected
    mapping = tmp_path / "own.yaml"
    mapping.write_text(
        "time: {column: at, unit: rfc3339}\nlatency: {column: ms, unit: ms}\nstatus: code\narm: version\n"
    )
    table = tmp_path / "own.parquet"
    start = f"make_timestamp({foreign.START_US} + 20000 * i) as at"
    arm = "case when hash(i) % 10 < 3 then 'new' else 'old' end as version"
    made = duckdb.sql(f"select {start}, 20.0 + i % 7 as ms, 200 as code, {arm} from range(3000) t(i)")  # noqa: S608
    made.write_parquet(str(table))
    report = judge_table(table, str(mapping), EXPECT)
    assert report.records.judged == 3000
    assert report.verdict.word == "promote"


def test_without_a_baseline_shares_are_shown_and_claims_void(tmp_path, healthy):
    report = judge_table(foreign.envoy_json(tmp_path / "log", healthy), "envoy")
    assert report.verdict.word == "invalid"
    assert "which of new and old is the baseline is not said" in report.verdict.sentence
    assert {one.arm for one in report.shares} == {"old", "new"}
    assert {claim.state for claim in report.claims} == {VOID}


def test_without_shares_arms_are_compared_all_the_same(tmp_path, healthy):
    mapping = tmp_path / "own.yaml"
    mapping.write_text("like: vegeta\narms: [old, new]\n")
    report = judge_table(foreign.vegeta_csv(tmp_path / "table", healthy), str(mapping))
    assert [claim.kind for claim in report.claims if claim.state == SHOWN] == ["errors", "latency"]
    assert [one.expected for one in report.shares] == [None, None]
    assert report.verdict.word == "promote"


def test_phases_cohorts_signatures_and_claims_of_a_mapping(tmp_path):
    table = tmp_path / "own.csv"
    rows = ["at,ms,who,output,code"]
    for index in range(4000):
        late = index >= 2000
        output = "b2" if late and index % 5 == 0 else "a1"
        rows.append(f"{1_700_000_000_000 + 20 * index},{20 + index % 9},{'x' if index % 5 == 0 else 'y'},{output},200")
    table.write_text("\n".join(rows) + "\n")
    mapping = tmp_path / "own.yaml"
    mapping.write_text("""
time: {column: at, unit: ms}
latency: {column: ms, unit: ms}
status: code
cohort: {column: who, values: {x: canary-users, y: everyone}}
signature: {column: output, arms: {old: [a1], new: [b2]}}
phases:
  - {name: dark, to: 40s, expect: {old: 100%, new: 0%}}
  - {name: focused, from: "2023-11-14T22:14:00Z", expect: {canary-users: {new: 100%}, everyone: {old: 100%}}}
claims: {split: {tolerance: 10pp}, errors: {max_increase: 5pp}, latency: {p50: +50%}}
""")
    report = judge_table(table, str(mapping), None)
    assert report.verdict.word == "promote", report.verdict
    assert [period.requests for period in report.periods] == [1999, 2000]  # one was in flight at the change
    assert of(report, "latency").phase == "focused"
    broken = tmp_path / "broken.csv"
    broken.write_text(table.read_text().replace(",x,a1,", ",x,b2,", 1))
    assert judge_table(broken, str(mapping), None).verdict.word == "roll back"


def test_unknown_outputs_and_arms_are_never_given_away(tmp_path, healthy):
    strange = healthy + [foreign.Sent(r.start_us + 7, r.latency_us, 200, "", "third") for r in healthy[::20]]
    report = judge_table(foreign.vegeta_csv(tmp_path / "table", strange), "vegeta", EXPECT)
    assert {one.unknown for one in report.shares} == {150}
    assert any("third" in remark for remark in report.remarks)


def test_too_little_is_undecided(tmp_path):
    report = judge_table(foreign.vegeta_csv(tmp_path / "table", sent(30)), "vegeta", EXPECT)
    assert report.verdict.word == "hold"
    assert {claim.state for claim in report.claims} == {UNDECIDED}


def changed(write, old, new, tool="vegeta"):
    def make(path):
        write(path, sent(50))
        path.write_text(path.read_text().replace(old, new, 1))
        return path, tool

    return make


def content(text, tool="vegeta"):
    def make(path):
        path.write_bytes(text)
        return path, tool

    return make


def other(write, tool):
    return lambda path: (write(path, sent(50)), tool)


US = str(foreign.START_US + 40_000)
BAD = {
    "empty": (content(b""), "is empty"),
    "blank": (content(b"\n\n  \n"), "is empty"),
    "header only": (content(b"metric_name,timestamp,metric_value\n", "k6"), "k6|no row"),
    "binary": (content(b"\x0f\xff\x81\x00\x03"), "vegeta encode"),
    "not utf-8": (content(b"1700000000000000000,200,1\xff\xfe,,,,,,,,,\n"), "UTF-8|fields"),
    "array": (content(b'[{"a": 1}]'), "jq"),
    "a shard": (content(b'{"kind":"shard","schema":1}\n'), "run directory"),
    "text in time": (changed(foreign.vegeta_csv, US + "000", "soon"), ":3: column 'timestamp' is 'soon'"),
    "text in latency": (changed(foreign.k6_csv, "splitproof,17", "splitproof,x17", "k6"), ":3: column 'timestamp' is"),
    "time without zone": (changed(foreign.vegeta_json, "Z", ""), ":1: column 'timestamp' is '2023"),
    "mixed types": (changed(foreign.envoy_json, '"response_code":200', '"response_code":"ok"', "envoy"), ":1: column"),
    "torn": (changed(foreign.vegeta_json, "}\n", "\n"), ":1: is no JSON object"),
    "ragged": (changed(foreign.vegeta_csv, ",POST,", ",POST,,", "vegeta"), ":1: has 13 fields where 12"),
    "k6 as vegeta": (other(foreign.k6_csv, "vegeta"), "another tool's file"),
    "vegeta as k6": (other(foreign.vegeta_csv, "k6"), "another tool's file"),
    "envoy as vegeta": (other(foreign.envoy_json, "vegeta"), "another tool's file"),
    "vegeta as envoy": (other(foreign.vegeta_json, "envoy"), "another tool's file"),
    "csv as envoy": (other(foreign.vegeta_csv, "envoy"), "is for jsonl tables"),
    "no such mapping": (other(foreign.vegeta_csv, "wrk"), "there are: envoy, k6, vegeta"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_one_clear_line_and_exit_2(name, tmp_path, capsys):
    make, told = BAD[name]
    path, tool = make(tmp_path / "table")
    code = command.run(analysis, "python -m analysis", ["report", str(path), "--mapping", tool, "--expect", EXPECT])
    seen = capsys.readouterr()
    assert (code, seen.out, seen.err.count("\n")) == (2, "", 1), seen.err
    assert any(part in seen.err for part in told.split("|")), seen.err


BAD_MAPPINGS = {
    "unit: hours": (":2: latency.unit", "latency: {column: latency, unit: hours}"),
    "unknown key": (":2: latencies", "latencies: 3"),
    "two places": (":2: arm", "arm: {column: a, tag: b}"),
    "bad pattern": (":2: arm", "arm: {column: a, pattern: '('}"),
    "no zone": (":2: phases.0.from", "phases: [{name: a, from: '2026-01-01T00:00:00'}]"),
    "shares": ("sum to 90%", "expect: {old: 60%, new: 30%}"),
    "overlap": (
        "must not overlap",
        "expect: {old: 70%, new: 30%}\nphases: [{name: a, to: 500ms}, {name: b, from: 300ms}]",
    ),
    "elsewhere": ("holds no time", "arms: [old, new]\nphases: [{name: a, from: 900s}]"),
    "no such column": ("has no column 'x'", "arm: x"),
    "no arm": ("none of a, b", "arms: [a, b]"),
}


@pytest.mark.parametrize("name", BAD_MAPPINGS)
def test_bad_mappings_name_their_line(name, tmp_path):
    told, text = BAD_MAPPINGS[name]
    mapping = tmp_path / "own.yaml"
    mapping.write_text(f"like: vegeta\n{text}\n")
    table = foreign.vegeta_csv(tmp_path / "table", sent(50))
    with pytest.raises(SplitproofError) as refused:
        judge_table(table, str(mapping))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_lines_are_counted_as_an_editor_does(tmp_path):
    """A quoted field with line breaks, and an empty line, before the bad one."""
    table = tmp_path / "own.csv"
    table.write_text('at,ms,arm,note\n1700000000,5,old,"two\nlines"\n\n1700000001,6,new,\n1700000002,x,new,\n')
    mapping = tmp_path / "own.yaml"
    mapping.write_text("time: {column: at, unit: s}\nlatency: {column: ms, unit: ms}\narm: arm\n")
    with pytest.raises(SplitproofError, match=r"own\.csv:6: column 'ms' is 'x'"):
        judge_table(table, str(mapping), "old=50%,new=50%")
