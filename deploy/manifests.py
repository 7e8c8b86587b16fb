"""Experiment and phase → the Kubernetes and Istio objects that serve it (pure, but for a user's own VirtualService).

Two profiles. `tutorial` is the canary lab's YAML field by field: Istio's old API version, no route header.
`hardened`, the default, adds what a real cluster needs; what it adds stands in `deploy.hardening`.
"""

import re
from collections.abc import Iterable, Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from deploy.form import DEFAULT_FORM, ISTIO_APIS, MANAGED_BY, Form, Manifest, Profile
from deploy.hardening import GRPC_PORT, harden
from experiments.core.errors import ExperimentError
from experiments.core.reading import Loaded
from experiments.core.routing import SERVICE_PORT, http_routes
from experiments.core.spec import Experiment, Phase

__all__ = [
    "DEFAULT_FORM",
    "ISTIO_APIS",
    "MANAGED_BY",
    "Form",
    "Manifest",
    "Profile",
    "gateway_name",
    "manifests",
    "phase_http",
    "render",
    "virtual_service",
]

_GATEWAY_LABELS = {"istio": "ingressgateway"}
_IMAGES: Mapping[Profile, str] = {"tutorial": "tensorflow/serving:2.5.1", "hardened": "tensorflow/serving:2.20.0"}
_ISTIO: Mapping[Profile, str] = {"tutorial": "networking.istio.io/v1alpha3", "hardened": "networking.istio.io/v1"}


def manifests(loaded: Loaded, phase: Phase, form: Form = DEFAULT_FORM) -> list[Manifest]:
    """The objects of a phase, in the order in which they depend on each other.

    Args:
        loaded: The experiment, and the folder that a user's VirtualService file is relative to.
        phase: Arms that are not deployed in it have no Deployment; the plain Service has no DestinationRule.
        form: Profile, model volume, API version of Istio, image.

    Raises:
        ExperimentError: the phase names a VirtualService file that cannot be read or is none.
    """
    experiment = loaded.experiment
    arms = experiment.deployed(phase)
    found = [
        _namespace(experiment),
        *(_config_map(experiment, arm) for arm in arms),
        *(_deployment(experiment, arm, form) for arm in arms),
        _service(experiment),
        _gateway(experiment, form),
    ]
    if not phase.route.service:
        found.append(_destination_rule(experiment, form))
    found.append(virtual_service(loaded, phase, form))
    return found if form.profile == "tutorial" else harden(experiment, arms, found, form)


def phase_http(loaded: Loaded, phase: Phase) -> list[dict[str, Any]]:
    """The `spec.http` of a phase, whether generated or from the user's own file.

    Raises:
        ExperimentError: the file cannot be read or holds no VirtualService.
    """
    http: list[dict[str, Any]] = virtual_service(loaded, phase)["spec"]["http"]
    return http


def virtual_service(loaded: Loaded, phase: Phase, form: Form = DEFAULT_FORM) -> Manifest:
    """The VirtualService of a phase: generated, or the user's own as it is."""
    if phase.route.virtual_service is not None:
        return _own_virtual_service(loaded, phase.route.virtual_service)
    experiment = loaded.experiment
    spec = {
        "hosts": ["*"],
        "gateways": [gateway_name(experiment)],
        "http": http_routes(experiment, phase, header=form.profile != "tutorial"),
    }
    return {**_head(experiment, _istio(form), "VirtualService", experiment.service), "spec": spec}


def gateway_name(experiment: Experiment) -> str:
    """The name of the Gateway that lets traffic in."""
    return f"{experiment.service}-gateway"


def render(documents: Iterable[Manifest]) -> str:
    """YAML documents, as `kubectl apply -f -` reads them; equal manifests give equal text."""
    out = StringIO()
    _dumper().dump_all(list(documents), out)
    return out.getvalue()


_YAML_1_1_WORDS = re.compile(r"(?i)y|n|yes|no|on|off|\d.*")


def _dumper() -> Any:
    """A YAML 1.2 writer whose text means the same to YAML 1.1 readers, of which kubectl is one."""

    def quoted_where_needed(representer: Any, text: str) -> Any:
        style = '"' if _YAML_1_1_WORDS.fullmatch(text) else None
        return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.explicit_start = True
    yaml.representer.ignore_aliases = lambda _: True
    yaml.representer.add_representer(str, quoted_where_needed)
    return yaml


def _istio(form: Form) -> str:
    return form.istio_api or _ISTIO[form.profile]


def _head(experiment: Experiment, api: str, kind: str, name: str, labels: Mapping[str, str] | None = None) -> Manifest:
    metadata: dict[str, Any] = {"name": name, "namespace": experiment.namespace}
    return {"apiVersion": api, "kind": kind, "metadata": {**metadata, "labels": dict(labels)} if labels else metadata}


