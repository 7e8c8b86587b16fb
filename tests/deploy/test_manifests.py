"""The expected objects are the canary lab's own YAML, typed in by hand from its text."""

import pytest
from ruamel.yaml import YAML

from deploy.manifests import Form, manifests, phase_http, render
from experiments.core import reading
from experiments.core.errors import ExperimentError

LAB_YAML = """
apiVersion: v1
kind: ConfigMap
metadata: {name: resnet50-configs, namespace: tf-serving}
data: {MODEL_NAME: image_classifier, MODEL_PATH: /models/resnet50}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: resnet101-configs, namespace: tf-serving}
data: {MODEL_NAME: image_classifier, MODEL_PATH: /models/resnet101}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: image-classifier-resnet50
  namespace: tf-serving
  labels: {app: image-classifier, version: resnet50}
spec:
  replicas: 1
  selector:
    matchLabels: {app: image-classifier, version: resnet50}
  template:
    metadata:
      labels: {app: image-classifier, version: resnet50}
    spec:
      containers:
      - name: tf-serving
        image: "tensorflow/serving:2.5.1"
        args: ["--model_name=$(MODEL_NAME)", "--model_base_path=$(MODEL_PATH)"]
        envFrom: [{configMapRef: {name: resnet50-configs}}]
        imagePullPolicy: IfNotPresent
        ports:
        - {name: http, containerPort: 8501, protocol: TCP}
        - {name: grpc, containerPort: 8500, protocol: TCP}
        volumeMounts: [{name: model, mountPath: /models/resnet50}]
      volumes:
      - {name: model, hostPath: {path: /home/hoang/Downloads/resnet50}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: image-classifier-resnet101
  namespace: tf-serving
  labels: {app: image-classifier, version: resnet101}
spec:
  replicas: 1
  selector:
    matchLabels: {app: image-classifier, version: resnet101}
  template:
    metadata:
      labels: {app: image-classifier, version: resnet101}
    spec:
      containers:
      - name: tf-serving
        image: "tensorflow/serving:2.5.1"
        args: ["--model_name=$(MODEL_NAME)", "--model_base_path=$(MODEL_PATH)"]
        envFrom: [{configMapRef: {name: resnet101-configs}}]
        imagePullPolicy: IfNotPresent
        ports:
        - {name: http, containerPort: 8501, protocol: TCP}
        - {name: grpc, containerPort: 8500, protocol: TCP}
        volumeMounts: [{name: model, mountPath: /models/resnet101}]
      volumes:
      - {name: model, hostPath: {path: /home/hoang/Downloads/resnet101}}
---
apiVersion: v1
kind: Service
metadata:
  name: image-classifier
  namespace: tf-serving
  labels: {app: image-classifier, service: image-classifier}
spec:
  type: ClusterIP
  ports:
  - {port: 8500, protocol: TCP, name: tf-serving-grpc}
  - {port: 8501, protocol: TCP, name: tf-serving-http}
  selector: {app: image-classifier}
---
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata: {name: image-classifier-gateway, namespace: tf-serving}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: image-classifier, namespace: tf-serving}
spec:
  host: image-classifier
  subsets:
  - {name: resnet101, labels: {version: resnet101}}
  - {name: resnet50, labels: {version: resnet50}}
"""
TO_50 = {"destination": {"host": "image-classifier", "subset": "resnet50", "port": {"number": 8501}}}
TO_101 = {"destination": {"host": "image-classifier", "subset": "resnet101", "port": {"number": 8501}}}
# The `spec.http` of virtual-service.yaml, -weight-100.yaml, -weight-70.yaml and -focused-routing.yaml.
LAB_HTTP = {
    "no-destination-rule": [{"route": [{"destination": {"host": "image-classifier", "port": {"number": 8501}}}]}],
    "all-to-baseline": [{"route": [{**TO_50, "weight": 100}, {**TO_101, "weight": 0}]}],
    "split": [{"route": [{**TO_50, "weight": 70}, {**TO_101, "weight": 30}]}],
    "focused": [
        {"match": [{"headers": {"user-group": {"exact": "canary"}}}], "route": [TO_101]},
        {"route": [TO_50]},
    ],
}


def lab_virtual_service(phase):
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "VirtualService",
        "metadata": {"name": "image-classifier", "namespace": "tf-serving"},
        "spec": {"hosts": ["*"], "gateways": ["image-classifier-gateway"], "http": LAB_HTTP[phase]},
    }


def named(objects):
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


@pytest.fixture(scope="module")
def lab():
    return reading.load("lab")


def of_phase(loaded, name, form=Form()):  # noqa: B008 - frozen
    return manifests(loaded, loaded.experiment.phase(name), form)


