"""What a delivery controller should do about a verdict, for Argo Rollouts and Flagger.

Only a model's fault rolls back. Where the routing is at fault, where the data do not suffice or the run cannot be
judged, the model may be fine: the controller waits, and a person decides.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from analysis.findings import MODEL
from analysis.judge import judge
from analysis.render.text import safe
from analysis.verdict import PROMOTE, ROLL_BACK, Verdict
from experiments.core import command
from experiments.core.errors import Exit, RecordsError, SplitproofError
from experiments.core.records import RunDir, newest_run

PAUSE = "pause"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_LARGEST_BODY = 1_000_000


def action(verdict: Verdict) -> str:
    """`promote`, `roll back` or `pause`.

    >>> action(Verdict("roll back", "routing", "", 1, []))
    'pause'
    """
    if verdict.word == PROMOTE:
        return PROMOTE
    return ROLL_BACK if verdict.word == ROLL_BACK and verdict.cause == MODEL else PAUSE


def gate(find: Callable[[], RunDir], every: float, patience: float | None) -> int:
    """Wait until a verdict says promote or roll back, and return 0 or 1: what a Job's exit code tells its controller.

    Args:
        find: The run to judge; asked again each time, so that a newer run counts.
        every: Seconds between looks.
        patience: Seconds after which it is given up: the exit code is then the verdict's own, but that of hold where
            the routing is at fault, and that of bad input where there is no run to judge; None waits for a person.
    """
    until = None if patience is None else time.monotonic() + patience
    while True:
        done, sentence, code = _found(find)
        command.say(f"{done}: {safe(sentence, 600)}")
        if done != PAUSE or (until is not None and time.monotonic() + every > until):
            return int(code)
        time.sleep(every)


def _found(find: Callable[[], RunDir]) -> tuple[str, str, int]:
    """What to do, why, and the exit code that says so; a run that is not there yet is waited for."""
    try:
        verdict = _verdict(find())
    except SplitproofError as error:
        return PAUSE, str(error), Exit.USAGE
    done = action(verdict)
    routing = verdict.word == ROLL_BACK and done == PAUSE
    return done, verdict.sentence, Exit.HOLD if routing else verdict.exit_code


@dataclass(frozen=True)
class Reply:
    """A status and a body for a caller; the body's `sentence` is for people."""

    status: int
    body: dict[str, Any]


def answer(runs: Path, path: str, asked: dict[str, Any]) -> Reply:
    """What the endpoint says.

    `/verdict` always tells; `/flagger/confirm` succeeds only for promote, `/flagger/rollback` only for roll back.

    Args:
        runs: Where run directories are.
        path: Of the URL.
        asked: `experiment` names whose newest run is meant, `run` one of its runs; both may be missing.
    """
    try:
        verdict = _verdict(_run(runs, asked))
    except SplitproofError as error:
        # To Argo's web metric any other status is an error, and a few of those abort the rollout.
        status = HTTPStatus.OK if path == "/verdict" else HTTPStatus.NOT_FOUND
        return Reply(status, {"action": PAUSE, "sentence": safe(str(error), 600)})
    done = action(verdict)
    told = {
        "action": done,
        "verdict": verdict.word,
        "cause": verdict.cause,
        "sentence": safe(verdict.sentence, 600),
        "exit_code": verdict.exit_code,
    }
    wanted = {"/verdict": done, "/flagger/confirm": PROMOTE, "/flagger/rollback": ROLL_BACK}.get(path)
    if wanted is None:
        return Reply(HTTPStatus.NOT_FOUND, {"sentence": "ask /verdict, /flagger/confirm or /flagger/rollback."})
    return Reply(HTTPStatus.OK if done == wanted else HTTPStatus.CONFLICT, told)


def _verdict(run: RunDir) -> Verdict:
    """The verdict of a run; controllers ask every few seconds, so it is worked out once for the same evidence."""
    files = [run.info, run.journal, run.references, *run.shards(), *run.outputs()]
    seen = [(str(path), path.stat()) for path in files if path.exists()]
    return _judged(run, tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in seen))


@lru_cache(maxsize=16)
def _judged(run: RunDir, evidence: tuple[tuple[str, int, int], ...]) -> Verdict:
    del evidence  # it is the key
    return judge(run).verdict


def _run(runs: Path, asked: dict[str, Any]) -> RunDir:
    names = {key: str(asked[key]) for key in ("experiment", "run") if asked.get(key)}
    for key, name in names.items():
        if not _NAME.fullmatch(name):
            raise RecordsError(f"{key}: {safe(name)!r} is no name of a run; letters, digits, '.', '_' and '-' only.")
    folder = runs / names["experiment"] if "experiment" in names else runs
    if "run" not in names:
        return newest_of(folder) if "experiment" in names else newest_run(runs)
    found = [path.parent for path in folder.glob(f"**/{names['run']}/run.json")]
    if len(found) != 1:
        raise RecordsError(f"{names['run']}: {len(found)} runs of that name; name its experiment too.")
    return RunDir(found[0])


def newest_of(folder: Path) -> RunDir:
    """The newest run of one experiment; names begin with the time.

    Raises:
        RecordsError: there is none.
    """
    found = sorted(path.parent for path in folder.glob("*/run.json"))
    if not found:
        raise RecordsError(f"{folder.name}: no run yet; run the experiment first.")
    return RunDir(found[-1])


def server(runs: Path, host: str, port: int) -> ThreadingHTTPServer:
    """The endpoint, ready to serve; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        """One request of a controller."""

        def do_GET(self) -> None:
            """Answer with what the query names."""
            parts = urlsplit(self.path)
            self._reply(answer(runs, parts.path, {key: values[-1] for key, values in parse_qs(parts.query).items()}))

        def do_POST(self) -> None:
            """Answer Flagger, whose `metadata` names the run."""
            given = self.headers.get("Content-Length") or "0"
            if not (given.isascii() and given.isdigit()):
                self._reply(Reply(HTTPStatus.BAD_REQUEST, {"sentence": "Content-Length must be a whole number."}))
                return
            length = int(given[:20])
            if length > _LARGEST_BODY:
                self._reply(Reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"sentence": "the body is too large."}))
                return
            try:
                body = json.loads(self.rfile.read(length) or b"{}")
                asked = dict(body.get("metadata") or {})
            except (ValueError, AttributeError, TypeError):
                self._reply(Reply(HTTPStatus.BAD_REQUEST, {"sentence": "the body must be a JSON object."}))
                return
            self._reply(answer(runs, urlsplit(self.path).path, asked))

        def _reply(self, reply: Reply) -> None:
            payload = json.dumps(reply.body, ensure_ascii=False).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the standard library calls
            command.say(safe(format % args, 200))

    return ThreadingHTTPServer((host, port), Handler)
