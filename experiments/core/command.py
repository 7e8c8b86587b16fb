"""How every command of ours behaves: one line for a refusal, documented exit codes, no traceback unless asked."""

import errno
import os
import signal
import sys
import traceback
from typing import NoReturn

import click

from experiments.core.errors import Exit, SplitproofError


def say(text: str = "") -> None:
    """Print progress or advice, on stderr."""
    click.echo(text, err=True)


def main(group: click.Command, program: str) -> NoReturn:
    """Run a click command, and end the process with its exit code.

    Every option may be set by a variable `SPLITPROOF_COMMAND_OPTION`; `--debug` anywhere shows tracebacks.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1 or bool(os.environ.get("SPLITPROOF_DEBUG"))
    sys.exit(run(group, program, arguments, debug=debug))


def run(group: click.Command, program: str, arguments: list[str], *, debug: bool = False) -> int:
    """The exit code of a click command, after at most one line for everything that it refused."""
    try:
        result = group.main(arguments, prog_name=program, standalone_mode=False, auto_envvar_prefix="SPLITPROOF")
        return int(result) if isinstance(result, int) else Exit.PROMOTE
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _refused(error, Exit.USAGE, _misused(error, program), debug=debug)
    except (KeyboardInterrupt, click.Abort) as stop:
        return _stopped(stop)
    except SplitproofError as error:
        return _refused(error, error.exit_code, str(error), debug=debug)
    except BrokenPipeError:
        return _quiet_pipe()
    except OSError as error:
        return _refused(error, Exit.USAGE, _failed(error), debug=debug)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a defect must not end in a traceback
        text = f"unexpected {type(error).__name__}: {error}. This is a defect of ours; --debug shows where."
        return _refused(error, Exit.UNEXPECTED, text, debug=debug)


def _misused(error: click.ClickException, program: str) -> str:
    """What is wrong with the words of a command, in one line."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = context.command_path if context else program
    said = " ".join(error.format_message().split()).rstrip(".")
    return f"{where}: {said}; see: {where} --help"


_REMEDIES = {
    errno.ENOSPC: "free space there",
    errno.EFBIG: "free space there",
    errno.EDQUOT: "free space there",
    errno.EROFS: "name a place that can be written",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file",
    errno.EMFILE: "raise the limit: ulimit -n 4096",
}


def _failed(error: OSError) -> str:
    """What the system refused, of what, and what to do."""
    named = f"{error.filename}: " if error.filename else ""
    remedy = _REMEDIES.get(error.errno or 0, "--debug shows where")
    return f"{named}{error.strerror or error}; {remedy}."


def _refused(error: BaseException, code: int, text: str, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    say(text)
    return code


def _stopped(stop: BaseException) -> int:
    """128 + the signal's number, as shells have it; click hides what stopped it behind its own Abort."""
    say("stopped.")
    return 128 + int(getattr(stop.__cause__ or stop, "number", signal.SIGINT))


def _quiet_pipe() -> int:
    """The reader of our output went away, as `head` does: no error of anybody's."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.PROMOTE
