"""What `deploy lint` claims, seen in traffic: each mistake is made on a stack that answers, and mended again."""

import copy
import http.client
import shlex
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from plane import api, istio
from plane.kubelet import Rule
from plane.mesh import RESPONDER
from plane.namespace import inside
from plane.objects import apply_all, pods, remove_all
from plane.traffic import ask, by_version
from plane.waiting import until
from scipy.stats import binomtest

from deploy import asking
from deploy.lint.checking import check
from deploy.lint.examples import EXAMPLES, one, sound
from deploy.lint.world import KINDS

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

PATH = "/v1/models/image_classifier:predict"
SURPRISE = 1e-6
COUNT = 300


@pytest.fixture(scope="module")
def stack(mesh):
    """The sound stack, up for all of these tests."""
    objects = sound()
    apply_all(mesh, objects)
    settle(mesh, is_sound)
    yield mesh
    remove_all(mesh, objects)


def asked(mesh, count, headers=None):
    with mesh.inside():
        return ask(mesh.gateway_url, count, PATH, headers)


def statuses(seen):
    found = Counter()
    for each, count in seen.items():
        found[each.status] += count
    return found


def is_sound(mesh):
    try:
        seen = asked(mesh, 40)
    except (OSError, http.client.HTTPException):
        return False  # no listener yet
    return set(statuses(seen)) == {200} and set(by_version(seen)) == {"resnet50", "resnet101"}


def settle(mesh, reached, within_s=30):
    """Until `reached` twice in a row: a route that is on its way may be seen by chance."""
    until(lambda: reached(mesh) and reached(mesh), "the change to take effect", within_s, every_s=0.3)


def key(manifest):
    return manifest["kind"], manifest["metadata"]["name"]


def change(mesh, before, after):
    """From one set of objects to another."""
    old, new = ({key(each): each for each in objects} for objects in (before, after))
    with mesh.inside():
        for name, manifest in old.items():
            if name not in new or (name[0] == "Deployment" and new[name] != manifest):
                api.delete(mesh.api, manifest)
        for name, manifest in new.items():
            if old.get(name) != manifest:
                api.apply(mesh.api, manifest, force=True)


@contextmanager
def made(mesh, objects):
    """These objects in place of the sound stack's; the sound stack answers again afterwards."""
    change(mesh, sound(), objects)
    try:
        yield
    finally:
        change(mesh, objects, sound())
        settle(mesh, is_sound, 60)


def check_share(part, total, share):
    assert binomtest(part, total, share).pvalue > SURPRISE, (part, total, share)


def test_nothing_is_found_on_the_sound_stack_as_the_server_has_it(stack):
    assert not check(live(stack)).findings


def live(mesh, namespaces=("tf-serving", "istio-system")):
    with mesh.inside():
        found = [each for version, kind in KINDS for where in namespaces for each in listed(mesh, version, kind, where)]
        return [*found, *(each for each in api.listed(mesh.api, "v1", "Namespace") if each not in found)]


def listed(mesh, version, kind, namespace):
    return [] if kind == "Namespace" else api.listed(mesh.api, version, kind, namespace)


def test_sp101_the_webhook_refuses_weights_that_sum_to_0(stack):
    with stack.inside(), pytest.raises(api.RefusedError, match="total destination weight = 0"):
        api.apply(stack.api, one(EXAMPLES["SP101"](), "VirtualService"), force=True)


def test_sp102_weights_of_60_and_60_are_halves(stack):
    def first():
        return by_version(asked(stack, 2 * COUNT))["resnet50"]

    with made(stack, EXAMPLES["SP102"]()):
        until(lambda: binomtest(first(), 2 * COUNT, 0.7).pvalue < SURPRISE, "another share than 70 %", 30)
        check_share(first(), 2 * COUNT, 0.5)


@pytest.mark.parametrize("code", ["SP103", "SP104", "SP105"])
def test_what_is_routed_to_nothing_gets_503(stack, code):
    with made(stack, EXAMPLES[code]()):
        settle(stack, lambda mesh: set(by_version(asked(mesh, 40))) == {"resnet50", None})
        found = statuses(asked(stack, COUNT))
        if code != "SP103":
            # The traffic fails as soon as the old pods go, which may be before the new ones are there to be seen.
            until(lambda: {each.code for each in check(live(stack)).findings} == {code}, f"{code} alone", 30)
    assert set(found) == {200, 503}
    check_share(found[503], COUNT, 0.3)


