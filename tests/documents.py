"""The code blocks of our documents, whether they are run, and what they must print.

A block of commands (`sh`, `bash`, `console`, `python`) has a comment on the line above it: `<!-- run -->`,
`<!-- run: slow -->`, or `<!-- not run: why -->`. The blocks of a document run one after another in one shell. In a
`console` block lines that begin with `$ ` are commands (`> ` goes on with one), the others are what they print.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.core.home import CHECKOUT

LANGUAGES = ("sh", "bash", "console", "python")
LEFT_OUT = {".git", ".venv", ".splitproof", "runs", "build"}
_BLOCK = re.compile(
    r"(?:^<!-- (?P<marker>[^\n]*?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_MARKER = re.compile(r"run|run: slow|not run: \S.{9,}")
_NUMBER = re.compile(r"[-+]?\d[\d,.]*(e-?\d+)?")


@dataclass(frozen=True)
class Block:
    """One block of a document."""

    path: Path
    line: int
    language: str
    marker: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.path.relative_to(CHECKOUT)}:{self.line}"

    @property
    def is_marked(self) -> bool:
        return _MARKER.fullmatch(self.marker) is not None

    def runs(self, *, slow: bool) -> bool:
        return self.marker == "run" or (slow and self.marker == "run: slow")

    def steps(self) -> Iterator[tuple[str, str | None]]:
        """What to give to bash, and what it must print; None where the block does not say."""
        if self.language == "python":
            yield f"python - <<'END_OF_PYTHON'\n{self.text}END_OF_PYTHON", None
        elif self.language != "console":
            yield f"set -e\n{self.text}set +e", None
        else:
            yield from _sessions(self.text)


def documents() -> list[Path]:
    """README, CONTRIBUTING and everything in docs."""
    return [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]


def blocks(path: Path) -> list[Block]:
    """The blocks of commands of a document, in order."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(path, text.count("\n", 0, found.start("text")), found["language"], found["marker"] or "", found["text"])
        for found in _BLOCK.finditer(text)
        if found["language"] in LANGUAGES
    ]


def _sessions(text: str) -> Iterator[tuple[str, str]]:
    command, told = "", ""
    for line in text.splitlines(keepends=True):
        if line.startswith("$ "):
            if command:
                yield command, told
            command, told = line[2:], ""
        elif line.startswith("> ") and not told:
            command += line[2:]
        else:
            told += line
    yield command, told


def normal(text: str) -> str:
    """Words without figures and without the width of columns: what does not change from run to run.

    >>> normal("resnet50 got  70.4% of 1,171 requests"), normal("3 ms")
    ('resnet# got #% of # requests', '# ms')
    """
    return " ".join(_NUMBER.sub("#", text).split())


def says(printed: str, wanted: str) -> bool:
    """Whether that was printed, apart from figures; `...` stands for anything.

    >>> says("a 1\\nb 2\\nc 3", "a 7\\n...\\nc 8"), says("a 1", "b 1")
    (True, False)
    """
    parts = (re.escape(normal(part)) for part in wanted.split("..."))
    pattern = r".*?".join(rf"\s*{part}\s*" for part in parts)
    return re.fullmatch(pattern, normal(printed), re.DOTALL) is not None


def run(found: list[Block], folder: Path, variables: Mapping[str, str]) -> list[str]:
    """Run blocks in one shell in a folder that looks like the checkout; returns what went wrong."""
    for entry in CHECKOUT.iterdir():
        if entry.name not in LEFT_OUT:
            (folder / entry.name).symlink_to(entry)
    steps = [(block, *step) for block in found for step in block.steps()]
    script = "".join(
        f"echo '@@ {place}'\n{command.rstrip()}\necho \"@@ end $?\"\n" for place, (_, command, _) in enumerate(steps)
    )
    environment = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "100",
        "PYTHONUNBUFFERED": "1", **variables,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-uo", "pipefail"], input=script, cwd=folder, env=environment, stdout=subprocess.PIPE,  # noqa: S607
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return list(_wrong(steps, done.stdout))


def _wrong(steps: list[tuple[Block, str, str | None]], printed: str) -> Iterator[str]:
    for place, (block, command, wanted) in enumerate(steps):
        found = re.search(rf"^@@ {place}\n(.*?)@@ end (\d+)$", printed, re.DOTALL | re.MULTILINE)
        if found is None:
            yield f"{block.name}: never ended: {command}\n{printed[-2000:]}"
            return
        if wanted is None and found[2] != "0":
            yield f"{block.name}: exit code {found[2]}: {command}\n{found[1]}"
        if wanted is not None and not says(found[1], wanted):
            yield f"{block.name}: {command}printed\n{found[1]}\nthe document says\n{wanted}"


def ours(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Each `python -m GROUP COMMAND words…` in a text."""
    for line in text.replace("\\\n", " ").splitlines():
        for found in re.finditer(r"python -m (experiments|deploy|loadgen|analysis) ([a-z]+)([^|`>#;),]*)", line):
            yield found[1], found[2], shlex.split(found[3].strip().rstrip("`"))
