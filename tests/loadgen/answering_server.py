"""A small server that answers predictions as TensorFlow Serving does, and logs what it was asked; started by tests.

Each prediction is answered by arm `one` or `two`, by the request's turn; the log has a line for each request that was
read to its end: the request id, the cohort header, the arm, the status, and the number of the connection.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
from pathlib import Path


def body_of(arm: str, width: int) -> bytes:
    values = (
        [1 / width] * width if arm == "one" else [(index + 1) / (width * (width + 1) / 2) for index in range(width)]
    )
    return json.dumps({"predictions": [values]}, indent=4).encode()


class Answering:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.bodies = {arm: body_of(arm, options.width) for arm in ("one", "two")}
        self.log = os.open(options.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.turn = itertools.count()
        self.connections = itertools.count()
        self.random = random.Random(7)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self.connections)
        try:
            while head := await self.head(reader):
                await self.answer(head, number, reader, writer)
                if self.options.behaviour in ("close", "last"):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def head(self, reader: asyncio.StreamReader) -> dict[str, str]:
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return {}
        first, *lines = raw.decode("latin-1").strip().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        return {":path": first.split(" ")[1], **{name.lower(): value for name, value in fields.items()}}

    async def answer(self, head: dict[str, str], number: int, reader: asyncio.StreamReader, writer) -> None:
        await reader.readexactly(int(head["content-length"]))
        turn = next(self.turn)
        arm = ("one", "two")[turn % 2]
        await asyncio.sleep(self.options.delay)
        status = 503 if self.random.random() < self.options.failure_rate else 200
        line = " ".join(
            [head["x-request-id"], head.get("user-group", "-"), arm, str(status), str(number), head[":path"]]
        )
        os.write(self.log, f"{line}\n".encode())
        reply = self.reply(arm, status)
        if self.options.behaviour == "reset" and turn % 5 == 4:
            writer.write(reply[: len(reply) // 2])
            await writer.drain()
            writer.transport.abort()
            raise ConnectionResetError
        writer.write(reply)
        await writer.drain()

    def reply(self, arm: str, status: int) -> bytes:
        body = self.bodies[arm] if status == 200 else b'{"error": "no"}'
        if self.options.behaviour == "garbage":
            body = b"<html>not a prediction</html>"
        if self.options.behaviour == "redirect":
            status, body = 302, b""
        words = {200: "OK", 302: "Found", 503: "Service Unavailable"}[status]
        lines = [
            f"HTTP/1.1 {status} {words}",
            "content-type: application/json",
            f"x-splitproof-route: split/{arm}",
            "x-envoy-upstream-service-time: 7",
            *(["x-envoy-attempt-count: 2"] if self.options.behaviour == "retried" else []),
            *(["connection: close"] if self.options.behaviour == "last" else []),
            f"content-length: {len(body)}",
            *(["location: /elsewhere"] if status == 302 else []),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def tell(file: Path, port: int) -> None:
    file.write_text(str(port))


async def main(options: argparse.Namespace) -> None:
    server = await asyncio.start_server(Answering(options).serve, "127.0.0.1", 0, limit=2**20, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    tell(Path(options.port_file), port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--port-file", required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--failure-rate", type=float, default=0.0)
    parser.add_argument("--width", type=int, default=10)
    parser.add_argument(
        "--behaviour", default="well", choices=["well", "close", "last", "reset", "garbage", "redirect", "retried"]
    )
    asyncio.run(main(parser.parse_args()))
