"""A server in trouble: it answers every POST with 503 and counts them; GET tells the count."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    posts = count()
    seen = 0

    def do_GET(self) -> None:
        self._answer(200, str(_Handler.seen).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        _Handler.seen = next(_Handler.posts) + 1
        self._answer(503, b"busy")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: a line for each request is too much."""


if __name__ == "__main__":
    ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), _Handler).serve_forever()
