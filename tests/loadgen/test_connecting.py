import gevent
import pytest

from experiments.core.spec import Cohort
from loadgen.connecting import Switchboard
from loadgen.predict import Dialer, predict, request_head, target

BODY = b'{"instances": [[1, 2]]}'


def connections_used(server, policy, *, users=3, requests=4, open_loop=True):
    """The number of connections that users open who ask at once, each several times; and how often somebody waited."""
    started = server(delay=0.02)
    dialer = Dialer(target(started.url))
    board = Switchboard(dialer, {"all": Cohort(share=1.0, connections=policy)}, open_loop=open_loop)
    head = request_head(dialer.target, "/v1/models/m:predict", {}, BODY)

    def user():
        own = {}
        for _ in range(requests):
            answer = predict(board.of("all", own), head + b"some-id\r\n\r\n" + BODY, 5.0)
            assert answer.status == 200

    gevent.joinall([gevent.spawn(user) for _ in range(users)], raise_error=True)
    seen = [each.connection for each in started.requests()]
    assert len(seen) == users * requests
    board.close()
    return len(set(seen)), board.queued


@pytest.mark.parametrize(
    ("policy", "open_loop", "connections"),
    [(None, True, 3), (None, False, 3), ("per-user", True, 3), ("per-request", True, 12), ("pool:2", True, 2)],
)
def test_each_policy_opens_as_many_connections_as_it_says(server, policy, open_loop, connections):
    used, queued = connections_used(server, policy, open_loop=open_loop)
    assert used == connections
    assert (queued > 0) == (policy == "pool:2")


def test_without_a_policy_one_after_another_share_a_connection_only_in_the_open_loop(server):
    dialer = Dialer(target(server().url))
    for open_loop, same in ((True, True), (False, False)):
        board = Switchboard(dialer, {"all": Cohort(share=1.0)}, open_loop=open_loop)
        assert (board.of("all", {}) is board.of("all", {})) is same


def test_a_request_that_times_out_in_the_queue_leaves_the_pool_usable(server):
    started = server(delay=0.3)
    dialer = Dialer(target(started.url))
    board = Switchboard(dialer, {"all": Cohort(share=1.0, connections="pool:1")}, open_loop=True)
    head = request_head(dialer.target, "/v1/models/m:predict", {}, BODY)
    request = head + b"some-id\r\n\r\n" + BODY
    first = gevent.spawn(predict, board.of("all", {}), request, 5.0)
    gevent.sleep(0.05)
    assert predict(board.of("all", {}), request, 0.1).error == "timeout"
    assert first.get().status == 200
    assert predict(board.of("all", {}), request, 5.0).status == 200
    assert len({each.connection for each in started.requests()}) == 1
