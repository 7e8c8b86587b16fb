"""What a load is to do: its experiment, bodies and host, and what the report will not be able to say."""

import argparse
import gzip
import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import xxhash

from experiments.core import home, reading
from experiments.core.access import DIRECT, Access, access_of, refuse_unset
from experiments.core.errors import ExperimentError, ProvisionError, StackError
from experiments.core.profile import profile
from experiments.core.records import RunDir, read_info
from experiments.core.spec import Experiment
from experiments.core.stack import StackDir, StackInfo, read_payloads, read_stack
from loadgen.predict import Dialer, reachable, target
from loadgen.schedule import Schedule

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
DEFAULT_EXPERIMENT = "quickstart"

_NO_STACK = (
    "no stack of {} is up on this machine: no routing journal and no references, so the report can neither say which "
    "routing was in force nor attribute an answer to an arm by its output"
)


@dataclass(frozen=True)
class Assignment:
    """Everything that is known before the load.

    Attributes:
        experiment: The experiment as it is run.
        payloads: Payload id to request body.
        host: Base URL; None only where a person or a master will name it.
        stack: What the experiment's stack says of itself, if there is one.
        run: The run directory that a conductor made, if one did.
        runs: Where a run directory of our own goes.
        run_id: Its name, where a conductor on another machine has given it one.
        access: How the host is spoken to: names, trusted certificates, our own.
        open_loop: Whether arrivals come from the schedule.
        cohorts: The cohorts that were chosen (all, unless tags say otherwise).
        notes: Sentences about what the report will not be able to say.
    """

    experiment: Experiment
    payloads: Mapping[str, bytes]
    host: str | None
    stack: StackInfo | None
    run: RunDir | None
    runs: Path
    run_id: str | None
    access: Access
    open_loop: bool
    cohorts: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def experiment_hash(self) -> str:
        """A hash of all that the experiment says."""
        return reading.experiment_hash(self.experiment)

    @property
    def payloads_hash(self) -> str:
        """A hash of the payload ids and bodies."""
        digest = xxhash.xxh3_128()
        for name in sorted(self.payloads):
            digest.update(f"{name}:{len(self.payloads[name])}:".encode())
            digest.update(self.payloads[name])
        return digest.hexdigest()

    @property
    def schedule(self) -> Schedule:
        """The open-loop schedule of the experiment's load.

        It goes by the names of the cohorts, not their order in a file, of which the experiment's hash says nothing.
        """
        load, cohorts = self.experiment.load, self.experiment.cohorts
        shares = {name: cohorts[name].share for name in sorted(cohorts)}
        return Schedule(profile(load), load.pattern, load.seed, shares, tuple(sorted(self.payloads)))


def is_open_loop(options: argparse.Namespace) -> bool:
    """Arrivals come from the schedule unless a number of users was asked for, or a page where classes are picked."""
    return options.num_users is None and not options.class_picker


def starts_by_itself(options: argparse.Namespace) -> bool:
    """Whether the load starts without a person at Locust's web page; a worker's master decides for it."""
    return bool(options.headless or options.autostart) and not options.worker


def resolve(options: argparse.Namespace) -> Assignment:
    """The assignment that options, environment and stacks on this machine make up.

    Raises:
        SplitproofError: something is missing or wrong; the message says how to get it.
    """
    given = os.environ.get("SPLITPROOF_RUN")
    run = RunDir(Path(given).absolute()) if given else None
    if run is not None:
        experiment, assumed = reading.from_mapping(read_info(run).experiment, str(run.info)), None
    else:
        experiment, assumed = choose_experiment(options.experiment, assume=bool(options.host and options.payload))
    refuse_unset(experiment)
    _check_loop(options, experiment)
    stack = read_stack(experiment.name)
    access = _access(options, experiment, stack)
    payloads, unreferenced = _payloads(options.payload, experiment, stack)
    return Assignment(
        experiment=experiment,
        payloads=payloads,
        host=_host(options, experiment, stack, access),
        stack=stack,
        run=run,
        runs=Path(options.runs).absolute() if options.runs else home.runs(),
        run_id=_run_id(options.run_id),
        access=access,
        open_loop=is_open_loop(options),
        cohorts=chosen_cohorts(experiment, options.tags or (), options.exclude_tags or ()),
        notes=(*filter(None, [assumed]), *_missing(experiment, stack), *unreferenced),
    )


