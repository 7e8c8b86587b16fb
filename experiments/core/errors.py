"""Everything that we refuse, each with the exit code that it ends in.

::

    SplitproofError            2   wrong usage, or input that cannot be read
    ├── ExperimentError        2   an experiment file breaks rules; carries every problem at once
    ├── RecordsError           2   a run directory or shard cannot be read
    ├── StackError             2   a stack cannot be put up, changed or found
    └── ProvisionError         2   a model or payload cannot be made ready

Anything else that escapes a command is a defect of ours and ends in 5 (see `experiments.core.command`).
"""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of every command."""

    PROMOTE = 0
    ROLL_BACK = 1
    USAGE = 2
    HOLD = 3
    INVALID = 4
    UNEXPECTED = 5


class SplitproofError(Exception):
    """A refusal that its reader can act on: one line that says what, where, the rule and what to do."""

    exit_code = Exit.USAGE


class ExperimentError(SplitproofError):
    """An experiment file breaks one or more rules; the message has a line for each."""


class RecordsError(SplitproofError):
    """A run directory or a shard cannot be read, or cannot be written."""


class StackError(SplitproofError):
    """A stack cannot be put up, changed, found or taken down."""


class ProvisionError(SplitproofError):
    """A model or a payload cannot be made ready."""
