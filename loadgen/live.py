"""The Experiment tab of Locust's web page: it shows the looks that `analysis watch` writes, and computes nothing.

The looks are made by a child process, started with a test and ended with Locust. Locust's page takes no content for a
tab but a table; a script of ours, put into the page as it is served, lays `/experiment` beneath the tab's title.
"""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request, send_from_directory

from experiments.core import children
from experiments.core.errors import Exit
from experiments.core.home import CHECKOUT
from experiments.core.records import RunDir

TAB = {"title": "Experiment", "key": "experiment"}

_FILES = Path(__file__).parent / "page"
_PATIENCE_S = 3.0
_LIVE_FILE, _LOG_FILE = "live.json", "watch.log"
_SCRIPT = b'<script src="./experiment/tab.js" defer></script>'
_RULES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
"""The Content-Security-Policy of our page: nothing but its own files, from its own host."""


_VERDICTS = (Exit.PROMOTE, Exit.ROLL_BACK, Exit.HOLD, Exit.INVALID)
"""The exit codes of a watch that has seen its run end; without a look, 1 is also what Python itself ends in."""


@dataclass
class Live:
    """The newest test's run, and the child that looks at it.

    Attributes:
        run: None before the first test.
        child: None if it could not be started; then `refused` says why.
        refused: What the system said.
        note: What is to be known before a test is started.
    """

    run: RunDir | None = None
    child: subprocess.Popen[bytes] | None = None
    refused: str = ""
    note: str = ""

    def follow(self, run: RunDir) -> None:
        """Look at this run from now on, in a process of its own; a load goes on where that cannot be started."""
        self.end()
        self.run, self.refused = run, ""
        arguments = [sys.executable, "-m", "analysis", "watch", str(run.path), "--into-run"]
        paths = [str(CHECKOUT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        found = {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        try:
            self.child = children.spawn(arguments, run.path / _LOG_FILE, found)
        except OSError as error:
            self.refused = f"the watch cannot be started: {error}"

    def end(self) -> None:
        """End the child, and take its last look away: the run has its own report."""
        if self.child is not None:
            children.end(self.child, _PATIENCE_S)
        if self.run is not None:
            (self.run.path / _LIVE_FILE).unlink(missing_ok=True)
        self.run = self.child = None

    def trouble(self) -> str:
        """What went wrong with the looks; empty if nothing did."""
        code = self.child.poll() if self.child is not None else None
        if self.run is None or code is None:
            return self.refused
        if code in _VERDICTS and (self.run.path / _LIVE_FILE).exists():
            return ""
        said = children.last_lines(self.run.path / _LOG_FILE)
        return f"the watch ended with exit code {code}: {said or 'no word'}"


def newest(live: Live) -> tuple[bytes, str]:
    """The newest look as JSON, bytes as they were written, between a message and what went wrong; and its stamp.

    >>> newest(Live())[0]
    b'{"message": "No test has been started yet.", "trouble": "", "look": null}'
    """
    look, stamp = b"null", "0"
    message = (
        "Waiting for the first look." if live.run is not None else f"No test has been started yet. {live.note}".strip()
    )
    if live.run is not None:
        path = live.run.path / _LIVE_FILE
        with contextlib.suppress(OSError):  # there is none yet
            # The stamp first: a look that comes in between is sent twice, and none is missed.
            stamp, look = str(path.stat().st_mtime_ns), path.read_bytes().strip()
    wrong = live.trouble()
    head = json.dumps({"message": message, "trouble": wrong})
    run = live.run.path.name if live.run else ""
    return head[:-1].encode() + b', "look": ' + look + b"}", f"{run}-{stamp}-{len(wrong)}"


def add_tab(web_ui: Any, base_path: str, live: Live) -> None:
    """Give Locust's page the tab, and the page that it shows."""
    pages = Blueprint("splitproof", __name__, url_prefix=base_path or None)
    guarded = web_ui.auth_required_if_enabled

    @pages.route("/experiment")
    @guarded
    def experiment() -> Response:
        answer = send_from_directory(_FILES, "experiment.html")
        answer.headers["Content-Security-Policy"] = _RULES
        return answer

    @pages.route("/experiment/look")
    @guarded
    def look() -> Response:
        body, stamp = newest(live)
        answer = Response(body, mimetype="application/json")
        answer.set_etag(stamp)
        answer.make_conditional(request)
        return answer

    @pages.route("/experiment/<name>")
    @guarded
    def file(name: str) -> Response:
        return send_from_directory(_FILES, name)

    web_ui.app.register_blueprint(pages)
    web_ui.app.after_request(_with_script)
    web_ui.template_args.setdefault("extended_tabs", []).append(TAB)


def _with_script(answer: Response) -> Response:
    """Locust's own page with our script at its end; every other answer as it is."""
    if request.endpoint == "locust.index" and answer.status_code == HTTPStatus.OK and answer.mimetype == "text/html":
        answer.set_data(answer.get_data().replace(b"</body>", _SCRIPT + b"</body>", 1))
    return answer
