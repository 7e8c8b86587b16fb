"""Our command line options, and a look at all options before Locust has parsed them."""

import argparse
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
        "--ca-file",
        env_var="SPLITPROOF_CA_FILE",
        metavar="FILE",
        help="Certificates to trust instead of the system's, where the host is https.",
    )


def peek(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, bool]:
    """All options, and whether Locust was asked to list something instead of running.

    User classes and refusals are due when Locust imports the locustfile, before it parses options and before
    `--processes` forks: a refusal after the fork would leave workers that look for their master for minutes.
    """
    parser = argument_parser.get_empty_argument_parser(add_help=False)
    argument_parser.setup_parser_arguments(parser)
    add_options(parser)
    options, _others = parser.parse_known_args(arguments)
    return options, bool(options.list_commands or options.show_task_ratio or options.show_task_ratio_json)
