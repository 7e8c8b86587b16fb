"""The parts of Argo Rollouts and of Flagger, played by what the shipped manifests say: none of it is said here again.

What a controller makes of an answer is from the two programs' own sources: `EvaluateResult` of argo-rollouts'
utils/evaluate and its web provider; `callWebhook` of Flagger's pkg/controller.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from ruamel.yaml import YAML

from experiments.core.home import CHECKOUT

FOLDER = CHECKOUT / "docs" / "ci"
SUCCESSFUL, FAILED, INCONCLUSIVE, ERROR, RUNNING = "Successful", "Failed", "Inconclusive", "Error", "Running"


def manifests(name):
    """The documents of a shipped file."""
    return list(YAML(typ="safe").load_all((FOLDER / name).read_text(encoding="utf-8")))


def template(name, kind):
    """The metrics of Argo's analysis template with a provider of a kind: `job` or `web`."""
    (metric,) = [one for document in manifests(name) for one in document["spec"]["metrics"] if kind in one["provider"]]
    return metric


def at(address, url):
    """The same URL on another host."""
    parts = urlsplit(url)
    return parts._replace(netloc=address).geturl()


def asked(url, body=None, headers=()):
    """Status and body of an answer, whatever the status."""
    try:
        request = urllib.request.Request(url, body, dict(headers))  # noqa: S310 - ours
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - ours
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def holds(condition, result):
    """A condition of Argo, as far as ours go: `result == "words"`."""
    found = re.fullmatch(r'result == "([^"]*)"', condition)
    assert found, f"{condition}: this player of Argo's part knows no such condition; teach it"
    return result == found[1]


def found_at(path, value):
    """What a JSONPath of the form `{$.key.key}` names."""
    keys = re.fullmatch(r"\{\$((?:\.\w+)+)\}", path)
    assert keys, f"{path}: this player of Argo's part knows no such path; teach it"
    for key in keys[1].strip(".").split("."):
        value = value[key]
    return value


def argo_web(address, arguments):
    """The phase of one measurement of the shipped web metric against an endpoint, and the result that it saw."""
    metric = template("argo-rollouts.yaml", "web")
    web = metric["provider"]["web"]
    url = re.sub(r"\{\{args\.(\w+)\}\}", lambda name: arguments[name[1]], web["url"])
    body = web["jsonBody"].encode() if "jsonBody" in web else None
    status, answer = asked(at(address, url), body)
    if not 200 <= status < 300:
        return ERROR, None
    result = found_at(web["jsonPath"], answer)
    success, failure = (holds(metric[f"{name}Condition"], result) for name in ("success", "failure"))
    return (FAILED if failure else SUCCESSFUL if success else INCONCLUSIVE), result


def argo_job(runs, folder):
    """The phase of the shipped Job with its volume at a folder, and what it said; ended where it would go on waiting.

    A Job that has no deadline and no second try fails with its first failed container.
    """
    spec = template("argo-rollouts.yaml", "job")["provider"]["job"]["spec"]
    assert spec["backoffLimit"] == 0
    assert "activeDeadlineSeconds" not in spec
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], "activeDeadlineSeconds" in pod) == ("Never", False)
    (container,) = pod["containers"]
    mounted = {mount["mountPath"]: str(runs) for mount in container["volumeMounts"]}
    variables = {one["name"]: mounted[one["value"]] for one in container["env"]}
    program, *words = container["command"]
    assert program == "python"
    said = folder / "said.txt"
    with said.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=CHECKOUT, env={**os.environ, **variables}, stderr=stream
        )
        waits = _until(lambda: process.poll() is not None or "pause: " in said.read_text())
    try:
        code = process.wait(3 if waits and process.poll() is None else 60)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        return RUNNING, said.read_text()
    return (FAILED if code else SUCCESSFUL), said.read_text()


def _until(done):
    for _ in range(600):
        if done():
            return True
        time.sleep(0.1)
    return False


def webhooks():
    """The shipped webhooks of Flagger by their type."""
    (canary,) = manifests("flagger.yaml")
    return canary, {hook["type"]: hook for hook in canary["spec"]["analysis"]["webhooks"]}


def flagger(address):
    """What the shipped Canary's webhooks make Flagger do: promote, roll back, or wait; and what it is told."""
    canary, hooks = webhooks()
    assert set(hooks) == {"confirm-promotion", "rollback"}
    said = {}
    for kind, hook in hooks.items():
        payload = {
            "name": canary["metadata"]["name"], "namespace": canary["metadata"]["namespace"], "phase": "Progressing",
            "metadata": hook["metadata"],
        }  # fmt: skip
        status, answer = asked(
            at(address, hook["url"]), json.dumps(payload).encode(), [("Content-Type", "application/json")]
        )
        said[kind] = (status <= 202, answer["sentence"])  # Flagger's own rule: more is an error
    if said["rollback"][0]:
        return "roll back", said["rollback"][1]
    return ("promote" if said["confirm-promotion"][0] else "wait"), said["confirm-promotion"][1]
