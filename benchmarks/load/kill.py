"""SIGKILL at random moments, `--processes 2`: which finished requests are missing, against nginx's access log?

    python benchmarks/load/kill.py FILE [RUNS] [SEED]      appends a JSON line a run to FILE
    python benchmarks/load/kill.py table FILE

Every other time all three processes are killed at once, else one of the two workers and then, in order, the rest.
nginx writes each request's id when it has answered it; a row that is missing was in flight.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import psutil
from place import Load, answer_body, nginx, request_body

from analysis.judge import judge
from experiments.core import records

PORT, SLOTS = 18084, 40


def one(folder: Path, url: str, log: Path, choose: random.Random, *, everybody: bool) -> dict[str, object]:
    """One load, killed; what is there and what is not."""
    load = Load(folder)
    seen = log.stat().st_size if log.exists() else 0
    settings = f"{{arrivals: 600/s, warmup: 0s, slots: {SLOTS}}}"
    child = load.start(url, settings, {"one": request_body(10_000)}, "--run-time", "60s", "--processes", "2")
    while sum(len(run.shards()) for run in load.runs()) < 2:
        if child.poll() is not None:
            raise SystemExit(f"the load ended before it began; see {load.folder}/locust.log")
        time.sleep(0.05)
    time.sleep(0.8 + choose.uniform(0, 2))
    if everybody:
        os.killpg(child.pid, signal.SIGKILL)
    else:
        workers = psutil.Process(child.pid).children()
        choose.choice(workers).kill()
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
    child.wait()
    time.sleep(0.3)
    (run,) = load.runs()
    shards = [records.read_shard(path) for path in run.shards()]
    rows = [row.request_id for shard in shards for row in shard.rows]
    with log.open() as file:
        file.seek(seen)
        logged = {line.strip() for line in file} - {"-"}
    report = judge(run)
    return {
        "everybody": everybody,
        "rows": len(rows),
        "twice": len(rows) - len(set(rows)),
        "unheard": len(set(rows) - logged),
        "missing": len(logged - set(rows)),
        "torn": sum(shard.torn for shard in shards),
        "in_flight": sum(shard.beats[-1].in_flight if shard.beats else 0 for shard in shards if not shard.complete),
        "lost_at_most": report.records.lost_at_most,
        "incomplete": not report.records.complete,
        "verdict": report.verdict.word,
    }


def main(out: Path, runs: int, seed: int) -> None:
    """Run after run."""
    choose = random.Random(seed)  # noqa: S311 - moments, not secrets
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "access.log"
        with nginx(Path(name), PORT, answer_body(2_000), log=f"{log} ids") as url, out.open("a") as file:
            for number in range(runs):
                folder = Path(name) / str(number)
                folder.mkdir()
                found = one(folder, url, log, choose, everybody=number % 2 == 0)
                print(json.dumps(found), file=file, flush=True)


def table(path: Path) -> None:
    """What came of all runs."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    print(
        "| killed | runs | rows | most missing in one run | runs with more missing than reported (lost_at_most) "
        "| torn rows left out | rows twice | rows unknown to nginx | reported incomplete |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for everybody in (True, False):
        some = [each for each in found if each["everybody"] is everybody]
        worst = max((each["missing"] for each in some), default=0)
        # Runs of an older version of this script did not write down what was reported.
        told = [each["missing"] > each["lost_at_most"] for each in some if "lost_at_most" in each]
        print(
            f"| {'all processes' if everybody else 'one of two workers'} | {len(some)} "
            f"| {sum(each['rows'] for each in some)} | {worst} (of {SLOTS} slots) "
            f"| {sum(told)} of {len(told)} | {sum(each['torn'] for each in some)} "
            f"| {sum(each['twice'] for each in some)} | {sum(each['unheard'] for each in some)} "
            f"| {sum(each['incomplete'] for each in some)} |"
        )


if __name__ == "__main__":
    if sys.argv[1] == "table":
        table(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]), *[int(each) for each in sys.argv[2:]] or (100, 1))
