"""What every measurement here needs: an nginx that answers as TensorFlow Serving would, and loads against it."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.core import records
from experiments.core.home import CHECKOUT

EXPERIMENT = """
model: m
arms:
  one: {{digits: {{hidden: [16]}}}}
  two: {{digits: {{hidden: [32]}}}}
payloads: {{digits: 3}}
phases:
  - {{name: split, route: {{one: 50, two: 50}}, for: 30s}}
load: {load}
"""

NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 2000; }}
http {{
  log_format ids '$http_x_request_id';
  access_log {log};
  client_max_body_size 2m; client_body_buffer_size 256k; keepalive_requests 1000000000;
  server {{
    listen 127.0.0.1:{port};
    default_type application/json;
    add_header x-splitproof-route split/one;
    location /status {{ stub_status; access_log off; }}
    location / {{ {variables} return 200 "{answer}"; }}
  }}
}}
"""


def request_body(size: int) -> bytes:
    """A TensorFlow Serving request of about `size` bytes."""
    return json.dumps({"instances": [[0.12345678] * (size // 12)]}).encode()


def answer_body(size: int) -> bytes:
    """An answer of about `size` bytes."""
    return json.dumps({"predictions": [[0.00012345678] * max(size // 18, 2)]}).encode()


@contextlib.contextmanager
def nginx(folder: Path, port: int, answer: bytes, *, log: str = "off", core: int | None = None) -> Iterator[str]:
    """The URL of an nginx that reads each request whole and gives one answer; `log` is its access_log."""
    # One parameter of its configuration holds 4 KB at most, so the answer is put together from several.
    quoted = answer.decode().replace("\\", "\\\\").replace('"', '\\"')
    pieces = [quoted[at : at + 3000] for at in range(0, len(quoted), 3000)]
    variables = " ".join(f'set $p{index} "{piece}";' for index, piece in enumerate(pieces))
    joined = "".join(f"${{p{index}}}" for index in range(len(pieces)))
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, log=log, variables=variables, answer=joined))
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    process = subprocess.Popen([*pinned, "nginx", "-c", str(config), "-p", str(folder)], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_for_port(port: int, patience: float = 10.0) -> None:
    """Until something listens."""
    import socket

    end = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


@dataclass(frozen=True)
class Load:
    """Our locustfile in a folder of its own."""

    folder: Path

    def start(
        self, url: str, load: str, payloads: dict[str, bytes], *arguments: str, log: str = "locust.log"
    ) -> "subprocess.Popen[bytes]":
        """Start Locust; what it says goes to a file."""
        experiment = self.folder / "bench.yaml"
        experiment.write_text(EXPERIMENT.format(load=load))
        given = []
        for name, body in payloads.items():
            (self.folder / f"{name}.json").write_bytes(body)
            given += ["--payload", str(self.folder / f"{name}.json")]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPLITPROOF_", "LOCUST_"))}
        with (self.folder / log).open("wb") as out:
            return subprocess.Popen(
                [
                    sys.executable, "-m", "locust", "-f", str(CHECKOUT / "loadgen" / "canary.py"), "--headless",
                    "--host", url, "--experiment", str(experiment), "--runs", str(self.folder / "runs"),
                    "--only-summary", *given, *arguments,
                ],
                cwd=self.folder,
                env={**kept, "SPLITPROOF_HOME": str(self.folder / "home"), "PYTHONPATH": str(CHECKOUT)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def runs(self) -> list[records.RunDir]:
        """Every run so far, the oldest first."""
        return [
            records.RunDir(path) for path in sorted((self.folder / "runs").glob("*/*"), key=lambda p: p.stat().st_ctime)
        ]
