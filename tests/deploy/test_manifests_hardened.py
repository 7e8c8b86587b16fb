"""What the hardened profile adds, and the choices of form; the tutorial profile is in test_manifests.py."""

import dataclasses

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from deploy.__main__ import deploy
from deploy.manifests import ISTIO_APIS, Form, manifests, render
from experiments.core import reading


@pytest.fixture(scope="module")
def lab():
    return reading.load("lab")


def of_phase(loaded, name, **form):
    return manifests(loaded, loaded.experiment.phase(name), Form(**form))


def of_kind(objects, kind):
    return [each for each in objects if each["kind"] == kind]


def pod_of(objects, arm):
    (found,) = [
        each["spec"]["template"]["spec"]
        for each in of_kind(objects, "Deployment")
        if each["metadata"]["labels"]["version"] == arm
    ]
    return found


def test_policies_come_before_the_pods_that_they_are_for(lab):
    kinds = [each["kind"] for each in of_phase(lab, "split")]
    assert kinds == [
        "Namespace", "NetworkPolicy", "AuthorizationPolicy", "PodDisruptionBudget", "PodDisruptionBudget",
        "ConfigMap", "ConfigMap", "Deployment", "Deployment", "Service", "Gateway", "DestinationRule",
        "VirtualService",
    ]  # fmt: skip


def test_what_the_lab_says_is_still_said(lab):
    """Hardening adds fields, arguments and objects; it takes away and changes nothing but image and API version."""
    plain = {(each["kind"], each["metadata"]["name"]): each for each in of_phase(lab, "split", profile="tutorial")}
    hardened = {(each["kind"], each["metadata"]["name"]): each for each in of_phase(lab, "split")}
    assert plain.keys() <= hardened.keys()
    for key, theirs in plain.items():
        assert sorted(missing(theirs, hardened[key])) in ([], [".apiVersion"], [".image"]), key


