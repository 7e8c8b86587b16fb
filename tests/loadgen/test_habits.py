"""What people do with Locust in locustfiles of their own goes on working beside ours."""

import json

import numpy as np
import pytest

from analysis.judge import judge
from experiments.core import records

HABITS = """
import json
from locust import FastHttpUser, constant, events, task

BODY = {"instances": [[0] * 8]}

@events.request.add_listener
def heard(request_type, name, response_time, response_length, response, context, exception, start_time, url, **_rest):
    try:
        response.raise_for_status()
        raised = ""
    except Exception as error:
        raised = str(error)
    said = {
        "kind": request_type, "name": name, "ms": response_time, "length": response_length, "context": context,
        "exception": str(exception or ""), "url": url, "status": response.status_code, "raised": raised,
        "body": len(response.content), "started": start_time,
        "route": [response.headers[key] for key in ("X-Splitproof-Route", "x-splitproof-route")],
        "got": [response.headers.get("Content-TYPE"), response.headers.get("none"), "CONTENT-type" in response.headers],
    }
    if name.startswith("predict"):
        said |= {"elapsed_ms": response.elapsed.total_seconds() * 1000, "ok": response.ok}
    with open("heard.jsonl", "a") as file:
        file.write(json.dumps(said) + chr(10))

class Own(FastHttpUser):
    fixed_count = 2  # beside cohorts, whose weights are their shares in per cent
    wait_time = constant(0.02)

    @task
    def ask(self):
        ids = {"x-request-id": "own"}
        where = "/v1/models/digits_classifier:predict"
        with self.client.post(where, json=BODY, headers=ids, catch_response=True, name="own") as response:
            if response.headers["x-splitproof-route"] == "split/two":
                response.failure("arm two")
            elif response.status_code == 200 and response.json()["predictions"]:
                response.success()
"""

SHAPE = """
from locust import LoadTestShape

class Steps(LoadTestShape):
    def tick(self):
        at = self.get_run_time()
        return None if at > 7 else (1, 10) if at < 3 else (6, 10)
"""

PACED = """
from locust import constant_pacing
from loadgen.canary import *

Everyone.wait_time = constant_pacing(0.25)
"""


def ids(rows):
    return {row.request_id for row in rows}


@pytest.fixture
def beside(load):
    """Writes a locustfile to be used beside ours, or in its place."""

    def write(text, *, ours=True):
        path = load.folder / "mine.py"
        path.write_text(text)
        load.locustfile = f"{load.locustfile},{path}" if ours else path

    return write


def test_a_locustfile_with_listeners_and_a_client_of_its_own(server, load, beside):
    started = server(failure_rate=0.1)
    beside(HABITS)
    ended = load.end(
        load.headless(started, "--users", "8", "--spawn-rate", "8", "--closed-loop", "--run-time", "2s"), patience=90
    )
    assert ended.code == 0, ended.text
    assert "Traceback" not in ended.text
    heard = [json.loads(line) for line in (load.folder / "heard.jsonl").read_text().splitlines()]
    rows = {row.request_id: row for row in load.rows()}
    ours = {each["context"]["request_id"]: each for each in heard if each["name"].startswith("predict")}
    # Every row was heard of, and told alike.
    assert set(ours) == set(rows)
    assert len(rows) > 50
    for key, row in rows.items():
        each, failed = ours[key], row.status == 503
        assert (each["kind"], each["name"]) == ("POST", f"predict [{row.cohort}]")
        assert each["context"] == {"cohort": row.cohort, "payload": row.payload, "request_id": key}
        assert (each["status"], each["length"], each["route"]) == (row.status, each["body"], [row.route] * 2)
        assert each["ms"] == pytest.approx(row.latency_us / 1000)
        assert each["elapsed_ms"] == pytest.approx(row.first_byte_us / 1000, abs=0.002)
        assert each["got"] == ["application/json", None, True]
        said = ("http_5xx (status 503)", "status 503", False) if failed else ("", "", True)
        assert (each["exception"], each["raised"], each["ok"]) == said
    # Their own requests go their own way: sent, judged by them, seen by Locust, and in no shard of ours.
    own = [each for each in heard if each["name"] == "own"]
    assert len(own) == sum(each.request_id == "own" for each in started.requests()) > 20
    refused = [each for each in own if each["route"][0] == "split/two"]
    assert 0 < len(refused) == sum(each["exception"] == "arm two" for each in own)
    assert records.read_info(load.run()).locust_requests == len(rows)


