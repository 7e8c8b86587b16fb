"""What a report on a million rows takes, from the start of the process to its exit, with every format written.

    python benchmarks/statistics/million_rows.py FOLDER [ROWS]

What is written into FOLDER is kept, and measured again the next time: writing takes longer than all that is measured.
The rows are written by the project's own shard writer for an experiment of two arms at 14,000 requests a second; the
same requests are then a table of another tool's (CSV and Parquet). The peer is what a notebook would do instead: the
standard library's JSON and pandas, for two quantiles of each arm. Times are wall clock, the better of two.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.analysis.synthetic import Layout, Truth, experiment, write_run  # noqa: E402 - after the path to it

SECONDS = 70
LIMIT_S = 5.0
VERDICTS = (0, 1, 3, 4)
FORMATS = {
    "json": "r.json",
    "markdown": "r.md",
    "html": "r.html",
    "junit": "r.xml",
    "csv": "r.csv",
    "parquet": "r.parquet",
}
MAPPING = "time: {column: start_us, unit: us}\nlatency: {column: latency_us, unit: us}\nstatus: status\narm: arm\n"
NOTEBOOK = """
import json, sys
import pandas as pd
rows = [json.loads(line) for line in open(sys.argv[1]) if line.startswith("[")]
table = pd.DataFrame(rows)
print(table.groupby(10)[6].quantile([0.5, 0.95]))
"""


def timed(command: Sequence[str], allowed: Sequence[int]) -> float:
    """Seconds of a process."""
    began = time.perf_counter()
    code = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL).returncode
    took = time.perf_counter() - began
    if code not in allowed:
        raise SystemExit(f"{command}: exit code {code}")
    return took


def report(run: Path, folder: Path, extra: Sequence[str] = ()) -> float:
    """Seconds of a report in all formats, nothing kept from an earlier one; the better of two."""
    forms = [word for form, name in FORMATS.items() for word in (f"--{form}", str(folder / name))]
    took = []
    for _ in range(2):
        if run.is_dir():
            (run / "requests.parquet").unlink(missing_ok=True)
        took.append(timed([sys.executable, "-m", "analysis", "report", str(run), *forms, *extra], VERDICTS))
    return min(took)


def tables(run: Path, folder: Path) -> None:
    """The requests of a run as another tool would have written them."""
    rows = [
        json.loads(line)
        for shard in sorted(run.glob("requests-*.jsonl"))
        for line in shard.read_text().splitlines()
        if line.startswith("[")
    ]
    table = pd.DataFrame(rows)[[5, 6, 7, 10]].set_axis(["start_us", "latency_us", "status", "arm"], axis=1)
    table["arm"] = table["arm"].str.partition("/")[2]
    table.to_csv(folder / "table.csv", index=False)
    table.to_parquet(folder / "table.parquet", index=False)


def written(folder: Path, rows: int) -> Path:
    """The run directory in a folder, made where it is not there yet, with its tables."""
    run = folder / "run"
    if not run.is_dir():
        chosen = experiment(load={"arrivals": rows / SECONDS, "warmup": 5.0})
        truth = Truth(failing={"old": 0.003, "new": 0.004}, unheard=0.001)
        write_run(folder, chosen, truth, Layout(workers=1))
    if not (folder / "table.parquet").is_file():
        tables(run, folder)
    return run


def main(folder: Path, rows: int) -> None:
    """One run, its tables, and the peer."""
    run = written(folder, rows)
    (shard,) = run.glob("requests-*.jsonl")
    mapping = folder / "own.yaml"
    mapping.write_text(MAPPING)
    stated = ["--mapping", str(mapping), "--expect", "old=70%,new=30%"]
    notebook = min(timed([sys.executable, "-c", NOTEBOOK, str(shard)], (0,)) for _ in range(2))
    whole = report(run, folder)
    size = (folder / FORMATS["html"]).stat().st_size
    lines = {
        "notebook: json and pandas, two quantiles of each arm": notebook,
        f"report of {rows:,} rows, all formats": whole,
        "the same again, rows kept as Parquet": timed([sys.executable, "-m", "analysis", "report", str(run)], VERDICTS),
    }
    for table in (folder / "table.csv", folder / "table.parquet"):
        lines[f"a table of another tool's, {table.suffix[1:]}, all formats"] = report(table, folder, stated)
    print("| what | seconds | of the notebook's |\n|---|---|---|")
    for name, took in lines.items():
        print(f"| {name} | {took:.2f} | {took / notebook:.2f} |")
    kept = "kept" if whole <= LIMIT_S else "BROKEN"
    print(f"\nHTML: {size / 1e6:.2f} MB. At most {LIMIT_S:g} s are allowed: {kept}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
