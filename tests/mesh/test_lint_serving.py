"""What `deploy lint` claims of models and retries, seen in the answers of pods that serve what they are told to."""

import http.client
import json
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from plane import api
from plane.kubelet import Program, Rule
from plane.objects import apply_all, pods, remove_all
from plane.traffic import ask
from plane.waiting import until
from scipy.stats import binomtest

from deploy.lint.examples import EXAMPLES, one, sound
from experiments.core.home import CHECKOUT

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

PATH = "/v1/models/image_classifier:predict"
BODY = {"instances": [[0.5] * 64]}
COUNT = 200
ANY = {"app": None, "version": None}


@pytest.fixture(scope="module")
def serving(mesh, trained):
    """The sound stack, for all of these tests; its pods serve what their ConfigMap and their volume say."""
    on_node = {"/data/models/resnet50": trained["small"], "/data/models/resnet101": trained["large"]}

    def program(pod, _):
        name, address = name_of(mesh, pod), pod["status"]["podIP"]
        (folder,) = [volume["hostPath"]["path"] for volume in pod["spec"]["volumes"] if volume["name"] == "model"]
        arguments = [
            sys.executable, "-m", "deploy.embedded.serving", "--model-name", name, "--model-base-path",
            str(on_node[folder]), "--host", address, "--rest-port", "8501",
        ]  # fmt: skip
        return Program(arguments, f"http://{address}:8501/v1/models/{name}/metadata", {"PYTHONPATH": str(CHECKOUT)})

    for found in with_rule(mesh, Rule(ANY, program)):
        apply_all(mesh, sound())
        yield found
        remove_all(mesh, sound())


def with_another_canary(mesh, objects):
    """These objects in place of what is there; only the canary's pods are made anew."""
    canary = one(objects, "Deployment", "-resnet101")
    with mesh.inside():
        api.delete(mesh.api, canary)
    until(lambda: not pods(mesh, "tf-serving", "version=resnet101"), "the old canary to go", 30)
    apply_all(mesh, objects)


@pytest.fixture
def in_trouble(mesh):
    program = Path(__file__).parent / "plane" / "counting.py"

    def counting(pod, _):
        address = pod["status"]["podIP"]
        return Program([sys.executable, str(program), address, "8501"], f"http://{address}:8501/")

    yield from with_rule(mesh, Rule(ANY, counting))


def with_rule(mesh, rule):
    mesh.kubelet.rules.insert(0, rule)
    yield mesh
    mesh.kubelet.rules.remove(rule)


def name_of(mesh, pod):
    (container,) = [each for each in pod["spec"]["containers"] if each["name"] == "tf-serving"]
    name = container["envFrom"][0]["configMapRef"]["name"]
    head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "tf-serving"}}
    return api.get(mesh.api, head)["data"]["MODEL_NAME"]


def request(url, method, path, body=None):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    found = response.status, response.headers.get("x-splitproof-route"), response.read()
    connection.close()
    return found


def answers(mesh):
    """How often each status, route and answer came."""
    with mesh.inside():
        until(lambda: request(mesh.gateway_url, "POST", PATH, BODY)[1], "the route", 30)
        until(lambda: all(request(mesh.gateway_url, "POST", PATH, BODY)[0] != 503 for _ in range(10)), "endpoints", 30)
        return Counter(request(mesh.gateway_url, "POST", PATH, BODY) for _ in range(COUNT))


def test_sp116_retries_on_5xx_make_a_server_in_trouble_compute_again(in_trouble, applied):
    objects, retrying = sound(), EXAMPLES["SP116"]()
    applied(objects)
    assert computed_for(in_trouble, 10, 1) == 10
    with in_trouble.inside():
        for each in retrying:
            if each not in objects:
                api.apply(in_trouble.api, each, force=True)
    assert computed_for(in_trouble, 10, 4) == 40


def computed_for(mesh, count, times):
    """How often the pods compute for so many requests, once one request costs them so many."""

    def computed():
        return sum(
            int(request(f"http://{pod['status']['podIP']}:8501", "GET", "/")[2]) for pod in pods(mesh, "tf-serving")
        )

    def cost():
        before = computed()
        busy = all(request(mesh.gateway_url, "POST", PATH, BODY)[2] == b"busy" for _ in range(5))
        return (computed() - before) / 5 if busy else 0

    with mesh.inside():
        until(lambda: cost() == cost() == times, f"each request to be computed {times} times", 30)
        before = computed()
        seen = ask(mesh.gateway_url, count, PATH)
        assert {each.status for each in seen} == {503}
        return computed() - before


def test_the_sound_stack_gives_two_answers_by_two_routes(serving):
    found = answers(serving)
    assert {status for status, _, _ in found} == {200}
    assert len(found) == len({text for _, _, text in found}) == 2


def test_sp111_with_two_names_the_canarys_share_of_requests_gets_404(serving):
    with_another_canary(serving, EXAMPLES["SP111"]())
    found = answers(serving)
    missing = sum(count for (status, _, _), count in found.items() if status == 404)
    assert {(status, route) for status, route, _ in found} == {(200, "split/resnet50"), (404, "split/resnet101")}
    assert binomtest(missing, COUNT, 0.3).pvalue > 1e-6


def test_sp112_with_one_path_both_routes_give_one_answer(serving):
    with_another_canary(serving, EXAMPLES["SP112"]())
    found = answers(serving)
    assert {route for _, route, _ in found} == {"split/resnet50", "split/resnet101"}
    assert len({text for _, _, text in found}) == 1
