"""gRPC through the gateway: what the hardened Service passes on, and what the lab's port name makes of it."""

import copy
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from plane import api
from plane.kubelet import Program, Rule, label
from plane.objects import apply_all, remove_all, rendered
from plane.waiting import until
from scipy.stats import binomtest

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

PREDICTING = str(Path(__file__).parent / "plane" / "predicting.py")
COUNT = 300
SURPRISE = 1e-6


def to_grpc(manifests):
    """The same objects, with routes to the gRPC port."""
    changed = copy.deepcopy(manifests)
    for each in changed:
        if each["kind"] == "VirtualService":
            for rule in each["spec"]["http"]:
                for entry in rule["route"]:
                    entry["destination"]["port"]["number"] = 8500
    return changed


@pytest.fixture(scope="module")
def stack(mesh):
    """The hardened quickstart in phase `split`, its pods gRPC servers."""

    def program(pod, _):
        address = pod["status"]["podIP"]
        arguments = [sys.executable, PREDICTING, "serve", address, "8500", label(pod, "version")]
        return Program(arguments, f"tcp://{address}:8500")

    rule = Rule({"app": "image-classifier", "version": None}, program)
    mesh.kubelet.rules.insert(0, rule)
    objects = to_grpc(rendered(mesh, "quickstart", "--phase", "split"))
    apply_all(mesh, objects)
    yield objects
    remove_all(mesh, objects)
    mesh.kubelet.rules.remove(rule)


def calls(mesh, count):
    """How often each (status, who, route header) came."""
    with mesh.inside():
        target = urlsplit(mesh.gateway_url).netloc
    done = mesh.run([sys.executable, PREDICTING, "call", target, str(count)])
    assert done.returncode == 0, done.stderr
    return {tuple(kind): times for *kind, times in json.loads(done.stdout)}


def statuses(mesh, count=20):
    return {status for status, *_ in calls(mesh, count)}


def test_predict_calls_are_split_as_configured_and_bear_the_route_header(mesh, stack):  # noqa: ARG001
    until(lambda: statuses(mesh) == {"OK"}, "the route", 30)
    seen = calls(mesh, COUNT)
    assert set(seen) == {("OK", arm, f"split/{arm}") for arm in ("resnet50", "resnet101")}
    canary = seen["OK", "resnet101", "split/resnet101"]
    assert binomtest(canary, COUNT, 0.3).pvalue > SURPRISE, seen


def test_with_the_lab_s_port_name_alone_no_call_succeeds(mesh, stack):
    """As `deploy lint` says of SP110: by its name the port has no protocol, and the gateway speaks HTTP/1.1 to it."""
    service = next(each for each in stack if each["kind"] == "Service")
    plain = copy.deepcopy(service)
    for port in plain["spec"]["ports"]:
        del port["appProtocol"]
    assert [port["name"] for port in plain["spec"]["ports"]] == ["tf-serving-grpc", "tf-serving-http"]
    with mesh.inside():
        api.apply(mesh.api, plain, force=True)
    until(lambda: "OK" not in statuses(mesh), "the gateway to speak HTTP/1.1", 30)
    assert statuses(mesh, 50) <= {"UNAVAILABLE", "INTERNAL"}
    with mesh.inside():
        api.apply(mesh.api, service, force=True)
    until(lambda: statuses(mesh) == {"OK"}, "HTTP/2 again", 30)
