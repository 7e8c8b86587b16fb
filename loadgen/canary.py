"""The locustfile, wiring only: `locust -f loadgen/canary.py [--experiment FILE|NAME] [--headless] [Locust's options]`.

The experiment's `load` gives open-loop arrivals; with `--users N --closed-loop` users wait. Exit codes of a headless
run: 0 recorded (whatever was answered), 2 refused or not recordable, 5 an unexpected error of ours.
"""

import sys
from pathlib import Path

from locust import events

try:
    from loadgen.startup import wire
except ModuleNotFoundError as missing:
    if missing.name != "loadgen":
        raise
    # Started from another folder without an installed checkout. At the end of the path: this folder's own names
    # (loadgen/, deploy/, …) must not go before anybody's libraries.
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    from loadgen.startup import wire

globals().update(wire(events))