def _check_loop(options: argparse.Namespace, experiment: Experiment) -> None:
    """Users who wait for their answers and arrivals that wait for none exclude each other: who has both must choose.

    Raises:
        ExperimentError: both are asked for, or fewer than one user is.
    """
    users, load = options.num_users, experiment.load
    if users is None:
        if options.closed_loop and not options.worker:
            raise ExperimentError("--closed-loop: needs a number of users who wait for their answers; add --users N.")
        return
    if users < 1:
        raise ExperimentError(
            f"--users {users}: must be at least 1; give more, or leave it out for open-loop arrivals."
        )
    if not options.closed_loop and (load.arrivals is not None or load.steps):
        raise ExperimentError(
            f"--users {users}: the experiment's load has arrivals, which wait for no answer; "
            "leave --users out, or add --closed-loop to have users wait for each answer instead."
        )


def choose_experiment(named: str | None, *, assume: bool) -> tuple[Experiment, str | None]:
    """The experiment that is named, else that of the only stack; the catalogue's quickstart where it may be assumed.

    Args:
        named: A file or a name in the catalogue.
        assume: Whether what is known without an experiment is enough: where to send, and what.

    Returns:
        The experiment, and a note where it was assumed.

    Raises:
        ExperimentError: none can be chosen.
    """
    if named:
        return reading.load(named).experiment, None
    stacks = sorted(path.parent.name for path in (home.home() / "stacks").glob("*/stack.json"))
    if len(stacks) > 1:
        raise ExperimentError(f"stacks of {', '.join(stacks)} are up; say which one with: --experiment NAME")
    stack = read_stack(stacks[0]) if stacks else None
    if stack is not None:
        return reading.from_mapping(stack.experiment, str(StackDir(home.stack_dir(stacks[0])).info)), None
    if not assume:
        raise ExperimentError(
            f"no experiment is named and no stack is up; run: python -m deploy up {DEFAULT_EXPERIMENT}, "
            "or give --experiment NAME, --host URL and a request body."
        )
    note = f"no experiment was named: cohorts, load and model name are those of {DEFAULT_EXPERIMENT}"
    return reading.load(DEFAULT_EXPERIMENT).experiment, note


def _run_id(given: str | None) -> str | None:
    if given and not _RUN_ID.fullmatch(given):
        raise StackError(f"--run-id {given}: must be letters, digits and dashes, as a run directory's name; mend it.")
    return given or None


def _access(options: argparse.Namespace, experiment: Experiment, stack: StackInfo | None) -> Access:
    """What the options say, else what the stack was put up with, else the experiment."""
    known = stack.access if stack else DIRECT
    given = {
        "host": options.host_header,
        "sni": options.sni,
        **{name: getattr(options, name) for name in ("ca_file", "client_cert", "client_key")},
    }
    said = {name: value for name, value in given.items() if value is not None}
    return access_of(experiment, msgspec.structs.replace(known, **said))


def _host(options: argparse.Namespace, experiment: Experiment, stack: StackInfo | None, access: Access) -> str | None:
    """--host, else the gateway of the stack; checked here if the load starts by itself."""
    host: str | None = options.host or (stack.gateway_url if stack else None)
    if host is not None:
        Dialer(target(host, access))  # refuses what it cannot use
    if starts_by_itself(options):
        check_reachable(host, experiment.name)
    return host


def check_reachable(host: str | None, experiment: str) -> str:
    """The host, if something listens there.

    Raises:
        StackError: there is no host, or nothing listens; the message names the reason.
    """
    if not host:
        raise StackError(
            f"no stack of {experiment} is up, and there is no --host; "
            f"run: python -m deploy up {experiment}, or add --host URL."
        )
    reason = reachable(target(host))
    if reason:
        raise StackError(
            f"{host}: cannot be reached: {reason}; "
            f"start what should listen there (a stack: python -m deploy up {experiment}), or name another --host."
        )
    return host


