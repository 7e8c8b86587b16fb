"""`python -m analysis`: results, files, bytes, and one clear line for everything that cannot be read."""

import json
import os
import shutil
import subprocess
import sys
import threading

import msgspec
import pytest

from analysis import publish
from analysis.__main__ import analysis
from analysis.publish import LEFT
from experiments.core import command, records
from tests.analysis.synthetic import Layout, write_run


def run_command(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "analysis", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", **variables},
        check=False,
    )


@pytest.mark.parametrize("places", [("-", "-"), ("x.out", "./x.out")])
def test_two_forms_in_one_place_are_refused(here, places):
    code, out, err = here("report", "--html", places[0], "--json", places[1])
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "give each a place of its own" in err


@pytest.mark.parametrize("name", ["run.json", "journal.jsonl", "requests-host-100.jsonl"])
def test_a_form_does_not_replace_records(here, tmp_path, name):
    run = write_run(tmp_path)
    before = (run.path / name).read_bytes()
    code, _, err = here("report", run.path, "--json", run.path / name)
    assert (code, err.count("\n")) == (2, 1)
    assert "must not replace them" in err
    assert (run.path / name).read_bytes() == before


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    publish.write({"json": pipe}, lambda _: b"{}")
    reader.join(10)
    assert read == [b"{}"]
    assert pipe.is_fifo()


def test_another_tools_table_leaves_nothing_behind_on_stderr(tmp_path):
    table, mapping = tmp_path / "table.csv", tmp_path / "own.yaml"
    rows = (f"{row},20,200,{'new' if row % 3 else 'old'}\n" for row in range(300))
    table.write_text("at,took,code,arm\n" + "".join(rows))
    mapping.write_text("time: {column: at, unit: s}\nlatency: {column: took, unit: ms}\nstatus: code\narm: arm\n")
    done = run_command("report", table, "--mapping", mapping, "--expect", "old=33%,new=67%", "--quiet")
    assert done.stderr == ""
    assert done.stdout


@pytest.fixture
def here(capsys, monkeypatch):
    """The command in this process, without still pictures: exit code, what it printed, what it said."""
    monkeypatch.setattr("analysis.render.runtime.available", lambda: False)

    def call(*arguments):
        code = command.run(analysis, "python -m analysis", [*map(str, arguments)])
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def copied(run, tmp_path):
    """A run of one's own."""
    shutil.copytree(run.path, tmp_path / "copy")
    return records.RunDir(tmp_path / "copy")


def test_report_prints_leaves_files_and_exits_with_the_verdict(copied, here):
    code, out, err = here("report", copied.path)
    assert (code, err) == (0, "")
    assert out.startswith("Promote new")
    assert json.loads((copied.path / "report.json").read_text())["verdict"]["word"] == "promote"
    assert (copied.path / "report.md").read_text().startswith("## ")
    assert "<h1>" in (copied.path / "report.html").read_text()
    assert (copied.path / "junit.xml").read_text().startswith("<?xml")


