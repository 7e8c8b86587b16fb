"""The pods of a load, run as their containers would be: our real Locust, with the files and secrets that it is given.

What a kubelet and a DNS do is done here: ConfigMaps and Secrets become files and variables, names of Services become
addresses. A worker gets a mount namespace of its own, in which the master's run directory cannot be seen.
"""

import base64
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from plane import api
from plane.api import Api, Json
from plane.kubelet import Program, Rule, label
from plane.processes import Place

from experiments.core.home import CHECKOUT

PAGE_PORT, MEETING_PORT = 8089, 5557


def load_rule(place: Place, served: Api, app: str, names: Mapping[str, str]) -> Rule:
    """What runs in the pods of a load.

    Args:
        place: Where files go.
        served: The API server that has the ConfigMaps and Secrets.
        app: The label `app` of the pods.
        names: URL inside the cluster to one that can be reached without a DNS.
    """

    def program(pod: Json, pods: Sequence[Json]) -> Program | None:
        masters = [each for each in pods if label(each, "app") == app and label(each, "part") == "master"]
        if not masters:
            return None
        folder = place.folder / pod["metadata"]["name"]
        folder.mkdir(exist_ok=True)
        (container,) = pod["spec"]["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        for volume in pod["spec"]["volumes"]:
            if volume["name"] in mounts:
                _mount(served, pod, volume, folder / mounts[volume["name"]].strip("/").replace("/", "-"))
        address = masters[0]["status"]["podIP"]
        arguments = [_inside(folder, each, names, address) for each in container["args"]]
        command = [sys.executable, "-m", "locust", "-f", str(CHECKOUT / "loadgen" / "canary.py"), *arguments]
        if label(pod, "part") == "master":
            return Program(command, f"http://{address}:{PAGE_PORT}/", _environment(served, pod, container, folder))
        hidden = place.folder / masters[0]["metadata"]["name"]
        apart = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {hidden} && exec "$@"', "sh"]
        ready = f"tcp://{address}:{MEETING_PORT}"
        return Program([*apart, *command], ready, _environment(served, pod, container, folder))

    return Rule({"app": app, "part": None}, program)


def _inside(folder: Path, argument: str, names: Mapping[str, str], master: str) -> str:
    """An argument of the container as it is here: a mounted path, or a name that a DNS would resolve."""
    if argument.endswith("-master") and not argument.startswith("-"):
        return master
    if argument.startswith("/"):
        first, _, rest = argument.strip("/").partition("/")
        return f"{folder}/{first}/{rest}" if rest else f"{folder}/{first}"
    return names.get(argument, argument)


def _mount(served: Api, pod: Json, volume: Json, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    sources = volume.get("projected", {}).get("sources") or [volume]
    for source in sources:
        for kind, key in (("ConfigMap", "configMap"), ("Secret", "secret")):
            if key in source:
                name = source[key].get("name") or source[key]["secretName"]
                for file, content in _content(served, pod, kind, name).items():
                    (folder / file).write_bytes(content)


def _content(served: Api, pod: Json, kind: str, name: str) -> dict[str, bytes]:
    metadata = {"name": name, "namespace": pod["metadata"]["namespace"]}
    found = api.get(served, {"apiVersion": "v1", "kind": kind, "metadata": metadata})
    data = found.get("data") or {}
    if kind == "Secret":
        return {file: base64.b64decode(text) for file, text in data.items()}
    binary = {file: base64.b64decode(text) for file, text in (found.get("binaryData") or {}).items()}
    return {**{file: text.encode() for file, text in data.items()}, **binary}


def _environment(served: Api, pod: Json, container: Json, folder: Path) -> dict[str, str]:
    """The variables of the container, its home among them."""
    found = {"PYTHONPATH": str(CHECKOUT), "SPLITPROOF_RUN": ""}
    for each in container["env"]:
        if "value" in each:
            found[each["name"]] = f"{folder}/home"
            continue
        source = each["valueFrom"]["secretKeyRef"]
        found[each["name"]] = _content(served, pod, "Secret", source["name"])[source["key"]].decode()
    return found