@pytest.mark.parametrize("phase", ["all-to-baseline", "split", "focused"])
def test_the_tutorial_profile_is_the_lab_field_by_field(lab, phase):
    ours = named(of_phase(lab, phase, Form("tutorial", "/home/hoang/Downloads")))
    theirs = named(YAML(typ="safe").load_all(LAB_YAML))
    # `kubectl create ns` and `kubectl label ns`: the lab has no YAML for the namespace.
    labels = {"istio-injection": "enabled"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tf-serving", "labels": labels}}
    assert ours.pop(("Namespace", "tf-serving")) == namespace
    assert ours.pop(("VirtualService", "image-classifier")) == lab_virtual_service(phase)
    assert ours == theirs


def test_the_lab_first_serves_the_baseline_alone_without_a_destination_rule(lab):
    ours = named(of_phase(lab, "baseline-alone", Form("tutorial", "/home/hoang/Downloads")))
    assert {name for kind, name in ours if kind == "Deployment"} == {"image-classifier-resnet50"}
    assert not any(kind == "DestinationRule" for kind, _ in ours)
    assert ours["VirtualService", "image-classifier"] == lab_virtual_service("no-destination-rule")


def test_the_hardened_profile_adds_route_header_protocols_and_our_label(lab):
    ours = named(of_phase(lab, "split"))
    route = ours["VirtualService", "image-classifier"]["spec"]["http"][0]["route"]
    values = [entry["headers"]["response"]["set"]["x-splitproof-route"] for entry in route]
    assert values == ["split/resnet50", "split/resnet101"]
    ports = ours["Service", "image-classifier"]["spec"]["ports"]
    assert [(port["name"], port["appProtocol"]) for port in ports] == [
        ("tf-serving-grpc", "grpc"),
        ("tf-serving-http", "http"),
    ]
    unmarked = {
        key for key, each in ours.items() if "app.kubernetes.io/managed-by" not in each["metadata"].get("labels", {})
    }
    assert unmarked == {("Namespace", "tf-serving")}


def test_any_number_of_arms(tmp_path):
    arms = "".join(f"  arm{index}: {{keras: ResNet50, seed: {index}}}\n" for index in range(5))
    weights = ", ".join(f"arm{index}: {index}" for index in range(5))
    file = tmp_path / "five.yaml"
    file.write_text(f"arms:\n{arms}payloads: [x.jpg]\nphases:\n  - {{name: p, route: {{{weights}}}}}\n")
    loaded = reading.load(str(file))
    ours = named(of_phase(loaded, "p"))
    assert sum(kind == "Deployment" for kind, _ in ours) == 5
    subsets = ours["DestinationRule", "image-classifier"]["spec"]["subsets"]
    assert [subset["name"] for subset in subsets] == [f"arm{index}" for index in range(5)]


def test_what_is_rendered_reads_back_equal_and_is_the_same_every_time(lab):
    for phase in lab.experiment.phases:
        objects = manifests(lab, phase)
        text = render(objects)
        assert list(YAML(typ="safe").load_all(text)) == objects
        assert text == render(manifests(lab, phase))


def test_words_that_old_yaml_readers_take_for_booleans_are_quoted(tmp_path):
    file = tmp_path / "words.yaml"
    file.write_text(
        'arms: {"on": {keras: A}, "no": {keras: B}}\npayloads: [x]\nphases: [{name: "y", route: {"on": 1}}]\n'
    )
    loaded = reading.load(str(file))
    yaml_1_1 = YAML(typ="safe", pure=True)
    yaml_1_1.version = "1.1"
    objects = manifests(loaded, loaded.experiment.phases[0])
    assert list(yaml_1_1.load_all(render(objects))) == objects


OWN = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mine}
spec: {hosts: ["*"], gateways: [image-classifier-gateway], http: [{route: [{destination: {host: image-classifier}}]}]}
"""


def with_own(tmp_path, text):
    (tmp_path / "vs.yaml").write_text(text)
    file = tmp_path / "own.yaml"
    file.write_text(
        "arms: {a: {keras: A}, b: {keras: B}}\npayloads: [x]\nphases: [{name: p, route: {virtual_service: vs.yaml}}]\n"
    )
    return reading.load(str(file))


def test_a_users_own_virtual_service_is_used_as_it_is(tmp_path):
    loaded = with_own(tmp_path, OWN)
    found = named(of_phase(loaded, "p", Form("tutorial")))["VirtualService", "mine"]
    assert found == YAML(typ="safe").load(OWN)
    assert phase_http(loaded, loaded.experiment.phases[0]) == [
        {"route": [{"destination": {"host": "image-classifier"}}]}
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN.replace("VirtualService", "Gateway"), "it holds Gateway"),
        (OWN + "---" + OWN, "it holds VirtualService, VirtualService"),
        ("", "it holds nothing"),
        (OWN.replace("networking.istio.io/v1", "v1"), "is not Istio's"),
        ("kind: [", "not readable as YAML"),
        (OWN.replace("http:", "tcp:"), "spec.http must be a list of routes"),
    ],
)
def test_a_file_that_is_no_virtual_service_is_refused_in_one_line(tmp_path, text, said):
    loaded = with_own(tmp_path, text)
    with pytest.raises(ExperimentError, match=said) as refusal:
        of_phase(loaded, "p")
    assert "\n" not in str(refusal.value)
    assert "vs.yaml" in str(refusal.value)


def test_a_missing_virtual_service_file_is_named(tmp_path):
    loaded = with_own(tmp_path, OWN)
    (tmp_path / "vs.yaml").unlink()
    with pytest.raises(ExperimentError, match=r"vs\.yaml: cannot be read: No such file"):
        of_phase(loaded, "p")
