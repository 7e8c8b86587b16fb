"""Read an experiment file, or say everything that is wrong with it, each with its line, rule and remedy."""

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import xxhash
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from experiments.core.errors import ExperimentError
from experiments.core.quantities import DURATION
from experiments.core.semantics import Problem, semantic_problems
from experiments.core.spec import Experiment

CATALOGUE = Path(__file__).resolve().parent.parent
"""Where the experiments that we ship lie."""

_MAX_VALUES = 100_000
"""An experiment has some hundred values; aliases let a small file stand for thousands of millions."""


@dataclass(frozen=True)
class Loaded:
    """An experiment and the folder that its relative paths start from."""

    experiment: Experiment
    folder: Path
    path: Path


def catalogue() -> list[Path]:
    """The experiment files that we ship, by name."""
    return sorted(CATALOGUE.glob("*.yaml"))


def find(name_or_file: str) -> Path:
    """The path of an experiment: a file, or the name of one in the catalogue.

    Raises:
        ExperimentError: there is neither; the message lists what there is.
    """
    as_file = Path(name_or_file)
    if as_file.is_file():
        return as_file.resolve()
    if as_file.is_dir():
        raise ExperimentError(f"{name_or_file}: is a folder; must be an experiment file; name the .yaml file in it.")
    shipped = {path.stem: path for path in catalogue()}
    if name_or_file in shipped:
        return shipped[name_or_file]
    close = difflib.get_close_matches(name_or_file, list(shipped), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ExperimentError(
        f"{name_or_file}: no such experiment file, and no such name in the catalogue; {hint}"
        f"there are: {', '.join(shipped) or 'none'}. Name one of these, or a .yaml file."
    )


def load(name_or_file: str, changes: Sequence[str] = ()) -> Loaded:
    """The experiment of a file or a catalogue name.

    Args:
        name_or_file: Which one.
        changes: Values to put in the place of the file's, as `load.arrivals=5/s` or `phases.1.for=20s`.

    Raises:
        ExperimentError: it cannot be read or breaks rules; the message has a `FILE:LINE:` line for every mistake.
    """
    path = find(name_or_file)
    raw = _parse(path)
    if isinstance(raw, dict):
        raw.setdefault("name", path.stem.lower().replace("_", "-"))
    for change in changes:
        _change(raw, change)
    # A .json file is a run's own copy: its quantities stand in base units.
    return Loaded(_validated(raw, str(path), from_file=path.suffix != ".json"), path.parent, path)


def from_mapping(raw: Mapping[str, Any], where: str) -> Experiment:
    """The experiment of decoded JSON, such as `run.json` holds.

    Raises:
        ExperimentError: it breaks rules; `where` says in which file.
    """
    return _validated(raw, where, from_file=False)


def parse(path: Path) -> Any:
    """A YAML file as values that know their lines, for `refusal`.

    Raises:
        ExperimentError: it cannot be read.
    """
    return _parse(path)


def refusal(error: ValidationError, raw: Any, where: str) -> ExperimentError:
    """What pydantic found wrong with the values of `parse`, a line for each mistake."""
    problems = [Problem(tuple(detail["loc"]), _rule(detail)) for detail in error.errors()]
    return ExperimentError("\n".join(_lines(problems, raw, where)))


def _rule(detail: ErrorDetails) -> str:
    return "unknown key; leave it out." if detail["type"] == "extra_forbidden" else _explain(detail)


def to_mapping(experiment: Experiment) -> dict[str, Any]:
    """The experiment as JSON-ready values in base units; `from_mapping` reads it back to an equal one."""
    dumped: dict[str, Any] = experiment.model_dump(mode="json", by_alias=True)
    return dumped


def experiment_hash(experiment: Experiment) -> str:
    """A hash of all that an experiment says, the same on every machine (xxh3-128, hexadecimal).

    The order of keys says nothing, but for that of the arms: the first is the baseline.
    """
    said = to_mapping(experiment)
    said["arms"] = list(said["arms"].items())
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode(said, order="deterministic"))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of an experiment file."""
    schema = Experiment.model_json_schema(by_alias=True, mode="validation")
    _allow_short_forms(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _allow_short_forms(schema: dict[str, Any]) -> None:
    """Let editors accept the short forms that the validators turn into the long ones."""
    definitions = schema["$defs"]
    text: dict[str, Any] = {"type": "string"}
    weights = {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}}
    rules = {"type": "array", "items": {"$ref": "#/$defs/Rule"}}
    definitions["Route"] = {"anyOf": [text, rules, definitions["Route"], weights]}
    definitions["TextMatch"] = {"anyOf": [text, definitions["TextMatch"]]}
    definitions["LatencyClaim"] = {"anyOf": [text, definitions["LatencyClaim"]]}
    _allow_short_loads(definitions, text)
    headers = {"type": "object", "additionalProperties": {"$ref": "#/$defs/TextMatch"}}
    rule = definitions["Rule"]["properties"]
    rule["to"] = {"anyOf": [text, weights]}
    rule["when"] = {"anyOf": [headers, {"$ref": "#/$defs/When"}, rule["when"]]}


def _allow_short_loads(definitions: dict[str, Any], text: dict[str, Any]) -> None:
    """A list of steps is a load, and one step may stand among a load's settings."""
    steps = {"type": "array", "items": {"$ref": "#/$defs/Step"}, "minItems": 1}
    settings = definitions["Load"]["properties"]
    settings["arrivals"] = {**definitions["Step"]["properties"]["arrivals"], "default": "8/s"}
    settings["for"] = {**text, "pattern": DURATION}
    definitions["Load"] = {"anyOf": [steps, definitions["Load"]]}


