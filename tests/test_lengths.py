"""A function that does not fit on a screen is several: no body is longer than 50 lines, its docstring left out."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("experiments", "deploy", "loadgen", "analysis", "benchmarks", "docs", "tests")
MOST = 50


def bodies(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every function and the lines of its body."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            told = ast.get_docstring(node) is not None and len(node.body) > 1
            yield node.name, node.end_lineno - node.body[told].lineno + 1


def test_no_function_is_longer_than_a_screen():
    long = {
        f"{path.relative_to(ROOT)}:{name}": lines
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for name, lines in bodies(ast.parse(path.read_text(encoding="utf-8")))
        if lines > MOST
    }
    assert not long


def test_a_long_function_is_found():
    source = "def f():\n    '''What it does.'''\n" + "    x = 1\n" * (MOST + 1)
    assert list(bodies(ast.parse(source))) == [("f", MOST + 1)]
