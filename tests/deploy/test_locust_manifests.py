import base64
import gzip
import json
import random
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from deploy.__main__ import deploy
from deploy.locust_manifests import LoadForm, load_manifests, run_seconds
from experiments.core import reading
from experiments.core.access import Access
from experiments.core.errors import ProvisionError
from experiments.core.home import CHECKOUT

BODY = b'{"instances": [[1]]}'
FORM = LoadForm("registry.example/splitproof:1", payloads={"cat.json": BODY, "two words.json": BODY})


@pytest.fixture
def experiment():
    return reading.load("digits").experiment


def of_kind(objects, kind):
    return [each for each in objects if each["kind"] == kind]


def pods(objects):
    return {job["spec"]["template"]["metadata"]["labels"]["part"]: job["spec"] for job in of_kind(objects, "Job")}


def parsed(arguments):
    """Locust's own parser with our options, in a process of its own: Locust patches the one that imports it."""
    program = (
        "import json, sys; from loadgen.options import peek; "
        "print(json.dumps({name: value for name, value in vars(peek(sys.argv[1:])[0]).items() "
        "if isinstance(value, (str, int, list))}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_workers_and_master_say_what_our_own_parser_understands(experiment):
    jobs = pods(load_manifests(experiment, FORM))
    options = {part: parsed(job["template"]["spec"]["containers"][0]["args"]) for part, job in jobs.items()}
    assert (options["master"]["master"], options["worker"]["worker"]) == (True, True)
    assert options["master"]["expect_workers"] == jobs["worker"]["parallelism"] == 3
    assert options["master"]["host"] == "http://istio-ingressgateway.istio-system"
    assert options["worker"]["master_host"] == "digits-master"
    assert options["worker"]["master_port"] == 5557
    for part in options.values():
        assert part["experiment"] == "/experiment/experiment.json"
        assert (part["payload"], part["runs"]) == (["/payloads"], "/runs")


def test_the_load_lasts_as_long_as_warm_up_and_phases(experiment):
    total = experiment.load.warmup + sum(phase.duration for phase in experiment.phases)
    assert run_seconds(experiment) == total


def test_every_name_that_is_referred_to_is_defined(experiment):
    objects = load_manifests(experiment, FORM)
    maps = {each["metadata"]["name"] for each in of_kind(objects, "ConfigMap")}
    claims = {each["metadata"]["name"] for each in of_kind(objects, "PersistentVolumeClaim")}
    for job in pods(objects).values():
        pod = job["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == set(volumes)
        for volume in volumes.values():
            assert volume.get("configMap", {}).get("name") in {None, *maps}
            projected = volume.get("projected", {}).get("sources", [])
            assert {source["configMap"]["name"] for source in projected} <= maps
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {None, *claims}
    (service,) = of_kind(objects, "Service")
    assert service["metadata"]["name"] == "digits-master"
    assert service["spec"]["selector"] == pods(objects)["master"]["template"]["metadata"]["labels"]


def test_only_the_master_writes_to_the_claim_for_workers_send_their_records(experiment):
    jobs = pods(load_manifests(experiment, FORM))
    runs = {
        part: next(volume for volume in job["template"]["spec"]["volumes"] if volume["name"] == "runs")
        for part, job in jobs.items()
    }
    assert "persistentVolumeClaim" in runs["master"]
    assert runs["worker"] == {"name": "runs", "emptyDir": {}}


def test_the_experiment_in_the_cluster_is_the_one_that_is_judged(experiment, tmp_path):
    (config,) = [
        each for each in of_kind(load_manifests(experiment, FORM), "ConfigMap") if "experiment.json" in each["data"]
    ]
    path = tmp_path / "experiment.json"
    path.write_text(config["data"]["experiment.json"])
    assert reading.experiment_hash(reading.load(str(path)).experiment) == reading.experiment_hash(experiment)


def test_bodies_share_config_maps_and_a_large_one_is_compressed(experiment):
    bodies = {f"{number}.json": b"[%s]" % (b"1," * 150_000) for number in range(5)}
    large = b'{"instances": [%s]}' % b",".join(b"%d" % number for number in range(200_000))
    objects = load_manifests(experiment, LoadForm("i", payloads={**bodies, "large.json": large}))
    maps = [each for each in of_kind(objects, "ConfigMap") if "payloads" in each["metadata"]["name"]]
    assert [sorted(each.get("data", {})) for each in maps[:2]] == [["0.json", "1.json", "2.json"], ["3.json", "4.json"]]
    (packed,) = [each["binaryData"]["large.json.gz"] for each in maps if "binaryData" in each]
    assert gzip.decompress(base64.b64decode(packed)) == large
    assert sum(len(each.get("data", {})) + len(each.get("binaryData", {})) for each in maps) == 6


def test_a_conducted_load_keeps_its_records_for_the_conductor_and_its_secrets_in_a_secret(experiment, tmp_path):
    (tmp_path / "ca.pem").write_text("authority")
    access = Access(host="models.example", ca_file=str(tmp_path / "ca.pem"))
    form = replace(FORM, run_id="20260101T000000Z-ab12", secrets={"TOKEN": "hush"}, access=access)
    objects = load_manifests(experiment, form)
    assert of_kind(objects, "PersistentVolumeClaim") == []
    (secret,) = of_kind(objects, "Secret")
    assert {name: base64.b64decode(value) for name, value in secret["data"].items()} == {
        "TOKEN": b"hush",
        "ca.crt": b"authority",
    }
    assert "hush" not in json.dumps([each for each in objects if each is not secret]) + repr(form)
    options = {part: parsed(job["template"]["spec"]["containers"][0]["args"]) for part, job in pods(objects).items()}
    assert options["master"]["run_id"] == form.run_id
    assert (options["master"]["autostart"], options["master"]["headless"]) == (True, False)
    for part in options.values():
        assert (part["host_header"], part["ca_file"]) == ("models.example", "/access/ca.crt")


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (LoadForm("i"), "no request bodies"),
        (LoadForm("i", payloads={"a.json": random.Random(1).randbytes(1_100_000)}), "--payloads-claim"),
    ],
)
def test_what_cannot_be_rendered_is_refused(experiment, form, why):
    with pytest.raises(ProvisionError, match=why):
        load_manifests(experiment, form)