@pytest.mark.slow
def test_user_classes_that_an_open_loop_leaves_out_are_named(server, load, beside):
    started = server()
    beside(HABITS)
    ended = load.end(load.headless(started, "--run-time", "1s"))
    assert ended.code == 0, ended.text
    (line,) = [line for line in ended.text.splitlines() if "open loop: nothing but the arrivals" in line]
    assert "Own of the locustfile will not run; to run them too: --users N --closed-loop." in line
    assert not [each for each in started.requests() if each.request_id == "own"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_shape_says_how_many_users_wait_for_their_answers(server, load, beside, processes):
    # With arrivals in the experiment too: a number of users that changes makes a closed loop. Its first step has fewer
    # users than there are processes, which matters to nobody.
    started = server(delay=0.05)
    beside(SHAPE)
    ended = load.end(load.headless(started, *(["--processes", "2"] if processes > 1 else [])), patience=90)
    assert ended.code == 0, ended.text
    assert "closed loop: users wait for each answer" in ended.text
    shards = load.shards()
    assert [(shard.header.mode, shard.complete) for shard in shards] == [("closed", True)] * processes
    assert ids(load.rows()) == {seen.request_id for seen in started.requests()}
    numbers = [row.sequence for row in load.rows()]
    assert len(numbers) == len(set(numbers))
    origin = min(shard.header.origin_us for shard in shards)
    starts = np.array([row.start_us - origin for row in load.rows()]) / 1e6
    few, many = (int(np.count_nonzero((starts > low) & (starts < high))) for low, high in ((0.5, 2.0), (4.5, 6.0)))
    assert 3 < many / few < 9


@pytest.mark.slow
def test_users_that_a_shape_takes_away_leave_no_request_without_its_answer(server, load, beside):
    started = server(delay=0.002)
    beside(SHAPE.replace("(1, 10) if at < 3 else (6, 10)", "(40, 100) if int(at) % 2 else (5, 100)"))
    ended = load.end(load.headless(started), patience=90)
    assert ended.code == 0, ended.text
    (shard,) = load.shards()
    assert ids(shard.rows) == {seen.request_id for seen in started.requests()}
    assert sorted(row.sequence for row in shard.rows) == list(range(len(shard.rows)))
    assert judge(load.run()).records.complete


@pytest.mark.slow
def test_slots_that_are_fewer_than_the_workers_are_refused(server, load, page):
    child, call = page(server().url, "--processes", "2")
    load.wait_until(lambda: json.loads(call("/stats/requests"))["worker_count"] == 2)
    call("/swarm", b"user_count=1&spawn_rate=1")
    load.wait_until(lambda: "1 slots for 2 workers: each needs one" in load.said(child))
    assert not load.files()


@pytest.mark.slow
def test_pacing_of_users_who_wait_for_their_answers(server, load, beside):
    started = server()
    beside(PACED, ours=False)
    given = ["--users", "4", "--spawn-rate", "4", "--closed-loop", "--run-time", "4s", "Everyone"]
    ended = load.end(load.headless(started, *given))
    assert ended.code == 0, ended.text
    (shard,) = load.shards()
    assert shard.complete
    assert ids(shard.rows) == {seen.request_id for seen in started.requests()}
    # Each of the four sends four times a second, however quick the answers are.
    assert len({seen.connection for seen in started.requests()}) == 4
    assert 12 * 4 <= len(shard.rows) <= 17 * 4
