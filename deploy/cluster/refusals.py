"""What the API server refuses, as one sentence: what was asked, where, why not, what to do."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.core.errors import StackError

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, GONE, INVALID, TOO_MANY = 401, 403, 404, 409, 410, 422, 429
RETRIED = frozenset({TOO_MANY, 500, 502, 503, 504})
"""Statuses that another attempt may mend."""


_NOT_RIGHTS = (
    "admission webhook",
    "ValidatingAdmissionPolicy",
    "violates PodSecurity",
    "exceeded quota",
    "being terminated",
)
"""A 403 is also what admission answers, to whom every right is granted."""


class ApiError(StackError):
    """The API server refused a request; `status` is its HTTP status, 0 if there was no answer."""

    def __init__(self, status: int, sentence: str, causes: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.causes = causes


@dataclass(frozen=True)
class Asked:
    """What was asked of the API server, for people: `patch deployments.apps web in namespace shop`."""

    verb: str
    resource: str
    name: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{f' {self.name}' if self.name else ''}{where}"


def refusal(where: str, asked: Asked, status: int, body: bytes) -> ApiError:
    """The error for an answer of 400 or more.

    Args:
        where: The cluster, for people.
        asked: What was asked of it.
        status: HTTP status.
        body: What came with it, a Kubernetes `Status` as a rule.
    """
    found = _status(body)
    message = " ".join(str(found.get("message") or body[:200].decode(errors="replace")).split())
    causes = (found.get("details") or {}).get("causes") or []
    return ApiError(status, f"{where}: {_sentence(asked, status, message, causes)}", causes)


def unreachable(where: str, asked: Asked, error: Exception) -> ApiError:
    """The error for no answer at all."""
    told = " ".join(str(getattr(error, "reason", None) or error).split())
    return ApiError(
        0, f"{where}: no answer to {asked}: {told}; check the network and the context's server, run it again."
    )


def owners(causes: Sequence[Mapping[str, str]]) -> str:
    """The fields of a conflict, each with who owns it."""
    return "; ".join(f"{cause.get('field', '?')}: {cause.get('message', '')}" for cause in causes)


def _status(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _sentence(asked: Asked, status: int, message: str, causes: Sequence[Mapping[str, str]]) -> str:
    if status == UNAUTHORIZED:
        return f"does not accept the context's credentials (401, to {asked}); log in again."
    if status == FORBIDDEN and not any(words in message for words in _NOT_RIGHTS):
        rule = f"grant the verb {asked.verb!r} on {asked.resource!r}"
        return f"forbids to {asked} (403): {message}; {rule} (deploy/rbac has the roles that each mode needs)."
    if status == CONFLICT and causes:
        return (
            f"did not {asked}: others own fields that we would change ({owners(causes)}); --force-conflicts takes them "
            "over."
        )
    if status == NOT_FOUND:
        return f"cannot {asked}: there is none (404): {message}; create it first."
    if status == INVALID:
        return f"refuses to {asked} as invalid (422): {message}; mend the experiment."
    if status == TOO_MANY:
        return f"has too many requests to {asked} (429): {message}; wait, and run it again."
    if status in RETRIED:
        return f"failed to {asked} ({status}): {message}; run it again."
    return f"refuses to {asked} ({status}): {message}; mend what it names."
