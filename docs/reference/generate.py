"""Write docs/reference and the JSON Schemas of reports from the code. `--check` only compares."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from analysis import look, trend
from analysis.__main__ import analysis
from analysis.render import json_report
from deploy.__main__ import deploy
from deploy.lint.checking import CODES, check
from deploy.lint.examples import EXAMPLES
from experiments.__main__ import experiments
from experiments.core import reading
from experiments.core.errors import Exit
from loadgen.__main__ import loadgen

HERE = Path(__file__).resolve().parent
SCHEMAS = HERE.parents[1] / "analysis"
NOTICE = "<!-- Written by docs/reference/generate.py; do not edit. -->\n\n"
MEANINGS = {
    Exit.PROMOTE: "promote; of other commands: success",
    Exit.ROLL_BACK: "roll back; of `selftest`: a sabotage was missed; of `deploy lint`: an error was found",
    Exit.USAGE: "wrong usage, or input that cannot be read",
    Exit.HOLD: "hold",
    Exit.INVALID: "invalid",
    Exit.UNEXPECTED: "an unexpected error of ours",
}


def pages() -> dict[str, str]:
    """Every page of the reference by its file name."""
    return {
        "commands.md": NOTICE + "".join(_commands()),
        "experiment.md": NOTICE + "# The experiment file\n\n" + _schema(reading.json_schema(), "Experiment"),
        "report.md": NOTICE + "".join(_json_forms()),
        "lint.md": NOTICE + "".join(_lint()),
        "exit-codes.md": NOTICE + "".join(_exit_codes()),
    }


def schemas() -> dict[str, str]:
    """The JSON Schema of everything that is written as JSON for others to read, by its file name."""
    made = {
        "report.schema.json": json_report.json_schema(),
        "look.schema.json": look.json_schema(),
        "comparison.schema.json": trend.json_schema(),
    }
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) for name, schema in made.items()}


_PROMISE = (
    "Its JSON Schema is `analysis/report.schema.json`. Within a `schema_version` no key goes away and none changes its "
    "type; new ones may come, and none of them is needed.\n\n"
)


def _json_forms() -> Iterator[str]:
    """What `report --json`, `watch --json` and the comparison of runs say; what they share is told once."""
    report, seen = json_report.json_schema(), look.json_schema()
    yield f"# report.json\n\n{_PROMISE}{_schema(report, 'Report')}"
    yield "# A line of `watch --json`\n\nIts JSON Schema is `analysis/look.schema.json`; `Report` is the one above.\n\n"
    own = {name: one for name, one in seen["$defs"].items() if name not in report["$defs"]}
    yield _schema({**seen, "$defs": own}, "Look")
    yield "# Several runs: `report RUN1 RUN2 --json`\n\nIts JSON Schema is `analysis/comparison.schema.json`.\n\n"
    yield _schema(trend.json_schema(), "Comparison")


def _commands() -> Iterator[str]:
    yield "# Commands\n\n"
    for name, group in (("experiments", experiments), ("deploy", deploy), ("loadgen", loadgen), ("analysis", analysis)):
        for command in sorted(group.commands.values(), key=lambda one: str(one.name)):
            program = f"python -m {name} {command.name}"
            context = click.Context(command, info_name=program, terminal_width=100)
            yield f"## `{program}`\n\n```text\n{command.get_help(context)}\n```\n\n"


def _schema(schema: Mapping[str, Any], title: str) -> str:
    definitions = dict(schema.get("$defs", {}))
    root = {key: value for key, value in schema.items() if key != "$defs"}
    named = {title: root, **definitions} if "properties" in root else definitions
    return "".join(_object(name, one) for name, one in named.items() if "properties" in one)


def _object(name: str, schema: Mapping[str, Any]) -> str:
    rows = [
        f"| `{key}` | {_kind(value)} | {'yes' if key in schema.get('required', []) else ''} "
        f"| {_cell(value.get('description', ''))} |\n"
        for key, value in schema["properties"].items()
    ]
    told = _cell(schema.get("description", ""))
    return f"## {name}\n\n{told}\n\n| key | type | needed | meaning |\n|---|---|---|---|\n{''.join(rows)}\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _kind(value: Mapping[str, Any]) -> str:
    if "$ref" in value:
        return str(value["$ref"]).rpartition("/")[2]
    for key in ("anyOf", "oneOf"):
        if key in value:
            return " or ".join(dict.fromkeys(_kind(one) for one in value[key]))
    if "enum" in value or "const" in value:
        return _cell(" or ".join(f"`{json.dumps(one)}`" for one in value.get("enum", [value.get("const")])))
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"{_kind(value['additionalProperties'])} by name"
    if "prefixItems" in value:
        return f"[{', '.join(_kind(one) for one in value['prefixItems'])}]"
    if value.get("type") == "array":
        return f"list of {_kind(value.get('items', {}))}"
    return str(value.get("type", "any"))


def _lint() -> Iterator[str]:
    """What each rule finds, with its own example's words, and what `istioctl analyze` says of the same file."""
    theirs = json.loads((HERE / "istioctl-analyze.json").read_text(encoding="utf-8"))
    yield "# What `deploy lint` finds\n\n"
    yield "Exit code: 0 no error, 1 an error (with `--strict` a warning too), 2 unreadable.\n\n"
    yield "| code | mistake | level | why it bites | fix | `istioctl analyze` |\n|---|---|---|---|---|---|\n"
    for code, meaning in CODES.items():
        finding = check(EXAMPLES[code]()).findings[0]
        said = ", ".join(sorted({each.partition(" ")[0] for each in theirs[code]})) or "nothing"
        cells = (code, _cell(meaning), finding.level, _cell(finding.why), _cell(finding.fix), said)
        yield f"| {' | '.join(cells)} |\n"
    found = sum(bool(each) for each in theirs.values())
    yield (
        f"\nThe last column: `istioctl analyze --use-kube=false -n tf-serving` of Istio 1.31 on the same files "
        "(`deploy/lint/examples.py`; `tests/mesh/analyze.py` writes the column, and a mesh test compares it). It finds "
        f"{found} of {len(theirs)}. With a live cluster it has more to look at (`istioctl analyze -L`), and it checks "
        "much that we do not: run both.\n"
    )


def _exit_codes() -> Iterator[str]:
    yield "# Exit codes\n\nOf `experiments run` and `analysis report`; why: docs/decisions/0006.\n\n"
    yield "| code | meaning |\n|---|---|\n"
    for code in Exit:
        yield f"| {int(code)} | {MEANINGS[code]} |\n"
    yield "| 130, 143 | stopped by Ctrl-C, by SIGTERM |\n"


def main() -> int:
    """Write the pages, or say which are out of date."""
    made = {HERE / name: text for name, text in pages().items()}
    made |= {SCHEMAS / name: text for name, text in schemas().items()}
    stale = [path for path, text in made.items() if not _is(path, text)]
    if "--check" in sys.argv:
        for path in stale:
            place = path.relative_to(SCHEMAS.parent)
            sys.stderr.write(f"{place} is out of date: PYTHONPATH=. python docs/reference/generate.py\n")
        return 2 if stale else 0
    for path, text in made.items():
        path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return 0


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text.rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.exit(main())
