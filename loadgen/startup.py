"""What happens while Locust imports the locustfile: everything that can be refused is refused here, before any fork."""

import sys
from typing import Any

from experiments.core.command import say
from experiments.core.errors import SplitproofError
from loadgen.assignment import resolve
from loadgen.coordination import Coordinator
from loadgen.options import add_options, meeting, peek
from loadgen.ports import check_ports
from loadgen.users import SLOTS, slot_class, user_classes


def wire(events: Any) -> dict[str, type[Any]]:
    """Listen to Locust's events; the user classes by name.

    Ends the process with the refusal's exit code, after its line, where there is nothing to run.
    """
    events.init_command_line_parser.add_listener(add_options)
    options, listing = peek()
    if place := meeting(options):
        events.init_command_line_parser.add_listener(lambda parser: parser.set_defaults(**place))
    try:
        assignment = resolve(options)
        if not listing:
            check_ports(options)
    except SplitproofError as error:
        if listing:
            return {SLOTS: slot_class(lambda: None)}
        say(str(error))
        sys.exit(int(error.exit_code))
    coordinator = Coordinator(assignment, apart=bool(options.worker))
    coordinator.listen(events)
    return user_classes(assignment.experiment, lambda: coordinator.session)
