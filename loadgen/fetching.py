"""A run's records for a conductor on another machine: what it lacks of them, from Locust's page, as the run goes on."""

import base64
import re
import time
import zlib
from pathlib import Path
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from experiments.core.records import Fetched, Piece, RunDir, Wish, read_info
from loadgen.live import Live

MOST_BYTES = 4 * 1024 * 1024
"""What one answer holds at most; whoever wants more asks again."""

_RECORDS = re.compile(r"(requests|outputs)-[A-Za-z0-9_.-]+\.jsonl")


def fetched(run: RunDir | None, wish: Wish) -> Fetched:
    """What a run has beyond what is there already, and whether that was all of a run that has ended."""
    now_us = time.time_ns() // 1000
    if run is None:
        return Fetched(now_us, "", ended=False)
    # Before the files: what they hold then is all that there will be.
    info = read_info(run)
    left, pieces = MOST_BYTES, {}
    for path in sorted(path for path in run.path.iterdir() if _RECORDS.fullmatch(path.name)):
        piece = _after(path, wish.have.get(path.name), left)
        if piece is not None:
            pieces[path.name] = Piece(wish.have.get(path.name, 0), base64.b64encode(zlib.compress(piece, 1)).decode())
            left -= len(piece)
    whole = left > 0 and info.ended is not None
    return Fetched(now_us, run.path.name, ended=whole, files=pieces, info=info if whole else None)


def _after(path: Path, have: int | None, most: int) -> bytes | None:
    """What a file holds after so many bytes; None where that is nothing new."""
    with path.open("rb") as file:
        file.seek(have or 0)
        piece = file.read(most)
    return piece if piece or have is None else None


def add_records(web_ui: Any, base_path: str, live: Live) -> None:
    """Let Locust's page give the newest test's records away, to whoever may see the page."""
    pages = Blueprint("splitproof-records", __name__, url_prefix=base_path or None)

    @pages.route("/experiment/records", methods=["POST"])
    @web_ui.auth_required_if_enabled
    def records() -> Response:
        try:
            wish = msgspec.json.decode(request.get_data(), type=Wish)
        except msgspec.MsgspecError as error:
            return Response(f"no wish for records: {error}\n", status=400, mimetype="text/plain")
        return Response(msgspec.json.encode(fetched(live.run, wish)), mimetype="application/json")

    web_ui.app.register_blueprint(pages)