def missing(wanted, found, path=""):
    """The last keys of what `wanted` says and `found` does not; a list may have grown."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            yield from missing(value, found.get(key) if isinstance(found, dict) else None, f".{key}")
    elif isinstance(wanted, list):
        grown = found if isinstance(found, list) else []
        for value, other in zip(wanted, [*grown, *[None] * len(wanted)], strict=False):
            yield from missing(value, other, path)
    elif wanted != found:
        yield path


def test_probes_ask_for_a_loaded_model_and_not_for_an_open_port(lab):
    container = pod_of(of_phase(lab, "split"), "resnet101")["containers"][0]
    for probe in ("startupProbe", "readinessProbe"):
        # Not /v1/models/NAME: that is 200 while a model is loading, and after it failed to.
        assert container[probe]["httpGet"] == {"path": "/v1/models/image_classifier/metadata", "port": 8501}
    startup = container["startupProbe"]
    # TensorFlow Serving tries five times, a minute apart (max_num_load_retries, load_retry_interval_micros).
    assert startup["periodSeconds"] * startup["failureThreshold"] > 5 * 60
    assert container["livenessProbe"]["tcpSocket"] == {"port": 8501}


def test_pods_may_do_no_more_than_serve(lab):
    for arm in ("resnet50", "resnet101"):
        pod = pod_of(of_phase(lab, "split"), arm)
        (container,) = pod["containers"]
        security = container["securityContext"]
        assert pod["automountServiceAccountToken"] is False
        assert security["runAsNonRoot"]
        assert security["runAsUser"] > 0
        assert security["readOnlyRootFilesystem"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
        writable = [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
        assert writable == ["tmp"]
        assert {"name": "tmp", "emptyDir": {}} in pod["volumes"]
        assert "--file_system_poll_wait_seconds=0" in container["args"]


def test_a_budget_for_each_arm_lets_one_pod_go_at_a_time(lab):
    budgets = of_kind(of_phase(lab, "split"), "PodDisruptionBudget")
    assert [budget["spec"] for budget in budgets] == [
        {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "image-classifier", "version": arm}}}
        for arm in ("resnet50", "resnet101")
    ]
    assert len(of_kind(of_phase(lab, "baseline-alone"), "PodDisruptionBudget")) == 1


def test_only_the_gateway_and_the_namespace_may_call(lab):
    objects = of_phase(lab, "split", gateway_namespace="istio-ingress")
    (network,) = of_kind(objects, "NetworkPolicy")
    (way_in,) = network["spec"]["ingress"]
    assert way_in["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "istio-ingress"}}},
        {"podSelector": {}},
    ]
    assert {8500, 8501} <= {port["port"] for port in way_in["ports"]}
    (authorization,) = of_kind(objects, "AuthorizationPolicy")
    (rule,) = authorization["spec"]["rules"]
    assert rule["from"] == [{"source": {"namespaces": ["istio-ingress", "tf-serving"]}}]
    assert not any("Reload" in path or path == "*" for to in rule["to"] for path in to["operation"]["paths"])


def test_without_mutual_tls_no_caller_has_an_identity_and_none_is_asked_for(lab):
    (authorization,) = of_kind(of_phase(lab, "split", mutual_tls=False), "AuthorizationPolicy")
    (rule,) = authorization["spec"]["rules"]
    assert "from" not in rule
    assert rule["to"]


@pytest.mark.parametrize("profile", ["tutorial", "hardened"])
@pytest.mark.parametrize("version", ISTIO_APIS)
def test_the_api_version_of_istio_is_by_choice_and_changes_nothing_else(lab, profile, version):
    chosen = of_phase(lab, "split", profile=profile, istio_api=f"networking.istio.io/{version}")
    for kind in ("Gateway", "DestinationRule", "VirtualService"):
        (found,) = of_kind(chosen, kind)
        assert found["apiVersion"] == f"networking.istio.io/{version}"
    for found in of_kind(chosen, "AuthorizationPolicy"):
        assert found["apiVersion"] == ("security.istio.io/v1" if version == "v1" else "security.istio.io/v1beta1")
    usual = of_phase(lab, "split", profile=profile)
    assert [{**each, "apiVersion": ""} for each in chosen] == [{**each, "apiVersion": ""} for each in usual]


@pytest.mark.parametrize("profile", ["tutorial", "hardened"])
def test_a_claim_in_place_of_the_nodes_folder_has_a_folder_for_each_arm(lab, profile):
    objects = of_phase(lab, "split", profile=profile, model_claim="models")
    for arm in ("resnet50", "resnet101"):
        pod = pod_of(objects, arm)
        (volume,) = [each for each in pod["volumes"] if each["name"] == "model"]
        assert volume["persistentVolumeClaim"]["claimName"] == "models"
        (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "model"]
        assert (mount["mountPath"], mount["subPath"]) == (f"/models/{arm}", arm)
    assert "hostPath" not in render(objects)


def test_every_choice_of_form_is_an_option_of_render():
    """The text is `kubectl`'s: no anchors, no aliases, and the same every time."""
    arguments = [
        "render", "lab", "--phase", "split", "--profile", "hardened", "--model-root", "/m/", "--model-claim", "c",
        "--image", "example/serving@sha256:00", "--istio-api", "v1beta1", "--gateway-namespace", "in",
        "--no-mutual-tls",
    ]  # fmt: skip
    first, second = (CliRunner().invoke(deploy, arguments) for _ in range(2))
    assert first.output == second.output
    assert "&id" not in first.output
    given = {
        "profile": "hardened", "model_root": "/m/", "model_claim": "c", "image": "example/serving@sha256:00",
        "istio_api": "networking.istio.io/v1beta1", "gateway_namespace": "in", "mutual_tls": False,
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(Form)} == {*given, "istio_namespace"}
    loaded = reading.load("lab")
    assert list(YAML(typ="safe").load_all(first.output)) == of_phase(loaded, "split", **given)
