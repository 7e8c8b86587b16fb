"""Names of the classes that the models of this world were trained on."""

from functools import cache
from pathlib import Path

IMAGENET = Path(__file__).with_name("imagenet_labels.txt")
"""The 1000 classes of ImageNet, one a line, in the order of the outputs of `keras.applications`."""


@cache
def imagenet_labels() -> tuple[str, ...]:
    """The class names of ImageNet, by index (source: see the head of the file).

    >>> imagenet_labels()[667], len(imagenet_labels())
    ('mortarboard', 1000)
    """
    lines = IMAGENET.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def top_labels(output: list[float], count: int = 10) -> list[tuple[int, str, float]]:
    """The `count` largest outputs as (class, name, value), the largest first; ties in the order of the classes.

    Raises:
        ValueError: there are not exactly 1000 outputs.
    """
    names = imagenet_labels()
    if len(output) != len(names):
        raise ValueError(f"{len(output)} outputs; ImageNet has {len(names)} classes.")
    order = sorted(range(len(output)), key=lambda index: (-output[index], index))
    return [(index, names[index], output[index]) for index in order[:count]]
