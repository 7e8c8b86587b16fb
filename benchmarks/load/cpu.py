"""Client CPU per request: ours, which attributes and records, against a bare FastHttpUser and wrk, in the same minutes.

    python benchmarks/load/cpu.py measure FILE [PAIRS] [REQUEST_BYTES] [ANSWER_BYTES]     appends JSON lines to FILE
    python benchmarks/load/cpu.py table FILE

The client has core 0 to itself, nginx core 1; ten connections, kept alive. CPU is what the kernel charges the client
(user and system) between two moments of a steady load; requests are those that nginx counted between them.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from place import Load, answer_body, nginx, request_body

PORT = 18081
USERS = 10
SETTLE_S, MEASURE_S = 1.5, 4.0
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def served(url: str) -> int:
    """Requests that nginx has counted, less our own looks at the counter."""
    served.looks += 1
    text = urllib.request.urlopen(f"{url}/status").read().decode()
    return int(text.split("\n")[2].split()[2]) - served.looks


served.looks = 0


def measured(process: "subprocess.Popen[bytes]", url: str) -> dict[str, float]:
    """Microseconds of CPU a request, and requests a second, once the load is steady."""
    before = served(url)
    while served(url) < before + 200:
        time.sleep(0.05)
        if process.poll() is not None:
            raise SystemExit("the load ended before it began; see its log")
    time.sleep(SETTLE_S)
    cpu, count, start = cpu_seconds(process.pid), served(url), time.monotonic()
    time.sleep(MEASURE_S)
    cpu, count, seconds = cpu_seconds(process.pid) - cpu, served(url) - count, time.monotonic() - start
    process.send_signal(signal.SIGINT)
    process.wait()
    return {"us": cpu / count * 1e6, "rate": count / seconds, "cpu": cpu / seconds}


def ours(folder: Path, url: str, body: bytes) -> "subprocess.Popen[bytes]":
    """Our users in a closed loop: the same number, each with a connection of its own."""
    users = ["--users", str(USERS), "--spawn-rate", str(USERS), "--closed-loop"]
    return Load(folder).start(url, "{arrivals: 8/s, warmup: 0s}", {"one": body}, *users)


def bare(folder: Path, url: str, body: bytes) -> "subprocess.Popen[bytes]":
    """The peer's users."""
    (folder / "body").write_bytes(body)
    with (folder / "bare.log").open("wb") as out:
        return subprocess.Popen(
            [
                sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("bare.py")), "--headless", "--host",
                url, "--users", str(USERS), "--spawn-rate", str(USERS), "--only-summary",
            ],
            env={**os.environ, "BENCH_BODY": str(folder / "body")}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip


def wrk(folder: Path, url: str, body: bytes) -> "subprocess.Popen[bytes]":
    """The same calls by wrk, one thread."""
    (folder / "body").write_bytes(body)
    script = folder / "post.lua"
    script.write_text(
        f'local file = io.open("{folder}/body", "rb")\nwrk.method, wrk.body = "POST", file:read("*a")\n'
        'wrk.headers["content-type"] = "application/json"\n'
    )
    command = ["wrk", "-t1", f"-c{USERS}", "-d60", "-s", str(script), f"{url}/v1/models/m:predict"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


Client = Callable[[Path, str, bytes], "subprocess.Popen[bytes]"]
CLIENTS: dict[str, Client] = {"bare": bare, "ours": ours, "wrk": wrk}


def measure(out: Path, pairs: int, request: int, answer: int) -> None:
    """Rounds of all clients, one after another, the order turned each time."""
    folder = Path(tempfile.mkdtemp(prefix="bench-load-"))
    with nginx(folder, PORT, answer_body(answer), core=1) as url, out.open("a") as file:
        os.sched_setaffinity(0, {0})
        for number in range(pairs):
            names = list(CLIENTS)[number % 3 :] + list(CLIENTS)[: number % 3]
            found = {name: measured(CLIENTS[name](folder, url, request_body(request)), url) for name in names}
            line = json.dumps({"request": request, "answer": answer, **found})
            print(line, file=file, flush=True)
            print(line)


def table(path: Path) -> None:
    """Medians, and the median of the ratios within a round."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    print("| request / answer | rounds | bare µs | ours µs | wrk µs | ours ÷ bare [min–max] | ours ÷ wrk |")
    print("|---|---|---|---|---|---|---|")
    for request, answer in sorted({(line["request"], line["answer"]) for line in lines}, reverse=True):
        rounds = [line for line in lines if (line["request"], line["answer"]) == (request, answer)]
        medians = {name: statistics.median(line[name]["us"] for line in rounds) for name in CLIENTS}
        against = {name: sorted(line["ours"]["us"] / line[name]["us"] for line in rounds) for name in ("bare", "wrk")}
        spread = f"[{against['bare'][0]:.2f}–{against['bare'][-1]:.2f}]"
        print(
            f"| {request // 1000} KB / {answer // 1000} KB | {len(rounds)} | {medians['bare']:.0f} "
            f"| {medians['ours']:.0f} | {medians['wrk']:.0f} | **{statistics.median(against['bare']):.2f}** {spread} "
            f"| {statistics.median(against['wrk']):.1f} |"
        )


if __name__ == "__main__":
    if sys.argv[1] == "table":
        table(Path(sys.argv[2]))
    else:
        given = [int(each) for each in sys.argv[3:]]
        measure(Path(sys.argv[2]), *(given + [4, 100_000, 20_000][len(given) :]))
