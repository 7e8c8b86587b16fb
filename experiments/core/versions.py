"""Which versions of others' packages are installed here: circumstances of a run."""

from collections.abc import Iterable
from importlib import metadata


def installed(names: Iterable[str]) -> dict[str, str]:
    """Name → version of those packages that are installed.

    >>> installed(["no-such-package"])
    {}
    """
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