def _payloads(
    files: Sequence[str] | None, experiment: Experiment, stack: StackInfo | None
) -> tuple[dict[str, bytes], list[str]]:
    """Payload id to body, and notes about bodies without references."""
    index = StackDir(home.stack_dir(experiment.name)).payloads
    known = read_payloads(index) if stack is not None and index.exists() else {}
    if not files:
        if not known:
            raise ProvisionError(
                f"no payloads: no stack of {experiment.name} is up, and there is no --payload; "
                f"run: python -m deploy up {experiment.name}, or add --payload FILE.json (a whole request body)."
            )
        return known, []
    ids = {body: name for name, body in known.items()}
    bodies: dict[str, bytes] = {}
    for file in _files(files):
        body = read_body(file)
        name = ids.get(body, file.name.removesuffix(".gz").removesuffix(".json"))
        if name in bodies:
            raise ProvisionError(f"--payload {file}: a payload {name!r} was named before; rename one of the files.")
        bodies[name] = body
    strangers = (name for name in bodies if name not in known)
    return bodies, [
        f"payload {name} has no reference: its answers cannot be attributed by output" for name in strangers
    ]


def _files(given: Sequence[str]) -> list[Path]:
    """The files that are named; of a folder, its .json and .json.gz files."""
    found: list[Path] = []
    for name in given:
        folder = Path(name)
        inside = sorted([*folder.glob("*.json"), *folder.glob("*.json.gz")]) if folder.is_dir() else [folder]
        if not inside:
            raise ProvisionError(f"--payload {name}: the folder has no .json file; put whole request bodies there.")
        found += inside
    return found


def read_body(path: Path) -> bytes:
    """A request body from a file, which may be compressed by gzip.

    Raises:
        ProvisionError: it cannot be read, or is no JSON object with `instances` or `inputs`.
    """
    try:
        body = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        decoded = json.loads(body)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise ProvisionError(f"{path}: cannot be read: {why}; check the path and permissions.") from error
    except ValueError as error:
        raise ProvisionError(f"{path}: no JSON ({error}); a payload is a whole request body; mend the file.") from error
    if not isinstance(decoded, dict) or not {"instances", "inputs"} & set(decoded):
        raise ProvisionError(f'{path}: no request body; must be such as {{"instances": [...]}}; mend the file.')
    return body


def chosen_cohorts(experiment: Experiment, tags: Sequence[str], excluded: Sequence[str]) -> tuple[str, ...]:
    """The cohorts that `--tags` and `--exclude-tags` leave; each cohort's tag is its name.

    Raises:
        ExperimentError: a tag is no cohort, or no cohort with a share is left.
    """
    unknown = [tag for tag in (*tags, *excluded) if tag not in experiment.cohorts]
    if unknown:
        names = ", ".join(experiment.cohorts)
        raise ExperimentError(f"--tags: unknown cohort {unknown[0]!r}; must be one of {names}; mend it.")
    shares = {name: cohort.share for name, cohort in experiment.cohorts.items()}
    left = tuple(name for name in shares if (not tags or name in tags) and name not in excluded)
    if not sum(shares[name] for name in left):
        raise ExperimentError("--tags: no cohort with a share above 0% is left; choose others.")
    return left


def _missing(experiment: Experiment, stack: StackInfo | None) -> list[str]:
    """What no stack, or another one than the experiment's, keeps the report from saying."""
    if stack is None:
        return [_NO_STACK.format(experiment.name)]
    notes = []
    if not StackDir(home.stack_dir(experiment.name)).references.exists():
        notes.append("the stack has no references: no answer can be attributed to an arm by its output")
    if stack.experiment_hash != reading.experiment_hash(experiment):
        notes.append("the stack was put up from another version of the experiment; judge with care, or put it up anew")
    return notes