def test_the_command_prints_what_kubectl_reads(tmp_path):
    body = tmp_path / "cat.json"
    body.write_bytes(BODY)
    said = CliRunner().invoke(
        deploy, ["render", "digits", "--load", "image:1", "--workers", "5", "--payload", str(body)]
    )
    assert said.exit_code == 0, said.output
    objects = list(YAML(typ="safe").load_all(said.stdout))
    assert [each["kind"] for each in objects] == [
        "Namespace", "ConfigMap", "ConfigMap", "PersistentVolumeClaim", "Service", "Job", "Job",
    ]  # fmt: skip
    assert objects[-1]["spec"]["parallelism"] == 5
    assert json.loads(objects[2]["data"]["cat.json"]) == json.loads(BODY)
    claimed = CliRunner().invoke(deploy, ["render", "digits", "--load", "image:1", "--payloads-claim", "bodies"])
    (volume,) = [
        each for each in list(YAML(typ="safe").load_all(claimed.stdout))[-1]["spec"]["template"]["spec"]["volumes"]
        if each["name"] == "payloads"
    ]  # fmt: skip
    assert volume["persistentVolumeClaim"] == {"claimName": "bodies", "readOnly": True}


def unknown_keys(value, kind, at=""):
    """Keys that the Kubernetes API, as its own Python client describes it, does not know."""
    models = pytest.importorskip("kubernetes").client.models
    if kind.lower().startswith("list["):
        return [key for each in value for key in unknown_keys(each, kind[5:-1], at)]
    model = getattr(models, kind, None)
    if model is None:  # text, a number, or a mapping with free keys
        return []
    known = {name: attribute for attribute, name in model.attribute_map.items()}
    found = [f"{at}.{key}" for key in value if key not in known]
    for key, inner in value.items():
        if key in known:
            found += unknown_keys(inner, model.openapi_types[known[key]], f"{at}.{key}")
    return found


def test_the_kubernetes_api_knows_every_key(experiment):
    kinds = {"Namespace": "V1Namespace", "ConfigMap": "V1ConfigMap", "Service": "V1Service", "Job": "V1Job"}
    kinds["PersistentVolumeClaim"] = "V1PersistentVolumeClaim"
    for each in load_manifests(experiment, FORM):
        assert unknown_keys(each, kinds[each["kind"]], each["kind"]) == []
    wrong = {"spec": {"template": {"spec": {"containers": [{"nmae": "x"}]}}}}
    assert unknown_keys(wrong, "V1Job", "Job") == ["Job.spec.template.spec.containers.nmae"]
