"""Every block of commands in our documents is run, or says why not; and names commands and options that there are."""

import shutil

import click
import pytest

from analysis.__main__ import analysis
from deploy.__main__ import deploy
from experiments.__main__ import experiments
from loadgen.__main__ import loadgen
from tests import documents
from tests.analysis.synthetic import write_run

GROUPS = {"experiments": experiments, "deploy": deploy, "loadgen": loadgen, "analysis": analysis}
PAGES = documents.documents()


def named(path):
    return str(path.relative_to(documents.CHECKOUT))


def which(*, slow):
    wanted = "run: slow" if slow else "run"
    return [path for path in PAGES if any(block.marker == wanted for block in documents.blocks(path))]


@pytest.fixture
def sandbox(tmp_path, models, left_over):
    """A folder like the checkout with three runs in it, and a home of its own; nothing may be left running."""
    folder, home = tmp_path / "checkout", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    (home / "models").symlink_to(models)
    for seed, name in enumerate(("RUN", "RUN1", "RUN2"), 1):
        shutil.move(write_run(tmp_path / f"made-{name}", seed=seed).path, folder / name)
    yield folder, {"SPLITPROOF_HOME": str(home), "SPLITPROOF_RUNS": str(tmp_path / "runs")}
    rest = left_over(home)
    for process in rest:
        process.kill()
    assert rest == []


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_block_is_run_or_says_why_not(path):
    assert [block.name for block in documents.blocks(path) if not block.is_marked] == []


@pytest.mark.parametrize("path", which(slow=False), ids=named)
def test_quick_blocks_run(path, sandbox):
    wrong = documents.run([block for block in documents.blocks(path) if block.runs(slow=False)], *sandbox)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", which(slow=True), ids=named)
def test_all_blocks_run(path, sandbox):
    wrong = documents.run([block for block in documents.blocks(path) if block.runs(slow=True)], *sandbox)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_commands_and_options_are_those_that_there_are(path):
    """In blocks that are not run too, and in the text, synopses in brackets included."""
    for group, name, words in documents.ours(path.read_text(encoding="utf-8")):
        assert name in GROUPS[group].commands, f"python -m {group} {name}"
        command = GROUPS[group].commands[name]
        with click.Context(command, info_name=name) as context:
            command.make_parser(context).parse_args([word.strip("[]") for word in words])


def test_figures_may_differ_and_words_may_not():
    assert documents.says("resnet50 got 71.2% of 90 requests\nmore\nend", "resnet50 got 70% of 80 requests\n...\nend\n")
    assert not documents.says("resnet50 got 71.2% of 90 requests", "resnet50 got 70% of 80 answers\n")
    assert not documents.says("a\nb\n", "a\n")
