"""What the documents say is what the code does: references are current, examples run."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from analysis.judge import examine
from analysis.render.tallies import render_parquet
from tests.analysis.synthetic import write_run

ROOT = Path(__file__).resolve().parent.parent.parent


def blocks(path, language):
    """The code blocks of a document."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_reference_is_current():
    done = subprocess.run(
        [sys.executable, "docs/reference/generate.py", "--check"],
        cwd=ROOT, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    examined = examine(write_run(tmp_path))
    (tmp_path / "tally.parquet").write_bytes(render_parquet(examined))
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("docs/notebook.md", "python")
    exec(compile(code, "notebook", "exec"), {})  # noqa: S102 - our own document
    out = capsys.readouterr().out
    share = next(row for row in examined.report.shares if (row.phase, row.arm) == ("split", "new"))
    assert f"{share.share.estimate:.3f}" in out


def test_ci_files_are_yaml_and_name_what_is_there():
    yaml = YAML(typ="safe")
    for name in ("action.yml", "docs/ci/gitlab-ci.yml", "docs/ci/argo-rollouts.yaml", "docs/ci/flagger.yaml"):
        assert list(yaml.load_all((ROOT / name).read_text()))
        for script in re.findall(r"docs/ci/\w+\.\w+", (ROOT / name).read_text()):
            assert (ROOT / script).exists()


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("action.yml", "github-actions"),
        ("docs/ci/gitlab-ci.yml", "gitlab-ci"),
        (".github/workflows/kind.yml", "github-workflows"),
    ],
)
def test_ci_files_are_valid_by_the_published_schemas(name, schema, tmp_path):
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*checker, ROOT / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "broken.yml"
    broken.write_text(
        (ROOT / name)
        .read_text()
        .replace("\n    - uses:", "\n    - run: 1\n      uses:")
        .replace("script:", "scripts:")
        .replace("runs-on:", "run-on:")
    )
    assert subprocess.run([*checker, broken], capture_output=True, check=False).returncode == 1


def test_a_workflow_that_uses_the_action_passes_actionlint(tmp_path):
    program = shutil.which("actionlint") or pytest.skip("actionlint is not on the PATH")
    (workflow,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/ci/README.md").read_text(), re.DOTALL)
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "canary.yml").write_text(re.sub(r"OWNER/splitproof@main.*", "./", workflow))
    shutil.copy(ROOT / "action.yml", tmp_path)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)  # noqa: S607 - actionlint looks for a repository
    done = subprocess.run([program, "-no-color"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def step(name):
    steps = YAML(typ="safe").load((ROOT / "action.yml").read_text())["runs"]["steps"]
    return next(one["run"] for one in steps if one.get("name") == name)


@pytest.mark.parametrize(
    ("verdict", "fail_on", "code"),
    [
        ("promote", "roll back,invalid", 0),
        ("hold", "roll back,invalid", 0),
        ("roll back", "roll back,invalid", 1),
        ("invalid", "roll back,invalid", 1),
        ("hold", "hold", 1),
        ("", "roll back,invalid", 1),
    ],
)
def test_the_action_fails_for_the_verdicts_that_were_named(verdict, fail_on, code):
    variables = {**os.environ, "VERDICT": verdict, "FAIL_ON": fail_on}
    bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step("Say the verdict")]  # as Actions starts it
    assert subprocess.run(bash, env=variables, capture_output=True, check=False).returncode == code


@pytest.fixture
def github():
    """GitHub's part, played: a real HTTP server with the three calls of its documented API that keep comments."""
    comments = []

    class Api(BaseHTTPRequestHandler):
        def reply(self, value):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        def body(self):
            return json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]

        def do_GET(self):
            page = int(self.path.rpartition("=")[2])
            self.reply(comments[100 * (page - 1) : 100 * page])

        def do_POST(self):
            if self.headers["Authorization"] == "Bearer of-a-fork":
                self.send_error(403)
                return
            comments.append({"id": len(comments) + 1, "body": self.body()})
            self.reply(comments[-1])

        def do_PATCH(self):
            comments[int(self.path.rpartition("/")[2]) - 1]["body"] = self.body()
            self.reply({})

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", comments
    server.shutdown()
    server.server_close()


def test_a_pull_request_has_one_comment_that_is_kept_up_to_date(github, tmp_path):
    address, comments = github
    comments += [{"id": number + 1, "body": "somebody's"} for number in range(130)]
    for text in ("first", "second"):
        (tmp_path / "report.md").write_text(text)
        variables = {
            "GITHUB_API_URL": address, "GITHUB_TOKEN": "t", "GITHUB_REPOSITORY": "o/r", "PULL_REQUEST": "7",
            "REPORT": str(tmp_path / "report.md"),
        }  # fmt: skip
        subprocess.run([sys.executable, ROOT / "docs/ci/comment.py"], env={**os.environ, **variables}, check=True)
    assert [comment["body"].splitlines()[1] for comment in comments[130:]] == ["second"]


@pytest.mark.parametrize(("changed", "bodies", "said"), [
    ({"NAME": "other"}, ["mine", "mine"], ""),
    ({"GITHUB_TOKEN": "of-a-fork"}, ["mine"], "::notice::No comment"),
])  # fmt: skip
def test_each_experiment_has_its_comment_and_a_fork_has_none(github, tmp_path, changed, bodies, said):
    address, comments = github
    (tmp_path / "report.md").write_text("mine")
    comments.append({"id": 1, "body": "<!-- splitproof report -->\nmine"})
    variables = {
        "GITHUB_API_URL": address, "GITHUB_TOKEN": "t", "GITHUB_REPOSITORY": "o/r", "PULL_REQUEST": "7",
        "REPORT": str(tmp_path / "report.md"), "NAME": "third", **changed,
    }  # fmt: skip
    command = [sys.executable, ROOT / "docs/ci/comment.py"]
    done = subprocess.run(command, env={**os.environ, **variables}, check=True, capture_output=True, text=True)
    assert [comment["body"].splitlines()[1] for comment in comments] == bodies
    assert done.stdout.startswith(said)
