"""What stands behind the pods: our serving processes, several replicas, readiness, forwarded ports."""

import copy
import json

import pytest
from plane import api
from plane.objects import pods, rendered
from plane.processes import environment
from plane.traffic import ask, by_version
from plane.waiting import until

from experiments.core.children import end

pytestmark = [pytest.mark.slow, pytest.mark.mesh]

PATH = "/v1/models/image_classifier:predict"
GATEWAY = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "istio-ingressgateway", "namespace": "istio-system"},
}


def answered(mesh, path=PATH):
    with mesh.inside():
        return all(each.status == 200 for each in ask(mesh.gateway_url, 20, path))


def test_every_replica_of_the_gateway_listens_and_routes_by_itself(mesh, applied):
    applied(rendered(mesh, "quickstart", "--phase", "split"))
    with mesh.inside():
        api.patch(mesh.api, GATEWAY, {"spec": {"replicas": 2}})
        try:
            until(lambda: len(mesh.gateways) == 2, "a second gateway", 60)
            for address in mesh.gateways:
                url = f"http://{address}:8080"
                until(lambda there=url: answers_all(there), f"routes at {address}", 20)
                assert set(by_version(ask(url, 100, PATH))) == {"resnet50", "resnet101"}
        finally:
            api.patch(mesh.api, GATEWAY, {"spec": {"replicas": 1}})
            until(lambda: len(mesh.gateways) == 1, "one gateway", 60)


def answers_all(url):
    try:
        return all(each.status == 200 for each in ask(url, 10, PATH))
    except OSError:
        return False


def test_a_pod_whose_process_ended_is_unready_and_gets_no_traffic(mesh, applied):
    manifests = rendered(mesh, "quickstart", "--phase", "split")
    plain = copy.deepcopy(manifests)
    virtual = next(each for each in plain if each["kind"] == "VirtualService")
    virtual["spec"]["http"] = [{"route": [{"destination": {"host": "image-classifier", "port": {"number": 8501}}}]}]
    applied(plain)
    until(lambda: answered(mesh), "the route", 20)
    (gone,) = pods(mesh, "tf-serving", "version=resnet101")
    end(mesh.kubelet.process_of(gone["metadata"]["name"]), 2)

    def only_the_other():
        with mesh.inside():
            return set(by_version(ask(mesh.gateway_url, 40, PATH))) == {"resnet50"}

    until(only_the_other, "traffic to the other pod alone", 20)
    (now,) = pods(mesh, "tf-serving", "version=resnet101")
    assert any(each["type"] == "Ready" and each["status"] == "False" for each in now["status"]["conditions"])


def test_a_forwarded_port_reaches_the_process_behind_the_pod(mesh, applied):
    kubernetes = pytest.importorskip("kubernetes")
    applied(rendered(mesh, "quickstart", "--phase", "split"))
    (pod,) = pods(mesh, "tf-serving", "version=resnet50")
    name = pod["metadata"]["name"]
    with mesh.inside():
        client = kubernetes.config.new_client_from_config(environment(mesh.place)["KUBECONFIG"])
        core = kubernetes.client.CoreV1Api(client)
        forward = kubernetes.stream.portforward(core.connect_get_namespaced_pod_portforward, name, "tf-serving",
                                                ports="8501")  # fmt: skip
        socket = forward.socket(8501)
        socket.settimeout(20)
        socket.sendall(b"GET /who HTTP/1.1\r\nHost: pod\r\n\r\n")
        text = b""
        while b"}" not in text:  # the forwarded socket never tells of its end
            text += socket.recv(4096)
        socket.close()
        client.close()
    assert json.loads(text[text.index(b"{"):])["pod"] == name  # fmt: skip
