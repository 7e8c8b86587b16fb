"""Exported models laid out as a node's model folder is: a folder for each arm, with its version folder in it."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from deploy.model_info import INFO, ModelInfo


def stage(models: Mapping[str, ModelInfo], folder: Path) -> Path:
    """Lay the models out under a folder, by hard links where the disk has them; what was there before is replaced."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    for arm, model in models.items():
        shutil.copytree(
            model.base_path, aside / arm, copy_function=_link, ignore=shutil.ignore_patterns(INFO, "outputs*")
        )
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return folder


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