def test_sp106_no_proxy_listens(stack):
    def refused(mesh):
        try:
            return set(statuses(asked(mesh, 1))) == {404}
        except (OSError, http.client.HTTPException):
            return True

    with made(stack, EXAMPLES["SP106"]()):
        settle(stack, refused)
        (finding,) = check(live(stack)).findings
        assert (finding.code, finding.level) == ("SP106", "error")  # the live gateway's labels are known


@pytest.mark.parametrize("code", ["SP107", "SP108"])
def test_what_is_bound_to_nothing_gets_404(stack, code):
    hosts = ["model.example.com", "models.example.com"] if code == "SP107" else ["any.example.com"]
    with made(stack, EXAMPLES[code]()):
        for name in hosts:
            settle(stack, lambda mesh, name=name: set(statuses(asked(mesh, 10, {"Host": name}))) == {404})


def test_sp109_a_header_rule_behind_a_catch_all_sends_nobody_to_the_canary(stack):
    group = {"user-group": "canary"}
    with made(stack, sound("focused")):
        settle(stack, lambda mesh: set(by_version(asked(mesh, 20, group))) == {"resnet101"})
    with made(stack, EXAMPLES["SP109"]()):
        settle(stack, lambda mesh: set(by_version(asked(mesh, 20))) == {"resnet50"})
        assert set(by_version(asked(stack, COUNT, group))) == {"resnet50"}


def test_sp110_the_gateway_speaks_http_1_to_the_port_that_the_lab_calls_grpc(stack):
    """Our pods speak HTTP/1.1 only: who answers was spoken to in it, and who is spoken to in HTTP/2 cannot answer."""

    def by_that_port(objects):
        one(objects, "Service")["spec"]["ports"][0]["targetPort"] = 8501
        for entry in one(objects, "VirtualService")["spec"]["http"][0]["route"]:
            entry["destination"]["port"]["number"] = 8500
        return objects

    with made(stack, by_that_port(EXAMPLES["SP110"]())):
        settle(stack, lambda mesh: set(statuses(asked(mesh, 20))) == {200})
    with made(stack, by_that_port(sound())):
        settle(stack, lambda mesh: 200 not in statuses(asked(mesh, 20)))


def test_sp115_a_consistent_hash_does_not_keep_a_user_at_one_model(stack):
    with made(stack, EXAMPLES["SP115"]()):
        time.sleep(2)
        counts = by_version(asked(stack, COUNT, {"x-user": "one"}))
    check_share(counts["resnet101"], COUNT, 0.3)


def test_sp117_which_of_two_virtual_services_decides_rests_on_their_age(stack):
    objects = EXAMPLES["SP117"]()
    first = one(objects, "VirtualService", "image-classifier")
    with stack.inside():
        made_at = datetime.fromisoformat(api.get(stack.api, first)["metadata"]["creationTimestamp"])
    until(lambda: datetime.now(UTC) - made_at > timedelta(seconds=1.1), "another second: ages are whole ones", 5)
    with made(stack, objects):
        time.sleep(2)
        check_share(by_version(asked(stack, COUNT))["resnet101"], COUNT, 0.3)
        with stack.inside():
            api.delete(stack.api, first)
            time.sleep(1.1)
            api.apply(stack.api, first)
        settle(stack, lambda mesh: set(by_version(asked(mesh, 40))) == {"resnet101"})
        assert set(by_version(asked(stack, COUNT))) == {"resnet101"}  # and no manifest is another than before


CALLER = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "caller", "namespace": "tf-serving"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "caller"}},
        "template": {
            "metadata": {"labels": {"app": "caller"}},
            "spec": {"containers": [{"name": "caller", "image": "caller"}]},
        },
    },
}


@pytest.fixture
def caller(stack):
    """A function that asks the Service from a pod in the mesh, through that pod's sidecar."""
    rule = Rule({"app": "caller"}, lambda pod, pods: istio.sidecar(stack.place, stack.api, pod, pods))
    stack.kubelet.rules.insert(0, rule)
    apply_all(stack, [CALLER])
    (pod,) = pods(stack, "tf-serving", "app=caller")

    def asked_inside(count):
        with inside(stack.kubelet.namespace_of(pod["metadata"]["name"])):
            return ask("http://127.0.0.1:8501", count, PATH, {"Host": "image-classifier"})

    yield asked_inside
    with stack.inside():
        api.delete(stack.api, CALLER)
    stack.kubelet.rules.remove(rule)


