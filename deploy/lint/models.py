"""SP111, SP112: two arms that do not answer to one name, or are one model."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from deploy.lint.findings import Finding, Untold
from deploy.lint.world import Json, Workload, World, behind, meta, named, namespace, of, services


@dataclass(frozen=True)
class _Arm:
    """What a workload serves: under which name, from which folder of the container, and what that folder is."""

    workload: Workload
    name: str
    path: str
    source: str


def models(world: World) -> Iterator[Finding | Untold]:
    """The models of the workloads behind each Service, compared by twos."""
    for service in services(world).values():
        arms = []
        for workload in behind(world, service):
            if meta(workload.owner).get("ownerReferences"):
                continue  # a Deployment's own pods serve what it says
            found = _served(world, workload)
            if isinstance(found, str):
                yield Untold("SP111", found)
            elif found is not None:
                arms.append(found)
        for one, other in combinations(arms, 2):
            yield from _compared(service, one, other)


def _compared(service: Json, one: _Arm, other: _Arm) -> Iterator[Finding]:
    owners = f"{named(one.workload.owner)} and {named(other.workload.owner)}"
    if one.name != other.name:
        yield Finding(
            "SP111", "error", named(other.workload.owner), "MODEL_NAME",
            f"it serves {other.name!r}, and {named(one.workload.owner)} behind the same {named(service)} {one.name!r}",
            "clients ask for one name: a share of all requests as large as the other arm's gets 404",
            f"give both the same MODEL_NAME, as {one.name!r}",
        )  # fmt: skip
    if one.source == other.source and one.workload.labels != other.workload.labels:
        yield Finding(
            "SP112", "error", named(other.workload.owner), "MODEL_PATH", f"{owners} both serve {one.source}",
            "both arms are one model: whatever the split, a comparison of it with itself finds no difference",
            "give each arm a folder of its own, and mount and MODEL_PATH that lead there",
        )  # fmt: skip


def _served(world: World, workload: Workload) -> _Arm | str | None:
    """What it serves; None if it is no TensorFlow Serving, text if that cannot be told."""
    for container in workload.pod.get("containers") or []:
        words = [*(container.get("command") or []), *(container.get("args") or [])]
        if "serving" not in str(container.get("image")) and not any("--model_" in str(word) for word in words):
            continue
        variables = _variables(world, workload, container)
        if isinstance(variables, str):
            return variables
        # As the image's own entrypoint has them.
        name = _option(words, "model_name", variables) or variables.get("MODEL_NAME", "model")
        path = _option(words, "model_base_path", variables) or f"{variables.get('MODEL_BASE_PATH', '/models')}/{name}"
        return _Arm(workload, name, path, _source(workload.pod, container, path.rstrip("/")))
    return None


def _variables(world: World, workload: Workload, container: Json) -> dict[str, str] | str:
    maps = {
        str(meta(each).get("name")): each for each in of(world, "ConfigMap") if namespace(each) == workload.namespace
    }
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        name = (source.get("configMapRef") or source.get("secretRef") or {}).get("name")
        if name not in maps:
            return f"{named(workload.owner)} takes its variables from {name}, which is not there"
        data = maps[name].get("data") or {}
        found |= {f"{source.get('prefix', '')}{key}": str(value) for key, value in data.items()}
    for variable in container.get("env") or []:
        if "value" in variable:
            found[variable["name"]] = str(variable["value"])
    return found


def _option(words: list[str], option: str, variables: Mapping[str, str]) -> str | None:
    """The value of an option of the server, with its variables put in; the last one given counts."""
    found = None
    for word in words:
        key, _, value = str(word).partition("=")
        if key.lstrip("-") == option:
            found = re.sub(r"\$\((\w+)\)", lambda match: variables.get(match[1], match[0]), value)
    return found


def _source(pod: Json, container: Json, path: str) -> str:
    """What a folder of the container is outside of it: a folder of the node, of a claim, or of the image."""
    mounts = sorted(container.get("volumeMounts") or [], key=lambda mount: -len(mount["mountPath"]))
    volumes = {volume["name"]: volume for volume in pod.get("volumes") or []}
    for mount in mounts:
        top = mount["mountPath"].rstrip("/")
        if path == top or path.startswith(f"{top}/"):
            inside = "/".join(part for part in (mount.get("subPath", ""), path[len(top) :].strip("/")) if part)
            return f"{_volume(volumes.get(mount['name'], {}))}/{inside}".rstrip("/")
    return f"{path} of the image {container.get('image')}"


def _volume(volume: Json) -> str:
    if "hostPath" in volume:
        return str(volume["hostPath"].get("path", "")).rstrip("/")
    if "persistentVolumeClaim" in volume:
        return f"claim {volume['persistentVolumeClaim'].get('claimName')}:"
    return str({key: value for key, value in volume.items() if key != "name"})
