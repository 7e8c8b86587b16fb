"""Each rule: one set of objects that triggers it and no other rule, and the sound stack that triggers none."""

import copy
import json

import pytest
from click.testing import CliRunner

from deploy.__main__ import deploy
from deploy.lint.checking import CODES, check
from deploy.lint.examples import EXAMPLES, one, sound
from deploy.lint.world import host, overlap
from deploy.manifests import Form, manifests, render
from experiments.core import command, reading

GATEWAY_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "in", "namespace": "istio-system", "labels": {"istio": "ingressgateway"}},
    "spec": {"containers": [{"name": "istio-proxy"}]},
}


def codes(objects, **options):
    return {finding.code for finding in check(objects, **options).findings}


def test_every_code_has_an_example():
    assert EXAMPLES.keys() == CODES.keys()


@pytest.mark.parametrize("code", CODES)
def test_an_example_triggers_its_rule_alone_and_says_what_to_do(code):
    (finding,) = check(EXAMPLES[code]()).findings
    assert finding.code == code
    kind, _, name = finding.object.partition(" ")
    assert any(each["kind"] == kind and f"tf-serving/{each['metadata']['name']}" == name for each in EXAMPLES[code]())
    assert all((finding.field, finding.what, finding.why, finding.fix))


@pytest.mark.parametrize("name", [path.stem for path in reading.catalogue()])
def test_no_phase_of_a_shipped_experiment_triggers_any(name):
    loaded = reading.load(name)
    for phase in loaded.experiment.phases:
        assert not check([*manifests(loaded, phase), GATEWAY_POD]).findings
        claimed = manifests(loaded, phase, Form(model_claim="models"))
        assert not check([*claimed, GATEWAY_POD]).findings


def test_the_labs_own_yaml_has_one_mistake_its_grpc_port():
    loaded = reading.load("lab")
    for phase in loaded.experiment.phases:
        (finding,) = check(manifests(loaded, phase, Form("tutorial"))).findings
        assert (finding.code, finding.field) == ("SP110", "spec.ports[0].name")


def test_where_an_object_is_missing_a_rule_cannot_tell_and_says_so():
    virtual = one(sound(), "VirtualService")
    checked = check([virtual])
    assert not checked.findings
    assert {each.code for each in checked.untold} == {"SP103", "SP108"}
    without_maps = [each for each in sound() if each["kind"] != "ConfigMap"]
    told = {each.code: each.why for each in check(without_maps).untold}
    assert "resnet50-configs" in told["SP111"] or "resnet101-configs" in told["SP111"]


@pytest.mark.parametrize("weights", [(100, 0), (1, 99), (50, 50)])
def test_weights_that_sum_to_100_are_left_alone(weights):
    objects = sound()
    for entry, weight in zip(one(objects, "VirtualService")["spec"]["http"][0]["route"], weights, strict=True):
        entry["weight"] = weight
    assert not codes(objects)


def test_a_subset_without_weight_needs_no_pods():
    """The lab's 100/0 is in force before the canary is deployed."""
    objects = sound("dark-launch")
    objects.remove(one(objects, "Deployment", "-resnet101"))
    assert not codes(objects)


def test_a_deployment_scaled_to_nothing_has_no_pods():
    objects = sound()
    one(objects, "Deployment", "-resnet101")["spec"]["replicas"] = 0
    assert codes(objects) == {"SP104"}


def test_labels_of_the_deployment_alone_are_not_enough():
    objects = sound()
    spec = one(objects, "Deployment", "-resnet101")["spec"]
    for labels in (spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]):
        labels["app"] = "other"
    (finding,) = check(objects).findings
    assert finding.code == "SP105"
    assert "spec.template.metadata.labels" in finding.fix


def test_a_selector_is_an_error_where_gateways_are_known():
    objects = [*EXAMPLES["SP106"](), GATEWAY_POD]
    (finding,) = check(objects).findings
    assert (finding.code, finding.level) == ("SP106", "error")
    assert "ingressgateway" in finding.what