def _namespace(experiment: Experiment) -> Manifest:
    metadata = {"name": experiment.namespace, "labels": {"istio-injection": "enabled"}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _config_map(experiment: Experiment, arm: str) -> Manifest:
    data = {"MODEL_NAME": experiment.model, "MODEL_PATH": _mount_path(arm)}
    return {**_head(experiment, "v1", "ConfigMap", f"{arm}-configs"), "data": data}


def _mount_path(arm: str) -> str:
    return f"/models/{arm}"


def _pod_labels(experiment: Experiment, arm: str) -> dict[str, str]:
    return {"app": experiment.service, "version": arm}


def _deployment(experiment: Experiment, arm: str, form: Form) -> Manifest:
    labels = _pod_labels(experiment, arm)
    volume = {"name": "model", **_model_source(arm, form)}
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": dict(labels)},
        "template": {
            "metadata": {"labels": dict(labels)},
            "spec": {"containers": [_container(arm, form)], "volumes": [volume]},
        },
    }
    return {**_head(experiment, "apps/v1", "Deployment", f"{experiment.service}-{arm}", labels), "spec": spec}


def _container(arm: str, form: Form) -> dict[str, Any]:
    return {
        "name": "tf-serving",
        "image": form.image or _IMAGES[form.profile],
        "args": ["--model_name=$(MODEL_NAME)", "--model_base_path=$(MODEL_PATH)"],
        "envFrom": [{"configMapRef": {"name": f"{arm}-configs"}}],
        "imagePullPolicy": "IfNotPresent",
        "ports": [
            {"name": "http", "containerPort": SERVICE_PORT, "protocol": "TCP"},
            {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
        ],
        "volumeMounts": [_model_mount(arm, form)],
    }


def _model_source(arm: str, form: Form) -> dict[str, Any]:
    if form.model_claim is not None:
        return {"persistentVolumeClaim": {"claimName": form.model_claim}}
    return {"hostPath": {"path": f"{form.model_root.rstrip('/')}/{arm}"}}


def _model_mount(arm: str, form: Form) -> dict[str, Any]:
    """Where the arm's model is in the container; of a claim, which all arms share, only the arm's own folder."""
    mount = {"name": "model", "mountPath": _mount_path(arm)}
    return mount if form.model_claim is None else {**mount, "subPath": arm}


def _service(experiment: Experiment) -> Manifest:
    name = experiment.service
    ports = [
        {"port": GRPC_PORT, "protocol": "TCP", "name": "tf-serving-grpc"},
        {"port": SERVICE_PORT, "protocol": "TCP", "name": "tf-serving-http"},
    ]
    spec = {"type": "ClusterIP", "ports": ports, "selector": {"app": name}}
    return {**_head(experiment, "v1", "Service", name, {"app": name, "service": name}), "spec": spec}


def _gateway(experiment: Experiment, form: Form) -> Manifest:
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    head = _head(experiment, _istio(form), "Gateway", gateway_name(experiment))
    return {**head, "spec": {"selector": dict(_GATEWAY_LABELS), "servers": [server]}}


def _destination_rule(experiment: Experiment, form: Form) -> Manifest:
    """A subset for every arm, deployed or not: the lab defines both before the canary is there."""
    subsets = [{"name": arm, "labels": {"version": arm}} for arm in sorted(experiment.arms)]
    head = _head(experiment, _istio(form), "DestinationRule", experiment.service)
    return {**head, "spec": {"host": experiment.service, "subsets": subsets}}


def _own_virtual_service(loaded: Loaded, name: str) -> Manifest:
    path = loaded.folder / name
    try:
        documents = [document for document in YAML(typ="safe").load_all(path.read_text(encoding="utf-8")) if document]
    except OSError as error:
        raise ExperimentError(
            f"{path}: cannot be read: {error.strerror}; check the phase's virtual_service."
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path}: not readable as YAML: {' '.join(str(error).split())}; mend it.") from error
    kinds = [document.get("kind") if isinstance(document, dict) else None for document in documents]
    if kinds != ["VirtualService"]:
        shown = ", ".join(str(kind) for kind in kinds) or "nothing"
        raise ExperimentError(f"{path}: must hold one VirtualService and nothing else; it holds {shown}; split it.")
    return _checked(documents[0], str(path))


def _checked(manifest: Manifest, where: str) -> Manifest:
    api = str(manifest.get("apiVersion"))
    if not api.startswith("networking.istio.io/"):
        raise ExperimentError(f"{where}: apiVersion {api!r} is not Istio's; write networking.istio.io/v1.")
    http = (manifest.get("spec") or {}).get("http")
    if not isinstance(http, list) or not http:
        raise ExperimentError(f"{where}: spec.http must be a list of routes; there is none; write one.")
    if not (manifest.get("metadata") or {}).get("name"):
        raise ExperimentError(f"{where}: metadata.name is missing; add it.")
    return manifest