def _change(raw: Any, change: str) -> None:
    """Put one `dotted.key=value` into raw values; the value is read as YAML."""
    dotted, equals, text = change.partition("=")
    steps = [int(step) if step.isdigit() else step for step in dotted.split(".")]
    if not equals or "" in steps:
        raise ExperimentError(f"--set {change}: must be KEY=VALUE, such as load.arrivals=5/s; write it so.")
    try:
        value = YAML(typ="safe").load(text)
        for step in steps[:-1]:
            raw = raw.setdefault(step, {}) if isinstance(raw, dict) else raw[step]
        raw[steps[-1]] = value
    except (YAMLError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ExperimentError(
            f"--set {change}: there is no such place in the experiment file; check the key."
        ) from error


def _parse(path: Path) -> Any:
    """The file as ruamel's round-trip values, which know their lines."""
    try:
        parsed = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ExperimentError(f"{path}:1: is nested too deeply to be an experiment; unfold it.") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = " ".join(str(error.problem).split())
        raise ExperimentError(f"{path}:{line}: not readable as YAML: {problem}; mend the YAML there.") from error
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path}:1: is not UTF-8 text ({error.reason}); save it as UTF-8.") from error
    except YAMLError as error:
        raise ExperimentError(
            f"{path}:1: not readable as YAML: {' '.join(str(error).split())}; mend the YAML there."
        ) from error
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {error.strerror}; check the path and permissions.") from error
    _refuse_monstrous(parsed, path)
    return parsed


def _refuse_monstrous(parsed: Any, path: Path) -> None:
    """Raise where aliases unfold without end, before anything tries to walk through or print it all."""
    level, count = [parsed], 0
    while level:
        count += len(level)
        if count > _MAX_VALUES:
            raise ExperimentError(
                f"{path}:1: unfolds to more than {_MAX_VALUES:,} values, an experiment has hundreds; drop the aliases."
            )
        level = [value for each in level if isinstance(each, (Mapping, list)) for value in _values(each)]


def _values(container: Any) -> Sequence[Any]:
    return list(container.values()) if isinstance(container, Mapping) else container


