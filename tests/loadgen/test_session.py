"""A finished request has its row, whatever happens to the user who sent it."""

import gevent
import pytest

from experiments.core import reading, records
from experiments.core.access import Access
from loadgen import session as sessions
from loadgen.assignment import Assignment
from loadgen.recorder import anchored
from loadgen.session import Order, Place, Session


@pytest.fixture
def opened(server, load):
    """A session in a closed loop against a server; everything that Locust was told; the server."""
    started, told = server(), []
    experiment = reading.load(load.experiment()[1]).experiment
    given = Assignment(
        experiment=experiment, payloads={"p": b'{"instances": [[1]]}'}, host=None, stack=None, run=None, runs=load.runs,
        run_id=None, access=Access(), open_loop=False, cohorts=(), notes=(),
    )  # fmt: skip
    run = records.create_run(load.runs, "small")
    order = Order(str(run.path), "", "", anchored().now(), False, [], {"me": 0})  # noqa: FBT003
    made = Session(given, order, Place("me", started.url, anchored()), lambda **event: told.append(event), print)
    yield made, told, started, run
    made.finish()


def test_a_user_who_is_killed_after_the_answer_has_a_row(opened, monkeypatch):
    session, told, started, run = opened
    own = {}
    session.send_freely(own, "everyone")
    sleep = gevent.sleep

    def killed_here(seconds=0):
        if seconds == 0:
            raise gevent.GreenletExit
        sleep(seconds)

    monkeypatch.setattr(sessions.gevent, "sleep", killed_here)
    with pytest.raises(gevent.GreenletExit):
        session.send_freely(own, "canary-users")
    monkeypatch.undo()
    (path,) = run.shards()
    rows = records.read_shard(path).rows
    assert [row.cohort for row in rows] == ["everyone", "canary-users"]
    assert [row.request_id for row in rows] == [seen.request_id for seen in started.requests()]
    assert len(told) == 1
    assert session.finish().rows == 2
