"""docs/ci/run.sh as GitHub Actions starts it."""

import json
import os
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from experiments.core.home import CHECKOUT


@pytest.mark.slow
def test_a_run_in_ci_leaves_its_report_summary_outputs_and_annotations(place, tmp_path):
    yaml = YAML(typ="safe")
    experiment = yaml.load((CHECKOUT / "experiments" / "digits.yaml").read_text())
    for phase, seconds in zip(experiment["phases"], ("2s", "8s", "2s"), strict=True):
        phase["for"] = seconds
    experiment["load"]["warmup"] = "1s"
    with (tmp_path / "short.yaml").open("w") as file:
        yaml.dump(experiment, file)
    out, summary, outputs = tmp_path / "out", tmp_path / "summary.md", tmp_path / "outputs"
    summary.write_text("before\n")
    variables = {
        **os.environ, "EXPERIMENT": str(tmp_path / "short.yaml"), "PYTHON": sys.executable, "OUT": str(out),
        "SPLITPROOF_HOME": str(place.home), "SPLITPROOF_RUNS": str(place.runs), "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_OUTPUT": str(outputs),
    }  # fmt: skip
    bash = ["bash", "docs/ci/run.sh"]
    done = subprocess.run(bash, cwd=CHECKOUT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    verdict = json.loads((out / "report.json").read_text())["verdict"]
    assert outputs.read_text() == f"verdict={verdict['word']}\nexit-code={verdict['exit_code']}\n"
    assert summary.read_text() == "before\n" + (out / "report.md").read_text()
    assert (out / "annotations.txt").read_text() in done.stdout
    assert {path.name for path in out.iterdir()} == {
        "annotations.txt", "junit.xml", "report.html", "report.json", "report.md", "tally.csv"}  # fmt: skip
