"""`python -m analysis plan`: the whole plan, with its designs compared."""

import re
from dataclasses import replace
from pathlib import Path

from analysis.plan.designs import compare
from analysis.plan.history import history, newest
from analysis.plan.model import Plan
from analysis.plan.outlook import look
from analysis.plan.setting import setting
from experiments.core import home
from experiments.core.errors import ExperimentError
from experiments.core.records import RunDir
from experiments.core.spec import Experiment

DRAWS = 400
"""Drawn runs: a chance of 90 % is then known to 1.5 points."""


def full(experiment: Experiment, power: str, like: Path | None) -> Plan:
    """The plan of an experiment.

    Args:
        experiment: What is planned.
        power: The chance that is asked for, as people write it: `90%` or `0.9`.
        like: A run to take variances from; the newest of the same experiment where it is None.

    Raises:
        ExperimentError: the power is no probability that can be asked for.
        RecordsError: the run cannot be read.
    """
    aim = probability(power)
    past = history(RunDir(like)) if like is not None else newest(home.runs(), experiment.name, quick=False)
    here = setting(experiment, past, aim, DRAWS)
    return replace(look(here), designs=compare(here))


def probability(text: str) -> float:
    """A power from text.

    >>> probability("80%"), probability("0.95")
    (0.8, 0.95)

    Raises:
        ExperimentError: it lies outside 50 % to 99.9 %, or is no number.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    value = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0.5 <= value <= 0.999:  # noqa: PLR2004 - below one half nothing is planned, above 99.9 % nothing simulated
        raise ExperimentError(f"--power {text}: must be a chance from 50% to 99.9%, such as 90%; write it so.")
    return value
