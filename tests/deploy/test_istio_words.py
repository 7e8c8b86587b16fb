"""What is said of an Istio that is too old or cannot be installed, and of a container that crashes."""

import stat

import pytest
from api_server import Fault

from deploy.cluster.client import Cluster, connect
from deploy.cluster.readiness import await_ready, pod_reason
from deploy.istio import Istio, find, given, ingress, injection, install, refuse_too_old
from experiments.core.errors import StackError
from experiments.core.stack import PLAIN

V1 = [{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "web"}}]


@pytest.mark.parametrize("version", ["1.22.0", "1.31-alpha.abc", "2.0", None])
def test_a_release_that_serves_the_api_or_is_not_known_is_let_through(version):
    refuse_too_old(Istio("networking.istio.io/v1", version, ()), V1)


def test_a_release_that_is_too_old_is_refused_with_both_versions_and_the_way_out():
    old = Istio("networking.istio.io/v1beta1", "1.21.6", ())
    with pytest.raises(StackError) as told:
        refuse_too_old(old, V1)
    assert str(told.value) == (
        "Istio 1.21.6 is too old for VirtualService web: networking.istio.io/v1 came with 1.22; upgrade it, or use its "
        "own networking.istio.io/v1beta1."
    )


def test_a_namespace_may_name_a_revision_or_a_tag_that_stands_for_one(lab):
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    istiod = {"name": "istiod-1", "namespace": "istio-system", "labels": {"app": "istiod"}}
    lab.put({"kind": "Pod", "apiVersion": "v1", "metadata": istiod, "spec": {"containers": []}, "status": ready})
    for name, labels in (("one", {"istio.io/rev": "1-31"}), ("two", {"istio.io/rev": "1-31", "istio.io/tag": "prod"})):
        metadata = {"name": name, "labels": {"app": "sidecar-injector", **labels}}
        kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
        lab.put({**kind, "metadata": metadata})
    found = find(connect())
    assert found.revisions == ["1-31", "prod"]
    for revision, said in (("1-31", None), ("prod", None), ("1-30", "names no injector; there are: 1-31, prod")):
        labels = {"istio.io/rev": revision}
        lab.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}})
        why = injection(connect(), "shop", found)
        assert why is said or why.endswith(said)


@pytest.fixture
def istioctl(tmp_path, monkeypatch):
    """A program of that name on the PATH, by what it does."""

    def write(script):
        path = tmp_path / "istioctl"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return write


LAB = Cluster("lab", "https://lab.example:6443", None)


def test_without_istioctl_the_same_is_told_for_helm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match=r"istioctl is not on the PATH.*helm install istiod istio/istiod"):
        install(LAB, lambda _: None)


def test_istioctl_installs_into_the_very_context_that_was_chosen(istioctl, tmp_path):
    istioctl(f'echo "$@" > {tmp_path}/told')
    install(LAB, lambda _: None)
    assert (tmp_path / "told").read_text().split() == ["install", "--context", "lab", "--set", "profile=default", "-y"]
    istioctl("echo first; echo no cluster is there >&2; exit 3")
    with pytest.raises(StackError, match=r"istioctl ended with 3: no cluster is there; mend it"):
        install(LAB, lambda _: None)


def of_pod(kind, name, status=None, **spec):
    metadata = {"name": name, "namespace": "shop", "labels": {"istio": "ingressgateway"}}
    return {"kind": kind, "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": status or {}}


