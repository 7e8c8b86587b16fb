"""A million requests from one process: does its memory stay flat, and are there as many rows as Locust counted?

    python benchmarks/load/million.py [REQUESTS]

Closed loop, ten users, 1 KB requests and answers; memory is the resident set, read every ten seconds.
"""

import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from place import Load, answer_body, nginx, request_body

from experiments.core import records

PORT = 18085


def resident_mb(pid: int) -> float:
    """The resident set of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def main(requests: int) -> None:
    """One load, watched."""
    with tempfile.TemporaryDirectory() as name, nginx(Path(name), PORT, answer_body(1000)) as url:
        load = Load(Path(name))
        users = ["--users", "10", "--spawn-rate", "10", "--closed-loop"]
        child = load.start(url, "{arrivals: 8/s, warmup: 0s}", {"one": request_body(1000)}, *users)
        while not (load.runs() and load.runs()[0].shards()):
            time.sleep(0.1)
        (path,) = load.runs()[0].shards()
        memory: list[tuple[int, float]] = []
        lines, position, looked = 0, 0, 0.0
        while lines < requests:
            time.sleep(1)
            with path.open("rb") as file:
                file.seek(position)
                while block := file.read(1 << 20):
                    lines += block.count(b"\n")
                position = file.tell()
            if time.monotonic() - looked >= 10:
                looked = time.monotonic()
                memory.append((lines, resident_mb(child.pid)))
        child.send_signal(signal.SIGINT)
        child.wait()
        shard = records.read_shard(path)
        said = re.findall(r"Aggregated +(\d+)", (Path(name) / "locust.log").read_text())
        warm = next(mb for count, mb in memory if count >= requests / 20)
        most = max(mb for count, mb in memory if count >= requests / 20)
        print(f"rows {len(shard.rows)}, trailer {shard.trailer}, Locust's summary {said[0]}, complete {shard.complete}")
        print(f"resident MB: {warm:.1f} after warm-up, at most {most:.1f} later: {most / warm:.3f}x")
        print("requests: MB", *(f"{count}: {mb:.1f}" for count, mb in memory[:: max(len(memory) // 12, 1)]), sep="  ")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
