"""What is said of an Istio that is too old or cannot be installed, and of a container that crashes."""

import json
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes import client

from deploy.cluster.client import Cluster
from deploy.cluster.readiness import pod_reason
from deploy.istio import Istio, install, refuse_too_old
from experiments.core.errors import StackError

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


class Logs(BaseHTTPRequestHandler):
    """The one thing that the mesh of our tests has not: the log of a container that crashed."""

    def do_GET(self):
        known = {"/api/v1": {"resources": [{"name": "pods", "kind": "Pod", "namespaced": True}]}}
        found = json.dumps(known[self.path]) if self.path in known else self.log_of()
        self.send_response(200)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found.encode())

    def log_of(self):
        assert self.path == "/api/v1/namespaces/shop/pods/web-1/log?container=tf-serving&previous=true&tailLines=1"
        return "E no versions of servable image_classifier found under base path\n"

    def log_message(self, *_):
        pass


def test_a_crash_loop_is_told_with_the_last_line_of_the_container():
    with ThreadingHTTPServer(("127.0.0.1", 0), Logs) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
        cluster = Cluster("lab", settings.host, client.ApiClient(settings))
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting"}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web-1", "namespace": "shop"},
            "status": {"containerStatuses": [{"name": "tf-serving", "state": waiting}]},
        }
        told = pod_reason(cluster, pod)
        server.shutdown()
    assert told == (
        "pod web-1, container tf-serving: CrashLoopBackOff: E no versions of servable image_classifier found under "
        "base path"
    )
