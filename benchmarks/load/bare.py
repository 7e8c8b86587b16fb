"""The peer: a Locust user who makes the same calls with FastHttpUser, and neither attributes nor records."""

import os
from pathlib import Path

from locust import FastHttpUser, task

BODY = Path(os.environ["BENCH_BODY"]).read_bytes()
HEADERS = {"content-type": "application/json", "accept": "application/json"}


class Bare(FastHttpUser):
    """Waits for each answer, then asks again."""

    wait_time = staticmethod(lambda: 0.0)

    @task
    def predict(self) -> None:
        """One call."""
        self.client.post("/v1/models/m:predict", data=BODY, headers=HEADERS)