def _validated(raw: Any, where: str, *, from_file: bool) -> Experiment:
    if raw is None:
        raise ExperimentError(f"{where}:1: is empty; must have arms, payloads and phases; see experiments/digits.yaml.")
    if not isinstance(raw, Mapping):
        raise ExperimentError(f"{where}:1: an experiment is a mapping with arms, payloads and phases; this is not one.")
    problems = list(semantic_problems(raw))
    try:
        experiment = Experiment.model_validate(raw, context={"file": from_file})
    except ValidationError as error:
        problems = [*_schema_problems(error), *problems]
    if problems:
        raise ExperimentError("\n".join(_lines(problems, raw, where)))
    return experiment


def _lines(problems: Sequence[Problem], raw: Any, where: str) -> list[str]:
    """One line for every problem, in file order, none twice."""
    placed = {(_line_of(raw, problem.loc), f"{_dotted(problem.loc)}: {problem.text}") for problem in problems}
    return [f"{where}:{line}: {text}" for line, text in sorted(placed)]


def _schema_problems(error: ValidationError) -> Iterator[Problem]:
    for detail in error.errors():
        if detail["type"] == "too_short" and detail["input"]:
            continue  # nothing is missing: pydantic counts only the elements that were valid
        yield Problem(tuple(detail["loc"]), _explain(detail))


def _explain(detail: ErrorDetails) -> str:
    """What is wrong, the rule, and what to do."""
    if detail["type"] == "extra_forbidden":
        return _unknown_key(detail["loc"])
    if detail["type"] == "missing":
        return "is missing; add it."
    message = detail["msg"].removeprefix("Value error, ")
    shown = repr(detail["input"])
    value = shown if len(shown) <= 60 else shown[:57] + "..."  # noqa: PLR2004 - a line that a terminal can show
    return f"{message}; mend it." if detail["type"] == "quantity" else f"{value}: {message}; mend it."


def _unknown_key(loc: tuple[int | str, ...]) -> str:
    known = _known_keys(loc[:-1])
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}."
    return f"unknown key; {hint}"


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the model at a place in the file knows."""
    kind: Any = Experiment
    for part in loc:
        kind = _step(kind, part)
    model = _model_in(kind)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _step(kind: Any, part: int | str) -> Any:
    """The type found one step further down; an element's type inside a container, else a field's."""
    model = _model_in(kind)
    if model is not None:
        fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        # pydantic names the member of a union in the path: that step leads nowhere new.
        return fields.get(str(part), kind)
    arguments = [argument for argument in typing.get_args(kind) if argument is not Ellipsis]
    return arguments[-1] if arguments else kind


def _model_in(kind: Any) -> type[BaseModel] | None:
    """The model that a type is, looking through Annotated and unions, but not into containers."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    if typing.get_origin(kind) in (typing.Annotated, typing.Union, types.UnionType):
        return next(filter(None, map(_model_in, typing.get_args(kind))), None)
    return None


def _line_of(raw: Any, loc: tuple[int | str, ...]) -> int:
    """The 1-based line of the deepest part of a path that the file has."""
    line = 1
    for part in loc:
        position = getattr(raw, "lc", None)
        if isinstance(raw, Mapping) and part in raw:
            # A value that was put in the file's place, or added to it, has no line there.
            line = position.key(part)[0] + 1 if position and part in position.data else line
        elif isinstance(raw, Sequence) and not isinstance(raw, str) and isinstance(part, int) and part < len(raw):
            line = position.item(part)[0] + 1 if position and part in position.data else line
        else:
            continue  # a step of pydantic's own, such as the canonical form's `rules`
        raw = raw[part]
    return line


def _dotted(loc: tuple[int | str, ...]) -> str:
    """The path as its writer knows it: pydantic names the member of a union by its type, as `tuple[str, ...]`."""
    return ".".join(str(part) for part in loc if not str(part).startswith("tuple[")) or "experiment"
