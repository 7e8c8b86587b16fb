"""Our command line options, and a look at all options before Locust has parsed them."""

import argparse
import socket
from collections.abc import Sequence
from typing import Any

from locust import argument_parser


def add_options(parser: Any) -> None:
    """Add our options to Locust's parser; as members of a group they stay out of the form of its web page."""
    group = parser.add_argument_group("Splitproof")
    group.add_argument(
        "--experiment",
        env_var="SPLITPROOF_EXPERIMENT",
        metavar="FILE|NAME",
        help="Experiment file, or a name in the catalogue. Default: that of the stack that is up.",
    )
    group.add_argument(
        "--payload",
        action="append",
        metavar="FILE.json|DIR",
        env_var="SPLITPROOF_PAYLOAD",
        help="A whole request body, or a folder of them; may be given several times. "
        "Default: the payloads of the experiment's stack.",
    )
    group.add_argument(
        "--runs",
        env_var="SPLITPROOF_RUNS",
        metavar="DIR",
        help="Where the run directory is made. Default: runs/ in the checkout.",
    )
    group.add_argument(
        "--run-id",
        env_var="SPLITPROOF_RUN_ID",
        metavar="ID",
        help="Name of the run directory, where it is a part of a run on another machine.",
    )
    group.add_argument(
        "--closed-loop",
        action="store_true",
        env_var="SPLITPROOF_CLOSED_LOOP",
        help="With --users: they wait for each answer, and the arrivals of the experiment's load are not used.",
    )
    _add_way_in(group)


def _add_way_in(group: Any) -> None:
    """How the host is spoken to."""
    group.add_argument(
        "--ca-file",
        env_var="SPLITPROOF_CA_FILE",
        metavar="FILE",
        help="Certificates to trust instead of the system's, where the host is https.",
    )
    group.add_argument(
        "--client-cert",
        env_var="SPLITPROOF_CLIENT_CERT",
        metavar="FILE",
        help="Our own certificate, for a host that asks.",
    )
    group.add_argument("--client-key", env_var="SPLITPROOF_CLIENT_KEY", metavar="FILE", help="Its key.")
    group.add_argument(
        "--host-header",
        env_var="SPLITPROOF_HOST_HEADER",
        metavar="NAME",
        help="The Host header, where it is not the host's own name. Default: gateway.host of the experiment.",
    )
    group.add_argument(
        "--sni",
        env_var="SPLITPROOF_SNI",
        metavar="NAME",
        help="The name to ask for, and to verify, over TLS. Default: the Host header's, else the host's own.",
    )


_MEETING = ("master_bind_host", "master_bind_port", "master_port")


def meeting(options: argparse.Namespace) -> dict[str, Any]:
    """Where a master and the workers that it forks meet, unless that was said: on a free port of this machine's own.

    On Locust's fixed port two loads on one machine take each other's workers: the second master cannot listen, its
    workers join the first, and leave it in the middle of its load.

    Args:
        options: As `peek` gives them: None is what was not said.
    """
    said = any(getattr(options, name) is not None for name in _MEETING)
    if not options.processes or options.worker or said:
        return {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return dict(zip(_MEETING, ("127.0.0.1", port, port), strict=True))


def peek(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, bool]:
    """All options, and whether Locust was asked to list something instead of running.

    User classes and refusals are due when Locust imports the locustfile, before it parses options and before
    `--processes` forks: a refusal after the fork would leave workers that look for their master for minutes.
    """
    parser = argument_parser.get_empty_argument_parser(add_help=False)
    argument_parser.setup_parser_arguments(parser)
    add_options(parser)
    parser.set_defaults(**dict.fromkeys(_MEETING))
    options, _others = parser.parse_known_args(arguments)
    return options, bool(options.list_commands or options.show_task_ratio or options.show_task_ratio_json)
