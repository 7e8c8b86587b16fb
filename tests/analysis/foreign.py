"""Tables as other load tools write them, of requests that are known.

The forms: vegeta's lib/results.go (NewCSVEncoder, NewJSONEncoder), k6's output/csv/output.go and json/wrapper.go,
Envoy's JSON access log with the fields of deploy/embedded/bootstrap.py.
"""

import base64
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

START_US = 1_700_000_000_000_000
K6_TAGS = (
    "check", "error", "error_code", "expected_response", "group", "method", "name", "proto", "scenario", "service",
    "status", "subproto", "tls_version", "url",
)  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """One request."""

    start_us: int
    latency_us: int
    status: int
    error: str
    arm: str
    cohort: str = "everyone"


def sent(
    n: int = 3000,
    shares: Mapping[str, float] | None = None,
    failing: Mapping[str, float] | None = None,
    slower: Mapping[str, float] | None = None,
    seed: int = 1,
) -> list[Sent]:
    """Requests at 50/s whose arms are drawn by their shares; latencies are lognormal around 20 ms."""
    random = np.random.default_rng(seed)
    chances = shares or {"old": 0.7, "new": 0.3}
    arms = random.choice(list(chances), size=n, p=list(chances.values()))
    made = []
    for index, arm in enumerate(map(str, arms)):
        latency = 20_000 * float(np.exp(0.3 * random.standard_normal())) * (slower or {}).get(arm, 1.0)
        fails = random.random() < (failing or {}).get(arm, 0.0)
        error = "503 Service Unavailable" if fails else ""
        made.append(Sent(START_US + 20_000 * index, round(latency), 503 if fails else 200, error, arm))
    return made


def rfc3339(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def vegeta_csv(path: Path, requests: Sequence[Sent]) -> Path:
    with path.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        for seq, one in enumerate(requests):
            header = f"Content-Type: application/json\r\nX-Splitproof-Route: split/{one.arm}\r\n"
            encoded = base64.b64encode(header.encode()).decode()
            body = base64.b64encode(b'{"predictions": []}').decode()
            times = one.start_us * 1000, one.status, one.latency_us * 1000
            lines.writerow([*times, 100, 19, one.error, body, "canary", seq, "POST", "http://127.0.0.1/", encoded])
    return path


def vegeta_json(path: Path, requests: Sequence[Sent]) -> Path:
    lines = [
        {
            "attack": "canary", "seq": seq, "code": one.status, "timestamp": rfc3339(one.start_us),
            "latency": one.latency_us * 1000, "bytes_out": 100, "bytes_in": 19, "error": one.error, "body": None,
            "method": "POST", "url": "http://127.0.0.1/", "headers": {"X-Splitproof-Route": [f"split/{one.arm}"]},
        }
        for seq, one in enumerate(requests)
    ]  # fmt: skip
    return jsonl(path, lines)


def jsonl(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return path


def k6_csv(path: Path, requests: Sequence[Sent], metric: str = "splitproof") -> Path:
    with path.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["metric_name", "timestamp", "metric_value", *K6_TAGS, "extra_tags", "metadata"])
        for one in requests:
            end = one.start_us + one.latency_us
            tags = dict.fromkeys(K6_TAGS, "") | {"scenario": "default", "status": str(one.status)}
            lines.writerow(["http_reqs", end, "1.000000", *tags.values(), "", ""])
            extra = f"cohort={one.cohort}&arm={one.arm}"
            lines.writerow([metric, end, f"{one.latency_us / 1000:f}", *tags.values(), extra, ""])
    return path


def k6_json(path: Path, requests: Sequence[Sent], metric: str = "splitproof") -> Path:
    about = {"name": metric, "type": "trend", "contains": "time", "thresholds": [], "submetrics": None}
    lines: list[dict[str, Any]] = [{"type": "Metric", "data": about, "metric": metric}]
    for one in requests:
        end = rfc3339(one.start_us + one.latency_us)
        tags = {"arm": one.arm, "cohort": one.cohort, "scenario": "default", "status": str(one.status)}
        lines.append({"metric": "http_reqs", "type": "Point", "data": {"time": end, "value": 1, "tags": tags}})
        data = {"time": end, "value": one.latency_us / 1000, "tags": tags}
        lines.append({"metric": metric, "type": "Point", "data": data})
    return jsonl(path, lines)


def envoy_json(path: Path, requests: Sequence[Sent]) -> Path:
    lines = [
        {
            "attempts": 1, "bytes_received": 100, "bytes_sent": 19, "duration_ms": one.latency_us // 1000,
            "method": "POST", "path": "/v1/models/digits:predict", "request_id": "", "response_code": one.status,
            "response_code_details": "via_upstream", "response_flags": "-", "route": f"split/{one.arm}",
            "route_name": None, "start_time": f"{one.start_us // 1_000_000}.{one.start_us % 1_000_000:06d}",
            "upstream_cluster": f"outbound|8501|{one.arm}|digits.tf-serving.svc.cluster.local",
            "upstream_host": "127.0.0.1:40001",
        }
        for one in requests
    ]  # fmt: skip
    return jsonl(path, lines)


WRITERS = {
    "vegeta.csv": vegeta_csv, "vegeta.jsonl": vegeta_json, "k6.csv": k6_csv, "k6.jsonl": k6_json,
    "envoy.jsonl": envoy_json,
}  # fmt: skip
