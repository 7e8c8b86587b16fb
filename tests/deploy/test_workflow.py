"""What of the kind workflow and of the Containerfile can be checked without GitHub and without a container runtime."""

import re
import shlex
import shutil
import subprocess
import tomllib

import click
import pytest
from ruamel.yaml import YAML

from deploy.__main__ import deploy
from deploy.locust_manifests import LoadForm, load_manifests
from experiments.__main__ import experiments
from experiments.core import reading
from experiments.core.home import CHECKOUT

WORKFLOW = CHECKOUT / ".github" / "workflows" / "kind.yml"


def steps():
    job = YAML(typ="safe").load(WORKFLOW.read_text())["jobs"]["kind"]
    return {step["name"]: step["run"] for step in job["steps"] if "run" in step}


def test_the_workflow_is_one_by_actionlint():
    program = shutil.which("actionlint") or pytest.skip("actionlint is not on the PATH")
    done = subprocess.run([program, "-no-color", str(WORKFLOW)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", steps())
def test_every_shell_step_passes_shellcheck(name):
    """By bash's own reader where there is no shellcheck."""
    program = shutil.which("shellcheck")
    command = [program, "--shell=bash", "--severity=style", "-"] if program else ["bash", "-n"]
    done = subprocess.run(command, input=steps()[name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def commands(text, package):
    """Each `python -m PACKAGE COMMAND …` of a text, as words."""
    for line in text.replace("\\\n", " ").splitlines():
        found = re.search(rf"python -m {package} (.*?)(?: [|>#]|$)", line.strip())
        if found:
            yield shlex.split(found[1].rstrip("`"))


@pytest.mark.parametrize(("package", "group"), [("deploy", deploy), ("experiments", experiments)])
def test_every_command_of_ours_accepts_the_options_that_are_written_there(package, group):
    """Those of the documents: tests/test_documents.py."""
    found = list(commands(WORKFLOW.read_text(), package))
    assert found
    for name, *words in found:
        command = group.commands[name]
        with click.Context(command, info_name=name) as context:
            command.make_parser(context).parse_args(words)


def test_the_workflow_does_what_our_own_commands_do_on_a_cluster():
    text = "\n".join(steps().values())
    said = [name for name, *words in commands(text, "deploy") if "digits" in words]
    assert {"lint", "render", "up", "route", "status", "down"} <= set(said)
    assert "run" in [name for name, *_ in commands(text, "experiments")]


def test_the_container_is_the_one_that_the_jobs_ask_for():
    text = (CHECKOUT / "Containerfile").read_text()
    loaded = reading.load("digits")
    objects = load_manifests(loaded.experiment, LoadForm("image", payloads={"a.json": b"{}"}))
    pods = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == "Job"]
    for pod in pods:
        user = pod["securityContext"]["runAsUser"]
        assert f"USER {user}:{user}" in text
        (container,) = pod["containers"]
        program = container["command"][-1].removeprefix("/splitproof/")
        assert (CHECKOUT / program).is_file()
        assert "COPY . /splitproof" in text
        assert f"WORKDIR {container['workingDir']}" in text


def test_the_container_installs_neither_tensorflow_nor_scipy():
    """`-e /splitproof` without an extra: the base dependencies alone."""
    assert re.search(r"-e /splitproof(?!\[)", (CHECKOUT / "Containerfile").read_text())
    base = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not [each for each in base if re.match("tensorflow|scipy|pandas|ibis", each)]