def waiting(reason, message=""):
    """A pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return of_pod("Pod", "web-1", {"containerStatuses": [{"name": "tf-serving", "state": state}]}, containers=[])


def test_a_crash_loop_is_told_with_the_last_line_of_the_container(lab):
    """The log is the one thing that the mesh of our tests has not."""
    line = "E no versions of servable image_classifier found under base path"
    asked = r"pods/web-1/log\?container=tf-serving&previous=true&tailLines=1$"
    lab.faults.append(Fault(asked, 200, text=f"{line}\n"))
    told = pod_reason(connect(), waiting("CrashLoopBackOff", "back-off 5m0s restarting"))
    assert told == f"pod web-1, container tf-serving: CrashLoopBackOff: {line}"


def event(reason, message, at):
    metadata = {"name": f"web-1.{at}", "namespace": "shop"}
    about = {"kind": "Pod", "name": "web-1"}
    return {"kind": "Event", "apiVersion": "v1", "metadata": metadata, "reason": reason, "message": message,
            "lastTimestamp": at, "involvedObject": about, "type": "Warning"}  # fmt: skip


def test_a_container_that_is_only_being_made_is_told_with_the_last_warning(lab):
    assert pod_reason(connect(), waiting("ContainerCreating")) == ""
    lab.put(event("FailedMount", "MountVolume.SetUp failed:\n  hostPath type check failed", "2026-01-01T00:00:02Z"))
    lab.put(event("FailedScheduling", "no node", "2026-01-01T00:00:01Z"))
    told = pod_reason(connect(), waiting("ContainerCreating"))
    assert told == "pod web-1: FailedMount: MountVolume.SetUp failed: hostPath type check failed"
    assert "involvedObject.name%3Dweb-1" in lab.seen[-1]
    lab.faults.append(Fault("/events", 403, 1))
    assert pod_reason(connect(), waiting("ContainerCreating")) == ""


def deployment(name):
    spec = {"replicas": 1, "selector": {"matchLabels": {"web": name}}}
    return {
        "kind": "Deployment",
        "apiVersion": "apps/v1",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }


def test_what_waiting_cannot_mend_is_what_is_told_though_others_wait_too(lab):
    for name, reason in (("first", "ContainerCreating"), ("second", "InvalidImageName")):
        lab.put(deployment(name))
        pod = waiting(reason, "couldn't parse image name")
        lab.put({**pod, "metadata": {"name": f"{name}-1", "namespace": "shop", "labels": {"web": name}}})
    with pytest.raises(StackError, match=r"Deployment second: 0 of 1 pods are ready: pod second-1.*InvalidImageName"):
        await_ready(connect(), [deployment("first"), deployment("second")], 5, lambda _: None)


READY = {"conditions": [{"type": "Ready", "status": "True"}], "podIP": "127.0.0.1"}
NAMED = [{"ports": [{"name": "http2", "containerPort": 8081}]}]


@pytest.mark.parametrize(
    ("target", "listens"),
    [({"targetPort": 8080}, 8080), ({"targetPort": 80}, 80), ({"targetPort": "http2"}, 8081), ({}, 80)],
)
def test_the_gateways_pods_listen_where_their_service_says(lab, target, listens):
    """`istioctl install` has 8080, Istio's Helm chart 80."""
    lab.put(of_pod("Pod", "gateway-1", READY, containers=NAMED))
    ports = [{"name": "status", "port": 15021, "targetPort": 15021}, {"name": "http2", "port": 80, **target}]
    lab.put(of_pod("Service", "gateway", selector={"istio": "ingressgateway"}, ports=ports))
    assert ingress(connect(), {"istio": "ingressgateway"}).front.pod_port == listens
    assert given(connect(), {"istio": "ingressgateway"}, PLAIN, "http://way.in/").front.pod_port == listens


def test_without_a_service_to_say_so_they_listen_where_istioctl_puts_it(lab):
    lab.put(of_pod("Pod", "gateway-1", READY, containers=NAMED))
    found = given(connect(), {"istio": "ingressgateway"}, PLAIN, "http://way.in/")
    assert (found.url, found.front.pod_port) == ("http://way.in", 8080)
    lab.faults.append(Fault("/pods", 403, 1))
    assert given(connect(), {"istio": "ingressgateway"}, PLAIN, "http://way.in/").front.pod_port == 8080
