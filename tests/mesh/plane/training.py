"""What every stack of `digits` in these tests needs of TensorFlow, made once: models, and their answers to payloads.

`python training.py FOLDER` fills the home's cache.
"""

import sys
from pathlib import Path

from plane.objects import FEW

from deploy import models, payloads
from experiments.core import command, reading


def main(folder: Path) -> None:
    """Fill the cache; payloads are written into a folder of their own."""
    loaded = reading.load("digits", [FEW])
    made = models.ensure(loaded, command.say)
    payloads.write_payloads(loaded, made, folder)
    models.reference_outputs(loaded, made, folder, command.say)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