def test_sp113_without_mesh_a_client_inside_reaches_every_pod_whatever_the_weights_say(stack, caller):
    def versions(count=40):
        try:
            seen = caller(count)
        except (OSError, http.client.HTTPException):
            return set()  # no listener yet
        return set(by_version(seen)) if set(statuses(seen)) == {200} else set()

    def with_weights(objects):
        """Nothing for the canary, and for clients by the Service's name."""
        first, second = one(objects, "VirtualService")["spec"]["http"][0]["route"]
        first["weight"], second["weight"] = 100, 0
        one(objects, "VirtualService")["spec"]["hosts"] = ["image-classifier"]
        return objects

    alone, meant = with_weights(sound()), with_weights(sound())
    one(meant, "VirtualService")["spec"]["gateways"].append("mesh")
    assert "SP113" in {each.code for each in check(alone).findings}
    with made(stack, alone):
        until(lambda: versions() == {"resnet50", "resnet101"}, "both arms", 30)
        check_share(by_version(caller(COUNT))["resnet101"], COUNT, 0.5)
    assert "SP113" not in {each.code for each in check(meant).findings}
    with made(stack, meant):
        until(lambda: versions() == {"resnet50"}, "the weights to hold inside too", 30)
        assert set(by_version(caller(COUNT))) == {"resnet50"}


IN_OLDER = {
    "Namespace": ("v1", None),
    # The mesh's sidecars have no certificates of their own.
    "PeerAuthentication": ("security.istio.io/v1", {"mtls": {"mode": "DISABLE"}}),
    "AuthorizationPolicy": (
        "security.istio.io/v1", {"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["POST"]}}]}]}
    ),
    # Istio's own image catches requests on their way in; here the sidecar listens, and passes on to the container.
    "Sidecar": (
        "networking.istio.io/v1",
        {
            "ingress": [
                {
                    "port": {"number": 8501, "protocol": "HTTP", "name": "http"},
                    "captureMode": "NONE",
                    "defaultEndpoint": "127.0.0.1:18501",
                }
            ]
        },
    ),
}  # fmt: skip


def in_older(kind):
    version, spec = IN_OLDER[kind]
    metadata = {"name": "older", **({"namespace": "older"} if spec else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **({"spec": spec} if spec else {})}


def behind_a_sidecar(mesh):
    """A pod's two containers: a sidecar, and who answers behind it and ends with it."""

    def program(pod, pods):
        proxy = istio.sidecar(mesh.place, mesh.api, pod, pods)
        answering = [sys.executable, str(RESPONDER), "127.0.0.1", "18501", pod["metadata"]["name"], "one"]
        both = f'setpriv --pdeathsig KILL {shlex.join(answering)} & exec "$@"'
        return proxy and replace(proxy, arguments=["sh", "-c", both, "sh", *proxy.arguments])

    return Rule({"app": None, "version": None}, program)


def asked_directly(mesh, pod, method):
    """The status that a pod answers with; None if nobody listens."""
    with mesh.inside():
        answer = asking.ask(f"http://{pod['status']['podIP']}:8501{PATH}", method=method)
    return answer and answer.status


def test_sp114_at_pods_older_than_the_label_istios_policies_do_not_hold(mesh):
    space, rule = in_older("Namespace"), behind_a_sidecar(mesh)
    deployment = copy.deepcopy(one(sound(), "Deployment", "-resnet50"))
    deployment["metadata"]["namespace"] = "older"
    objects = [space, *(in_older(kind) for kind in IN_OLDER if kind != "Namespace"), deployment]
    try:
        apply_all(mesh, objects)
        with mesh.inside():
            api.apply(mesh.api, {**space, "metadata": {"name": "older", "labels": {"istio-injection": "enabled"}}})
        (finding,) = check(live(mesh, ("older",))).findings
        (old,) = pods(mesh, "older")
        assert (finding.code, finding.object) == ("SP114", f"Pod older/{old['metadata']['name']}")
        assert {asked_directly(mesh, old, method) for method in ("GET", "POST")} == {200}
        mesh.kubelet.rules.insert(0, rule)
        with mesh.inside():
            api.delete(mesh.api, old)
        until(lambda: is_replaced(mesh, old), "another pod alone", 30)
        (new,) = live_pods(mesh)
        until(lambda: asked_directly(mesh, new, "GET") == 200, "its sidecar to pass on", 30)
        assert asked_directly(mesh, new, "POST") == 403
        assert not check(live(mesh, ("older",))).findings
    finally:
        if rule in mesh.kubelet.rules:
            mesh.kubelet.rules.remove(rule)
        remove_all(mesh, objects)


def is_replaced(mesh, old):
    """Whether another pod is there, alone, and has an address."""
    found = live_pods(mesh)
    return len(found) == 1 and found[0]["metadata"]["uid"] != old["metadata"]["uid"] and "podIP" in found[0]["status"]


def live_pods(mesh):
    with mesh.inside():
        return api.listed(mesh.api, "v1", "Pod", "older")
