"""How late do requests start, against the schedule, while the load process uses about half of a core?

    python benchmarks/load/lag.py measure FILE [RATE]     both patterns once; appends JSON lines to FILE
    python benchmarks/load/lag.py table FILE

100 KB requests, 20 KB answers; the load process has core 0, nginx core 1. The first two seconds do not
count.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from place import Load, answer_body, nginx, request_body

from experiments.core import records

PORT, SECONDS = 18083, 14
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def measure(file: Path, rate: int) -> None:
    """Both patterns, one after the other."""
    with tempfile.TemporaryDirectory() as name, nginx(Path(name), PORT, answer_body(20_000), core=1) as url:
        os.sched_setaffinity(0, {0})
        for pattern in ("constant", "poisson"):
            load = Load(Path(name) / pattern)
            load.folder.mkdir()
            settings = f"{{arrivals: {rate}/s, pattern: {pattern}, warmup: 0s, slots: 200}}"
            load.start(url, settings, {"one": request_body(100_000)}, "--run-time", f"{SECONDS}s").wait()
            (path,) = load.runs()[0].shards()
            with file.open("a") as lines:
                lines.write(json.dumps({"pattern": pattern, "rate": rate, **figures(records.read_shard(path))}) + "\n")


def figures(shard: records.Shard) -> dict[str, float]:
    """What one run says, without its first two seconds; lags in milliseconds."""
    since = (shard.header.origin_us or 0) + 2_000_000
    lags = np.array([row.start_us - (row.intended_us or 0) for row in shard.rows if row.start_us >= since]) / 1000
    cpu = float(np.median([beat.cpu for beat in shard.beats[2:]]))
    return {"cpu": cpu, "requests": lags.size, **{name: float(np.quantile(lags, q)) for name, q in QUANTILES.items()}}


def table(file: Path) -> None:
    """Medians over all runs in the file, with the least and the most of p99."""
    runs = [json.loads(text) for text in file.read_text().splitlines()]
    heads = ("pattern", "rate", "runs", "CPU of one core", "requests", *(f"lag {name} ms" for name in QUANTILES))
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for pattern, rate in sorted({(run["pattern"], run["rate"]) for run in runs}):
        own = [run for run in runs if (run["pattern"], run["rate"]) == (pattern, rate)]
        middle = {key: statistics.median(run[key] for run in own) for key in ("cpu", *QUANTILES)}
        worst = [run["p99"] for run in own]
        print(
            f"| {pattern} | {rate}/s | {len(own)} | {middle['cpu']:.2f} | {sum(run['requests'] for run in own)} "
            f"| {middle['p50']:.2f} | {middle['p90']:.2f} | {middle['p99']:.2f} [{min(worst):.2f}–{max(worst):.2f}] "
            f"| {middle['p99.9']:.2f} |"
        )


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "measure":
        measure(where, int(sys.argv[3]) if len(sys.argv) > 3 else 1700)
    else:
        table(where)