@pytest.mark.slow
def test_same_run_same_bytes_elsewhere(copied, tmp_path):
    """In every form, whatever the time zone, the locale, the hash seed, the folder, and without what was derived."""

    def forms(folder):
        folder.mkdir()
        return [word for name in ("csv", "parquet", "annotations") for word in (f"--{name}", folder / name)]

    moved = tmp_path / "some" / "where" / "else"
    shutil.copytree(copied.path, moved)
    (moved / "requests.parquet").unlink(missing_ok=True)
    seen = []
    for number, (run, variables) in enumerate(
        [
            (copied.path, {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"}),
            (moved, {"PYTHONHASHSEED": "2", "TZ": "Asia/Kolkata", "LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8"}),
            (moved, {"PYTHONHASHSEED": "3", "TZ": "America/St_Johns", "LC_ALL": "C", "PYTHONUTF8": "1"}),
        ]
    ):
        done = run_command("report", run, **variables)
        run_command("report", run, *forms(tmp_path / str(number)), **variables)
        run_command("report", run, run, "--html", tmp_path / str(number) / "trend.html", **variables)
        made = [*(run / name for name in LEFT.values()), *sorted((tmp_path / str(number)).iterdir())]
        assert len(made) == 8
        seen.append([done.stdout, *(path.read_bytes() for path in made)])
    assert seen[1] == seen[0]
    assert seen[2] == seen[0]


def test_json_to_stdout_is_json_only(copied, here):
    _, out, _ = here("report", copied.path, "--json", "-")
    assert json.loads(out)["schema_version"] == 1


def test_several_runs_are_compared_and_the_last_one_decides(copied, run, tmp_path, here):
    page, told = tmp_path / "trend.html", tmp_path / "trend.json"
    code, _, _ = here("report", run.path, copied.path, "--html", page, "--json", told)
    trend = json.loads(told.read_text())
    assert (code, len(trend["runs"])) == (0, 2)
    assert {claim["at"] for claim in trend["claims"]} == {1, 2}
    assert "2 runs compared" in page.read_text()
    code, out, _ = here("report", run.path, copied.path)
    assert (code, "shown" in out) == (0, True)
    code, _, err = here("report", run.path, copied.path, "--junit", "-")
    assert (code, "shows one run" in err) == (2, True)


def test_the_newest_run_is_the_default(copied, tmp_path, here, monkeypatch):
    place = tmp_path / "runs" / "synthetic"
    place.mkdir(parents=True)
    shutil.copytree(copied.path, place / "20260101T000000Z-aaaa")
    monkeypatch.setenv("SPLITPROOF_RUNS", str(tmp_path / "runs"))
    code, out, _ = here("report", "--quiet")
    assert (code, out.count("\n")) == (0, 1)


def empty(run):
    shutil.rmtree(run.path)
    run.path.mkdir()


def absent(run):
    shutil.rmtree(run.path)


def without_shards(run):
    for shard in run.shards():
        shard.unlink()


def empty_shard(run):
    run.shards()[0].write_bytes(b"")


def foreign_shard(run):
    run.shards()[0].write_bytes(b'{"hello": "world"}\n')


def newer_shard(run):
    shard = run.shards()[0]
    shard.write_bytes(shard.read_bytes().replace(b'"schema":1', b'"schema":99', 1))


def newer_info(run):
    info = msgspec.json.decode(run.info.read_bytes())
    run.info.write_bytes(msgspec.json.encode({**info, "schema_version": 99}))


def damaged_row(run):
    shard = run.shards()[0]
    lines = shard.read_bytes().splitlines(keepends=True)
    shard.write_bytes(b"".join([*lines[:10], b"[1, 2\n", *lines[11:]]))


def foreign_info(run):
    run.info.write_bytes(b"[]")


def bad_journal(run):
    run.journal.write_bytes(b"nonsense\n")


def bad_references(run):
    run.references.write_bytes(b"{")


def bad_outputs(run):
    run.outputs()[0].write_bytes(b"{}\n{}\n")


def bad_hypotheses(run):
    info = msgspec.json.decode(run.info.read_bytes())
    run.info.write_bytes(msgspec.json.encode({**info, "hypotheses": {"alpha": "much"}}))


BREAKAGES = [
    empty, absent, without_shards, empty_shard, foreign_shard, newer_shard, newer_info, damaged_row, foreign_info,
    bad_journal, bad_references, bad_outputs, bad_hypotheses,
]  # fmt: skip


@pytest.mark.parametrize("damage", BREAKAGES, ids=lambda one: one.__name__)
def test_what_cannot_be_read_is_one_clear_line(copied, damage, here):
    damage(copied)
    code, out, err = here("report", copied.path)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert str(copied.path) in err or "run.json" in err


def test_a_torn_last_line_is_accepted_and_said(tmp_path, here):
    torn = write_run(tmp_path, layout=Layout(torn=True, trailers=False))
    code, out, _ = here("report", torn.path)
    assert code == 4
    assert "incomplete" in out


def test_without_a_journal_nothing_is_judged(copied, here):
    copied.journal.unlink()
    code, out, _ = here("report", copied.path)
    assert code == 4
    assert "it is not known which routing was in force" in " ".join(out.split())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_runs_are_judged_all_the_same(copied):
    copied.path.chmod(0o555)
    done = run_command("report", copied.path)
    copied.path.chmod(0o755)
    assert done.returncode == 0
    assert "not written" in done.stderr


def test_plan_is_printed(here):
    code, out, _ = here("plan", "quickstart")
    assert code == 0
    assert "split/split/everyone+canary-users" in out
