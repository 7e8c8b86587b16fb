"""A master and three workers with the arguments that `deploy render --load` writes, where only the cluster is missing.

What a cluster would do is done by hand: files lie where volumes would mount them, the master's name is an address.
"""

import pytest

from analysis.judge import judge
from deploy.locust_manifests import LoadForm, load_manifests
from experiments.core import reading, records


def arguments(objects, part):
    (job,) = [each for each in objects if each["kind"] == "Job" and each["metadata"]["name"].endswith(f"-{part}")]
    return job["spec"]["template"]["spec"]["containers"][0]["args"], job["spec"]["parallelism"]


@pytest.fixture
def rendered(load, port):
    """The arguments of a part, with this machine's places for those of a pod; and how many there are of it."""

    def of(server, part, **form):
        path = load.experiment(arrivals="90/s", warmup="1s")[1]
        experiment = reading.load(path).experiment
        bodies = {file.name: file.read_bytes() for file in load.folder.glob("*.json")}
        objects = load_manifests(experiment, LoadForm("image", host=server.url, payloads=bodies, **form))
        given, number = arguments(objects, part)
        places = {
            "/experiment/experiment.json": path, "/payloads": str(load.folder), "/runs": str(load.runs),
            f"{experiment.name}-master": "127.0.0.1", "5557": port,
        }  # fmt: skip
        given = [places.get(each, each) for each in given]
        if part == "master":  # in a pod of its own it may have any address and Locust's own port
            given += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port]
        return given, number

    return of


@pytest.mark.slow
def test_the_rendered_master_and_workers_make_one_whole_run(server, load, rendered):
    started = server()
    given, number = rendered(started, "worker")
    assert number == 3
    # Kubernetes starts them in any order: workers look for their master until it is there.
    workers = [load.start(*given) for _each in range(number)]
    master_given, one = rendered(started, "master")
    assert one == 1
    # The phase of this experiment lasts half a minute; the load of a test need not.
    at = master_given.index("--run-time") + 1
    assert master_given[at] == "31s"
    master_given[at] = "5s"
    ended = load.end(load.start(*master_given), patience=90)
    assert ended.code == 0, ended.text
    assert [load.end(each).code for each in workers] == [0] * 3
    shards = load.shards()
    assert sorted(shard.header.worker for shard in shards) == [0, 1, 2]
    assert all(shard.complete for shard in shards)
    numbers = sorted(row.sequence for row in load.rows())
    assert len(numbers) > 300
    assert numbers == list(range(len(numbers)))
    assert {row.request_id for row in load.rows()} == {seen.request_id for seen in started.requests()}
    info = records.read_info(load.run())
    assert (info.ended.how, len(info.load_processes)) == ("completed", 3)
    checks = {check.name: check for check in judge(load.run()).checks}
    assert checks["records complete"].ok
    assert checks["records reconciled"].ok


def test_the_name_of_the_host_is_looked_up_once_for_a_whole_load(server, load):
    # A name that only this process knows, and a count of who asks for it; a server that says of each
    # answer that it is its connection's last, so that nothing is sent on one that is about to be closed.
    started, site, asked = server(behaviour="last"), load.folder / "site", load.folder / "asked"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os\nfrom gevent import socket\nreal = socket.getaddrinfo\n"
        "def counted(host, *rest, **more):\n"
        "    if host in ('models.test', b'models.test'):\n"
        f"        with open({str(asked)!r}, 'a') as file:\n            file.write('x')\n"
        "        host = '127.0.0.1'\n"
        "    return real(host, *rest, **more)\n"
        "socket.getaddrinfo = counted\n"
    )
    port = started.url.rpartition(":")[2]
    child = load.start(
        "--headless", "--only-summary", "--host", f"http://models.test:{port}", "--run-time", "2s", *load.payloads,
        *load.experiment(arrivals="100/s"), extra={"PYTHONPATH": str(site)},
    )  # fmt: skip
    ended = load.end(child)
    assert ended.code == 0, ended.text
    assert {row.error for row in load.rows()} == {None}
    assert len({seen.connection for seen in started.requests()}) == len(load.rows()) > 100
    # Twice to see whether anybody listens there, as Locust starts and as the test does; then once for all connections.
    assert len(asked.read_text()) <= 3
