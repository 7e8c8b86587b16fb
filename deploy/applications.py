"""The names in `keras.applications`, read without importing Keras: a typing mistake should not cost ten seconds."""

import difflib
import importlib.util
import re
from collections.abc import Collection
from pathlib import Path

from experiments.core.errors import ProvisionError

_EXPORTED = re.compile(r"\bas ([A-Z]\w*)")


def known() -> list[str]:
    """The models that the installed Keras has, by name; empty if that cannot be told from its source."""
    found = importlib.util.find_spec("keras")
    source = Path(found.origin).parent / "applications" / "__init__.py" if found and found.origin else None
    return sorted(set(_EXPORTED.findall(source.read_text()))) if source and source.exists() else []


def refuse_unknown(name: str, names: Collection[str]) -> None:
    """Raise if there is no such model, with the nearest that there is.

    >>> refuse_unknown("ResNet50", ["ResNet50"])

    Raises:
        ProvisionError: the name is not among `names`.
    """
    if name in names:
        return
    by_lower = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[close[0]]!r}? " if close else ""
    raise ProvisionError(f"{name}: no model of keras.applications; {hint}There are: {', '.join(sorted(names))}.")
