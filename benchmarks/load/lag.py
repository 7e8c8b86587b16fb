"""How late do requests start, against the schedule, while the load process uses about half of a core?

    python benchmarks/load/lag.py [RATE]

100 KB requests, 20 KB answers; the load process has core 0, nginx core 1. The first two seconds do not
count.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from place import Load, answer_body, nginx, request_body

from experiments.core import records

PORT, SECONDS = 18083, 22


def main(rate: int) -> None:
    """Both patterns."""
    print("| pattern | rate | CPU of one core | requests | lag p50 ms | p90 | p99 | p99.9 |\n" + 8 * "|---" + "|")
    with tempfile.TemporaryDirectory() as name, nginx(Path(name), PORT, answer_body(20_000), core=1) as url:
        os.sched_setaffinity(0, {0})
        for pattern in ("constant", "poisson"):
            load = Load(Path(name) / pattern)
            load.folder.mkdir()
            settings = f"{{arrivals: {rate}/s, pattern: {pattern}, warmup: 0s, slots: 200}}"
            load.start(url, settings, {"one": request_body(100_000)}, "--run-time", f"{SECONDS}s").wait()
            (path,) = load.runs()[0].shards()
            print(line(pattern, rate, records.read_shard(path)))


def line(pattern: str, rate: int, shard: records.Shard) -> str:
    """A row of the table, without the first two seconds."""
    since = (shard.header.origin_us or 0) + 2_000_000
    lags = np.array([row.start_us - (row.intended_us or 0) for row in shard.rows if row.start_us >= since]) / 1000
    cpu = np.median([beat.cpu for beat in shard.beats[2:]])
    cells = " | ".join(f"{np.quantile(lags, q):.2f}" for q in (0.5, 0.9, 0.99, 0.999))
    return f"| {pattern} | {rate}/s | {cpu:.2f} | {lags.size} | {cells} |"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