@pytest.mark.parametrize(
    ("gateway", "virtual", "found"),
    [
        (["*"], ["a.example"], set()),
        (["*.example"], ["a.example"], set()),
        (["tf-serving/*"], ["a.example"], set()),
        (["./a.example"], ["a.example"], set()),
        (["other/*"], ["a.example"], {"SP107"}),
        (["b.example"], ["*.example"], set()),
        (["b.example"], ["a.example", "b.example"], {"SP107"}),
    ],
)
def test_hosts_of_gateway_and_virtual_service(gateway, virtual, found):
    objects = sound()
    one(objects, "Gateway")["spec"]["servers"][0]["hosts"] = gateway
    one(objects, "VirtualService")["spec"]["hosts"] = virtual
    assert codes(objects) == found


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ([{"uri": {"prefix": "/"}}], {"SP109"}),
        ([{"uri": {"regex": ".*"}}], {"SP109"}),
        ([{"uri": {"prefix": "/v1"}}], set()),
        ([{"headers": {"user-group": {"exact": "canary"}}}], set()),
        ([{"headers": {"a": {"exact": "b"}}}, {"uri": {"prefix": "/"}}], {"SP109"}),
    ],
)
def test_what_takes_everything(match, found):
    objects = sound()
    http = one(objects, "VirtualService")["spec"]["http"]
    http.insert(0, {**copy.deepcopy(http[0]), "match": match})
    assert codes(objects) == found


@pytest.mark.parametrize(
    ("port", "found"),
    [
        ({"port": 8500, "name": "tf-serving-grpc"}, {"SP110"}),
        ({"port": 8500, "name": "tf-serving-grpc", "appProtocol": "grpc"}, set()),
        ({"port": 8500, "name": "grpc-tf-serving"}, set()),
        ({"port": 8500, "name": "grpc"}, set()),
        ({"port": 9000, "name": "predict", "targetPort": 8500}, {"SP110"}),
        ({"port": 8501, "name": "tf-serving-http"}, set()),
        ({"port": 8501, "name": "http2-rest"}, {"SP110"}),
        ({"port": 8501, "name": "tcp-rest"}, {"SP110"}),
        ({"port": 443, "name": "https"}, set()),
    ],
)
def test_port_names(port, found):
    objects = sound()
    one(objects, "Service")["spec"]["ports"] = [port]
    assert codes(objects) == found


def test_model_names_are_those_that_the_server_gets():
    """Arguments, then the entrypoint's variables; `$(NAME)` as Kubernetes puts it in."""
    objects = sound()
    container = one(objects, "Deployment", "-resnet101")["spec"]["template"]["spec"]["containers"][0]
    container["args"][0] = "--model_name=image_classifier"
    one(objects, "ConfigMap", "resnet101-configs")["data"]["MODEL_NAME"] = "ignored"
    assert not codes(objects)
    container["env"] = [{"name": "MODEL_NAME", "value": "other"}]
    container["args"][0] = "--model_name=$(MODEL_NAME)"
    assert codes(objects) == {"SP111"}


def test_one_claim_is_one_model_only_if_the_folder_is_one():
    loaded = reading.load("quickstart")
    objects = manifests(loaded, loaded.experiment.phase("split"), Form(model_claim="models"))
    mount = one(objects, "Deployment", "-resnet101")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]
    mount["subPath"] = "resnet50"
    (finding,) = check(objects).findings
    assert finding.code == "SP112"
    assert "claim models:/resnet50" in finding.what


def test_clients_in_the_mesh_are_meant_where_that_is_said():
    assert not codes(sound())
    assert codes(sound(), in_mesh_clients=True) == {"SP113"}
    objects = sound()
    one(objects, "VirtualService")["spec"] |= {"hosts": ["image-classifier"], "gateways": ["mesh"]}
    assert not codes(objects, in_mesh_clients=True)


