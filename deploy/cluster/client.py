"""The Kubernetes API through the official client: a context that was chosen, and requests with their retries."""

import json
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from yaml import YAMLError

from deploy.cluster.refusals import GONE, RETRIED, ApiError, Asked, refusal, unreachable
from experiments.core.errors import StackError

Json = dict[str, Any]

IN_CLUSTER = "in-cluster"
"""The name of the context of a process that itself runs in a pod."""

_TIMEOUT_S = (5.0, 30.0)
_ATTEMPTS = 6
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 15.0
_UNREADABLE = (config.ConfigException, YAMLError, OSError, ValueError, TypeError, AttributeError)
"""What the library raises for files that are no kubeconfig, or half of one."""
_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True)
class Cluster:
    """An API server, by the context that the user chose."""

    context: str
    server: str
    api: Any = field(repr=False, compare=False)
    resources: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        return f"context {self.context} ({self.server})"


def connect(context: str | None = None) -> Cluster:
    """The cluster of a context of `$KUBECONFIG` or `~/.kube/config`, or the one that this process runs in.

    Raises:
        StackError: no context; several and none chosen; none of that name; a file that is no kubeconfig.
    """
    if context == IN_CLUSTER or (context is None and not _has_kubeconfig() and _TOKEN.exists()):
        return _in_cluster()
    chosen = _choose(context)
    settings = client.Configuration()
    settings.retries = False  # ours are in `request`: they know what may be repeated, and for how long
    try:
        api = config.new_client_from_config(
            config_file=_kubeconfig(), context=chosen, client_configuration=settings, persist_config=False
        )
    except _UNREADABLE as error:
        raise StackError(
            f"context {chosen}: cannot be used: {' '.join(str(error).split())}; mend the kubeconfig."
        ) from error
    return Cluster(chosen, str(api.configuration.host), api)


def _in_cluster() -> Cluster:
    settings = client.Configuration()
    settings.retries = False
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException as error:
        raise StackError(f"context {IN_CLUSTER}: {error}; run in a pod, or choose another with --context.") from error
    return Cluster(IN_CLUSTER, str(settings.host), client.ApiClient(settings))


def _kubeconfig() -> str:
    """The paths to look at, read now: the library reads the variable once, when it is imported."""
    return os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def _has_kubeconfig() -> bool:
    return any(Path(path).expanduser().exists() for path in _kubeconfig().split(os.pathsep) if path)


def _choose(context: str | None) -> str:
    """The context to use: never one that the user did not choose where there are several."""
    try:
        found, _ = config.list_kube_config_contexts(config_file=_kubeconfig())
    except _UNREADABLE as error:
        told = " ".join(str(error).split())
        raise StackError(
            f"no kubeconfig to use: {told}; set KUBECONFIG, or make one with your cluster's tool."
        ) from error
    names = [str(each["name"]) for each in found]
    listed = ", ".join(names)
    if context is not None and context not in names:
        raise StackError(f"--context {context}: is not in the kubeconfig, which has: {listed or 'none'}; name one.")
    if context is None and len(names) != 1:
        raise StackError(f"the kubeconfig has {len(names)} contexts ({listed}); choose one with --context.")
    return context or names[0]


def request(
    cluster: Cluster,
    asked: Asked,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    body: Json | None = None,
    content: str = "application/json",
) -> Json:
    """One request and its decoded answer, repeated where another attempt may mend it.

    What is no JSON, such as a log, is returned under the key "text".

    A 429 is repeated after its Retry-After, server errors and broken connections after a growing pause; everything that
    we send may be sent twice (reads, applies, deletes of one uid).

    Raises:
        ApiError: the last answer was 400 or more, or there was none.
    """
    target = f"{path}?{urlencode(query)}" if query else path
    for attempt in range(1, _ATTEMPTS + 1):
        pause = pause_s(attempt)
        try:
            response = _send(cluster, method, target, body, content)
            answer = response.read()
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            if attempt == _ATTEMPTS or isinstance(error, urllib3.exceptions.SSLError):
                raise unreachable(str(cluster), asked, error) from error
        else:
            if response.status < 400:  # noqa: PLR2004 - HTTP
                return _decoded(answer)
            if attempt == _ATTEMPTS or response.status not in RETRIED:
                raise refusal(str(cluster), asked, response.status, answer)
            pause = _retry_after(response.headers) or pause
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def pause_s(attempt: int) -> float:
    """Seconds to wait after an attempt, the first being 1; partly by chance, so that not all come back at once."""
    return min(_FIRST_PAUSE_S * 2.0**attempt, _LONGEST_PAUSE_S) * random.uniform(0.5, 1)  # noqa: S311 - spreads load


def _decoded(answer: bytes) -> Json:
    if not answer.startswith(b"{"):
        return {"text": answer.decode(errors="replace")}
    found: Json = json.loads(answer)
    return found


def _retry_after(headers: Mapping[str, str]) -> float | None:
    given = headers.get("Retry-After", "")
    return min(float(given), _LONGEST_PAUSE_S) if given.isdigit() else None


def _send(
    cluster: Cluster, method: str, target: str, body: Json | None, content: str, timeout: Any = _TIMEOUT_S
) -> Any:
    headers = {"Accept": "application/json", **({"Content-Type": content} if body is not None else {})}
    prepared = cluster.api.param_serialize(
        method, target, header_params=headers, body=body, auth_settings=["BearerToken"]
    )
    return cluster.api.call_api(*prepared, _request_timeout=timeout).response


def stream(cluster: Cluster, asked: Asked, path: str, query: Mapping[str, str], seconds: int) -> Iterator[Json]:
    """The events of a watch, until the server ends it or `seconds` are over.

    Raises:
        ApiError: it is refused, with status 410 where it must begin anew from a list; or it breaks off.
    """
    target = f"{path}?{urlencode({**query, 'watch': 'true', 'timeoutSeconds': str(seconds)})}"
    try:
        response = _send(cluster, "GET", target, None, "", (_TIMEOUT_S[0], seconds + _TIMEOUT_S[1]))
        if response.status >= 400:  # noqa: PLR2004 - HTTP
            raise refusal(str(cluster), asked, response.status, response.read())
        for line in _lines(response.stream(2**16)):
            event: Json = json.loads(line)
            if event.get("type") == "ERROR":
                code = int((event.get("object") or {}).get("code") or GONE)
                raise refusal(str(cluster), asked, code, json.dumps(event["object"]).encode())
            yield event
    except (urllib3.exceptions.HTTPError, ApiException, OSError, ValueError) as error:
        raise unreachable(str(cluster), asked, error) from error


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())


def is_status(error: StackError, statuses: Sequence[int]) -> bool:
    """Whether an error is an answer with one of these HTTP statuses."""
    return isinstance(error, ApiError) and error.status in statuses
