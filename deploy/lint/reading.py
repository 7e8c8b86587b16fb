"""Words of the command line → the objects to check: an experiment's own, or those of files."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from deploy.form import Form
from deploy.lint.world import Json
from deploy.manifests import manifests
from experiments.core import reading
from experiments.core.errors import ProvisionError


@dataclass(frozen=True)
class Given:
    """Objects that are there at the same time, and where they come from."""

    where: str
    objects: list[Json]


def read(words: Iterable[str], form: Form) -> list[Given]:
    """All files of manifests together; each phase of each experiment by itself.

    Raises:
        ProvisionError: a file cannot be read, or is neither manifests nor an experiment.
        ExperimentError: an experiment breaks rules.
    """
    together: list[Json] = []
    files: list[str] = []
    found: list[Given] = []
    for word in words:
        documents = _documents(word)
        if documents is None:
            found.extend(_phases(word, form))
        else:
            files.append(word)
            together.extend(documents)
    return [*([Given(", ".join(files), together)] if files else []), *found]


def _phases(word: str, form: Form) -> list[Given]:
    loaded = reading.load(word)
    return [
        Given(f"{loaded.experiment.name}, phase {phase.name}", manifests(loaded, phase, form))
        for phase in loaded.experiment.phases
    ]


def _documents(word: str) -> list[Json] | None:
    """The objects in a file, in a List or one after another; None if it is no file of manifests but an experiment."""
    path = Path(word)
    if word != "-" and not path.is_file():
        return None
    try:
        text = sys.stdin.read() if word == "-" else path.read_text(encoding="utf-8")
        documents = [each for each in YAML(typ="safe").load_all(text) if each]
    except OSError as error:
        raise ProvisionError(f"{word}: cannot be read: {error.strerror}; check the path.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ProvisionError(f"{word}: not readable as YAML: {' '.join(str(error).split())}; mend it.") from error
    if word != "-" and documents and not any(_is_object(each) for each in documents):
        return None
    return [found for each in documents for found in _unpacked(each, word)]


def _is_object(document: Any) -> bool:
    return isinstance(document, dict) and "kind" in document and "apiVersion" in document


def _unpacked(document: Any, word: str) -> list[Json]:
    """The items of a List, as `kubectl get -o yaml` prints them, or the one object."""
    if not _is_object(document):
        raise ProvisionError(f"{word}: holds a document without apiVersion and kind; remove it, or mend it.")
    items = document.get("items") if str(document["kind"]).endswith("List") else None
    return [document] if items is None else [found for each in items for found in _unpacked(each, word)]