@pytest.mark.parametrize("mark", ["annotations", "labels"])
def test_a_workload_that_opts_out_of_injection(mark):
    objects = sound()
    template = one(objects, "Deployment", "-resnet101")["spec"]["template"]["metadata"]
    template[mark] = {**template.get(mark, {}), "sidecar.istio.io/inject": "false"}
    assert codes(objects) == {"SP114"}


def test_injected_pods_and_namespaces_without_injection_are_left_alone():
    objects = EXAMPLES["SP114"]()
    objects[-1]["spec"]["initContainers"] = [{"name": "istio-proxy", "restartPolicy": "Always"}]
    assert not codes(objects)
    objects = EXAMPLES["SP114"]()
    one(objects, "Namespace")["metadata"]["labels"] = {}
    assert not codes(objects)


def test_a_hash_without_a_draw_is_left_alone():
    objects = sound("focused")
    one(objects, "DestinationRule")["spec"]["trafficPolicy"] = {
        "loadBalancer": {"consistentHash": {"useSourceIp": True}}
    }
    assert not codes(objects)


@pytest.mark.parametrize(
    ("retries", "found"),
    [
        ({"attempts": 2}, set()),
        ({"attempts": 0, "retryOn": "5xx"}, set()),
        ({"attempts": 2, "retryOn": "connect-failure,refused-stream"}, set()),
        ({"attempts": 2, "retryOn": "connect-failure,503"}, {"SP116"}),
        ({"attempts": 2, "retryOn": "reset"}, {"SP116"}),
    ],
)
def test_retries(retries, found):
    objects = sound()
    one(objects, "VirtualService")["spec"]["http"][0]["retries"] = retries
    assert codes(objects) == found


def test_virtual_services_of_other_hosts_do_not_overlap():
    objects = EXAMPLES["SP117"]()
    for index, virtual in enumerate(each for each in objects if each["kind"] == "VirtualService"):
        virtual["spec"]["hosts"] = [f"host{index}.example"]
    assert not codes(objects)


def test_hosts_as_istio_reads_them():
    assert host("a", "b") == "a.b.svc.cluster.local"
    assert host("a.b", "c") == "a.b"
    assert overlap("*.a.example", "*.example")
    assert not overlap("*.a.example", "*.b.example")


def lint(*arguments, stdin=""):
    runner = CliRunner()
    with runner.isolation(stdin) as (out, err, _):
        code = command.run(deploy, "python -m deploy", ["lint", *arguments])
        return code, out.getvalue().decode(), err.getvalue().decode()


def test_the_command_on_an_experiment_a_file_and_standard_input(tmp_path):
    assert lint("quickstart")[:2] == (0, "")
    file = tmp_path / "bad.yaml"
    file.write_text(render(EXAMPLES["SP103"]()))
    code, out, err = lint(str(file))
    assert code == 1
    assert out.startswith("SP103 error: VirtualService tf-serving/image-classifier: spec.http[0].route[1]")
    assert "errors: 1, warnings: 0" in err
    listed = {"apiVersion": "v1", "kind": "List", "items": EXAMPLES["SP103"]()}
    assert lint("-", stdin=json.dumps(listed))[0] == 1


def test_warnings_fail_only_where_that_is_asked_for(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(render(EXAMPLES["SP102"]()))
    assert lint(str(file))[0] == 0
    assert lint(str(file), "--strict")[0] == 1


def test_json_has_every_field(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(render(EXAMPLES["SP109"]()))
    code, out, _ = lint(str(file), "--json")
    ((given,), findings) = (json.loads(out), json.loads(out)[0]["findings"])
    assert code == 1
    assert given["where"] == str(file)
    assert findings[0].keys() == {"code", "level", "object", "field", "what", "why", "fix"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: [", "not readable as YAML"),
        ("apiVersion: v1\nkind: Service\nspec: 7\n", "has not the shape of its kind"),
        ("apiVersion: v1\nkind: Service\n---\nhello: 1\n", "without apiVersion and kind"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, text, said):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    code, out, err = lint(str(file))
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
