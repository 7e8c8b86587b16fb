"""Where things lie on this machine: runs, stacks and models."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
"""The folder that holds `experiments/`, `deploy/`, `loadgen/` and `analysis/`."""


def home() -> Path:
    """Stacks and models: `$SPLITPROOF_HOME`, else `.splitproof` in the checkout."""
    return Path(os.environ.get("SPLITPROOF_HOME") or CHECKOUT / ".splitproof").absolute()


def runs() -> Path:
    """Run directories: `$SPLITPROOF_RUNS`, else `runs` in the checkout."""
    return Path(os.environ.get("SPLITPROOF_RUNS") or CHECKOUT / "runs").absolute()


def stack_dir(experiment: str) -> Path:
    """The state of the embedded stack of an experiment."""
    return home() / "stacks" / experiment


def models_dir() -> Path:
    """The cache of exported models, by content."""
    return home() / "models"
