"""The charting library's runtime, from vl-convert, which the extra `pictures` installs.

Putting the runtime together takes seconds, so it is kept beside the models, named after the versions that made it.
"""

import os
import tempfile
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from experiments.core import command, home


@cache
def available() -> bool:
    """Whether pictures can be made."""
    return find_spec("vl_convert") is not None and find_spec("altair") is not None


@cache
def javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that defines `vegaEmbed`."""
    name = f"vega-by-vl-convert-{version('vl-convert-python')}.js"
    kept = home.home() / "runtime" / name
    try:
        return kept.read_text(encoding="utf-8")
    except OSError:
        pass
    import vl_convert

    # Its stub asks for an argument that it can do without.
    bundle: Any = vl_convert.javascript_bundle
    command.say("putting the pictures' runtime together, once; some seconds")
    made: str = bundle().replace("</script", "<\\/script")
    _keep(kept, made)
    return made


def _keep(path: Path, text: str) -> None:
    """Best effort: where nothing can be kept, it is made again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except OSError:
        return
