"""What of a manifest is honoured: a field that we would pass over in silence is refused by its path."""

from typing import Any

from experiments.core.errors import StackError

Json = dict[str, Any]


def named(manifest: Json) -> str:
    """Kind and name, as a message begins."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def only(value: Any, known: set[str], where: str) -> Json:
    """The mapping, if it has only keys that are honoured.

    Raises:
        StackError: it has another one; the message names it.
    """
    for key in value or {}:
        if key not in known:
            raise StackError(
                f"{where}.{key}: the embedded gateway does not honour it; honoured there: {', '.join(sorted(known))}; "
                "leave it out, or use a cluster."
            )
    return dict(value or {})
