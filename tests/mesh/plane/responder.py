"""The smallest thing that can stand behind a pod: it answers every request with who it is, and echoes what it saw."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    who: dict[str, str]

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.dumps({**self.who, "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: object) -> None:
        """Say nothing: a line for each request is too much."""


def main(host: str, port: str, pod: str, version: str) -> None:
    """Serve until killed."""
    _Handler.who = {"pod": pod, "version": version}
    ThreadingHTTPServer((host, int(port)), _Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
