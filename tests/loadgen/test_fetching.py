"""A conductor on another machine: it fetches the records as they grow, stops the load, and has all of them."""

import base64
import shutil
import subprocess
import sys
import zlib

import msgspec
import pytest

from deploy.asking import ask
from deploy.cluster import load as conducted
from experiments.core import records
from experiments.core.errors import StackError
from experiments.core.home import CHECKOUT
from loadgen import fetching

RUN = "20260101T000000Z-ab12"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    made = records.RunDir(tmp_path / "run")
    records.write_json(made.info, records.RunInfo(1, RUN, {}, "", 0, "here"))
    return made


def test_what_is_lacking_is_given_in_portions_and_the_end_is_told_last(run, monkeypatch):
    monkeypatch.setattr(fetching, "MOST_BYTES", 5)
    shard = run.path / "requests-h-1.jsonl"
    shard.write_bytes(b"abcdefgh")
    (run.path / "secret.txt").write_text("not a record")
    ended = msgspec.structs.replace(records.read_info(run), ended=records.Ending(1, "completed"))
    records.write_json(run.info, ended)
    have, came, answers = {}, b"", []
    while not (answers and answers[-1].ended):
        found = fetching.fetched(run, records.Wish(dict(have)))
        answers.append(found)
        for name, piece in found.files.items():
            assert (name, piece.offset) == (shard.name, len(came))
            came += zlib.decompress(base64.b64decode(piece.data))
            have[name] = len(came)
    assert came == b"abcdefgh"
    assert [each.info is not None for each in answers] == [False, True]
    assert not fetching.fetched(None, records.Wish()).ended


def test_a_page_that_does_not_answer_is_one_line(run):
    with (
        pytest.raises(StackError, match="the load's master does not answer"),
        conducted.following("http://127.0.0.1:9", run),
    ):
        pass


@pytest.mark.slow
def test_a_load_elsewhere_is_followed_stopped_and_brought_home(server, load, port, run):
    """The worker cannot see the master's run directory, nor the conductor either of theirs."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace needs root")
    started, said = server(), []
    common = ["--host", started.url, *load.payloads, *load.experiment(arrivals="100/s"), "--loglevel", "WARNING"]
    web = str(int(port) % 20_000 + 30_000)
    master = load.start(
        "--master", "--master-bind-port", port, "--expect-workers", "1", "--autostart", "--autoquit", "600",
        "--run-time", "300s", "--web-host", "127.0.0.1", "--web-port", web, "--run-id", RUN, *common,
    )  # fmt: skip
    load.runs.mkdir(exist_ok=True)
    worker = subprocess.Popen(
        [unshare, "-m", "sh", "-c", f'mount -t tmpfs none "{load.runs}" && exec "$@"', "sh", sys.executable, "-m",
         "locust", "-f", str(CHECKOUT / "loadgen" / "canary.py"), "--worker", "--master-port", port, *common],
        cwd=load.folder, env=load.environment, start_new_session=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    worker.log = (load.folder / "nothing").open("w+b")
    load.children.append(worker)
    url = f"http://127.0.0.1:{web}"
    load.wait_until(lambda: ask(f"{url}/"))
    with conducted.following(url, run) as bringing:
        assert abs(bringing.ahead_us) <= bringing.uncertainty_us + 2_000
        # Rows come while the load goes on, not at its end.
        load.wait_until(lambda: run.shards() and len(records.read_shard(run.shards()[0]).rows) > 50)
        assert bringing.info is None
        conducted.finish(bringing, 30, said.append)
    assert (said, bringing.trouble) == ([], None)
    (shard,) = [records.read_shard(path) for path in run.shards()]
    assert shard.complete
    assert {row.request_id for row in shard.rows} == {seen.request_id for seen in started.requests()}
    assert (bringing.info.id, bringing.info.locust_requests) == (RUN, len(shard.rows))
    assert bringing.info.load_processes == [shard.header.client]
    assert {path.name for path in run.outputs()} == {path.name for path in load.run().outputs()}
    master.terminate()
