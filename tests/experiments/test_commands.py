import json
import os
import subprocess
import sys

import pytest

from experiments.__main__ import SABOTAGES
from experiments.core.home import CHECKOUT
from experiments.sabotage import sabotages


def run(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "experiments", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
        check=False,
    )


def test_list_names_what_can_be_run_from_any_folder(tmp_path):
    done = run("list", cwd=tmp_path)
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["aa", "digits", "lab", "quickstart", "ramp"]


def test_schema_prints_the_committed_schema():
    done = run("schema")
    assert json.loads(done.stdout) == json.loads((CHECKOUT / "experiments" / "experiment.schema.json").read_text())


def test_a_stale_schema_is_refused(tmp_path):
    stale = tmp_path / "old.json"
    stale.write_text("{}")
    done = run("schema", "--check", str(stale))
    assert done.returncode == 2
    assert "is out of date; write it anew" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "quickstrat"], "did you mean 'quickstart'"),
        (["run", "no/such/file.yaml"], "no such experiment file"),
        (["run"], "Missing argument"),
        (["run", "digits", "--target", "moon"], "'moon' is not"),
        (["run", "digits", "--model-claim", "models"], "--model-claim belongs to --target kubernetes"),
        (["run", "digits", "--load", "in-cluster"], "--load in-cluster belongs to --target kubernetes"),
        (["run", "digits", "--workers", "3"], "--workers belongs to --load in-cluster"),
        (["run", "digits", "--target", "kubernetes", "--load", "in-cluster"], "needs --load-image IMAGE"),
        (["run", "digits", "--set", "cohorts.everyone.headers={a: '${NOT_SET}'}"], "the variable NOT_SET is not set"),
        (["run", "digits", "--host-header", "no such name"], "gateway.host"),
        (["run", "digits", "--set", "arms={a: {}, b: {}}"], "must name exactly one of keras, saved_model, digits"),
        (["run", "digits", "--set", "load.arrivals=fast"], "must be a rate such as 8/s"),
        (["run", "digits", "--at-most", "soon"], "must be a duration such as"),
        (["fly"], "No such command"),
        (["selftest", "--only", "nothing"], "must be one of swapped, leak, impostor, slower, failing"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_exit_2(arguments, says):
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_file_shows_every_mistake_and_no_traceback(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("model: m\narms: {a: {keras: X}, b: {keras: Y, seeed: 3}}\nphases: []\n")
    done = run("run", str(bad))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert all(line.startswith(f"{bad}:") for line in lines)
    assert any("did you mean 'seed'" in line for line in lines)
    assert any("payloads: is missing" in line for line in lines)


def test_help_costs_no_heavy_import():
    program = (
        "import sys; from experiments.__main__ import experiments\n"
        "try: experiments(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'tensorflow', 'locust', 'gevent', 'scipy', 'duckdb', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_sabotages_are_named_as_they_are() -> None:
    assert tuple(each.name for each in sabotages("old", "new")) == SABOTAGES
