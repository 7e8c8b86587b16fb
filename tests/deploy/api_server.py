"""A small API server over real HTTP: it keeps objects, refuses old versions and selects by label; it fails on demand.

What only a real one can show (schemas, field owners, RBAC) is in tests/mesh.
"""

import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import parse_qs, urlsplit

KINDS = {
    "v1": ("Namespace", "ConfigMap", "Pod", "Service", "Node", "Event"),
    "apps/v1": ("Deployment",),
    "policy/v1": ("PodDisruptionBudget",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "networking.istio.io/v1": ("VirtualService", "DestinationRule", "Gateway"),
    "security.istio.io/v1": ("AuthorizationPolicy",),
    "coordination.k8s.io/v1": ("Lease",),
    "discovery.k8s.io/v1": ("EndpointSlice",),
    "admissionregistration.k8s.io/v1": ("MutatingWebhookConfiguration",),
}
CLUSTER_WIDE = {"Namespace", "Node", "MutatingWebhookConfiguration"}
PATH = re.compile(r"/(?:api|apis)/(?P<version>v1|[^/]+/[^/]+)(?:/namespaces/(?P<space>[^/]+)(?=/))?/(?P<plural>[^/]+)")


def plural(kind):
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind.lower()}s"


@dataclass
class Fault:
    """What happens to requests whose `VERB PATH` matches, so often: a status and a text, or for 0 a broken line."""

    pattern: str
    status: int
    times: int = 1
    body: dict = field(default_factory=dict)
    text: str = ""
    headers: dict = field(default_factory=dict)


@dataclass
class Store:
    """What is there, and what was asked; `writes` are the requests that were to change something."""

    objects: dict = field(default_factory=dict)
    faults: list = field(default_factory=list)
    seen: list = field(default_factory=list)
    url: str = ""
    versions: count = field(default_factory=lambda: count(1))
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def writes(self):
        return [line for line in self.seen if not line.startswith("GET ") and "dryRun" not in line]

    def put(self, manifest):
        """Keep an object, with a version of its own."""
        metadata, key = manifest["metadata"], key_of(manifest)
        with self.lock:
            number, before = next(self.versions), self.objects.get(key)
            made = {"uid": before["metadata"]["uid"] if before else f"uid-{number}", "resourceVersion": str(number)}
            spec_as_before = before is not None and before.get("spec") == manifest.get("spec")
            generation = before["metadata"]["generation"] + (not spec_as_before) if before else 1
            self.objects[key] = {**manifest, "metadata": {**metadata, **made, "generation": generation}}
            return self.objects[key]

    def get(self, kind, name):
        """The object of a kind and name, whatever its namespace; None where there is none."""
        return next((each for key, each in self.objects.items() if (key[0], key[2]) == (kind, name)), None)

    def named(self):
        return sorted(f"{kind} {name}" for kind, _, name in self.objects)


def key_of(manifest):
    space = "" if manifest["kind"] in CLUSTER_WIDE else manifest["metadata"].get("namespace", "")
    return manifest["kind"], space, manifest["metadata"]["name"]


@contextmanager
def serving():
    """An API server for as long as the block."""
    store = Store()
    handler = type("Handler", (_Handler,), {"store": store})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        store.url = f"http://127.0.0.1:{server.server_port}"
        yield store
        server.shutdown()


def kubeconfig(path, **servers):
    """A kubeconfig with a context for each server, by name; its path as a text."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": url}} for name, url in servers.items()],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in servers],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "current-context": next(iter(servers)),
    }
    path.write_text(json.dumps(document))
    return str(path)


def merged(before, changes):
    """What a merge patch makes of an object."""
    if not isinstance(changes, dict) or not isinstance(before, dict):
        return changes
    kept = {name: merged(before.get(name), value) for name, value in changes.items() if value is not None}
    return {**{name: value for name, value in before.items() if name not in changes}, **kept}


class _Handler(BaseHTTPRequestHandler):
    store = None

    def answer(self):
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else {}
        line = f"{self.command} {self.path}"
        self.store.seen.append(line)
        for fault in self.store.faults:
            if fault.times > 0 and re.search(fault.pattern, line):
                fault.times -= 1
                if fault.status == 0:
                    self.close_connection = True
                    self.connection.close()
                    return
                told = {"kind": "Status", "message": "injected", **fault.body}
                self.send(fault.status, fault.text or told, fault.headers)
                return
        with self.store.lock:
            self.send(*self.found(body))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - names that http.server looks for

    def found(self, body):
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        version = parts.path.partition("/apis/")[2] or parts.path.partition("/api/")[2]
        if version in KINDS:
            known = [
                {"name": plural(kind).lower(), "kind": kind, "namespaced": kind not in CLUSTER_WIDE}
                for kind in KINDS[version]
            ]
            return 200, {"resources": known}
        match = PATH.match(parts.path)
        kinds = KINDS.get(match["version"], ()) if match else ()
        kind = next((each for each in kinds if plural(each).lower() == match["plural"]), None)
        if kind is None:
            return 404, {"message": f"no {parts.path}"}
        space, name = match["space"] or "", parts.path[match.end() :].strip("/")
        return self.one(kind, space, name, body, query) if name else self.many(kind, space, body, query)

    def many(self, kind, space, body, query):
        if self.command == "POST":
            if key_of(body) in self.store.objects:
                return 409, {"message": "already exists"}
            if space and ("Namespace", "", space) not in self.store.objects:
                return 404, {"message": f'namespaces "{space}" not found'}
            return 201, self.store.put(body)
        if "watch" in query:
            return 410, {"message": "watches are what the real one is for: list anew"}
        wanted = dict(each.split("=") for each in query.get("labelSelector", "").split(",") if "=" in each)
        items = [
            each
            for key, each in self.store.objects.items()
            if key[0] == kind
            and (not space or key[1] == space)
            and wanted.items() <= (each["metadata"].get("labels") or {}).items()
        ]
        return 200, {"items": items, "metadata": {"resourceVersion": str(next(self.store.versions))}}

    def one(self, kind, space, name, body, query):
        before = self.store.objects.get((kind, space, name))
        if before is None and (self.command != "PATCH" or "merge" in self.headers["Content-Type"]):
            return 404, {"message": f'{kind} "{name}" not found'}
        given = (body.get("metadata") or {}).get("resourceVersion") or (body.get("preconditions") or {}).get(
            "resourceVersion"
        )
        if given and given != before["metadata"]["resourceVersion"]:
            return 409, {"message": "the object has been modified"}
        if self.command == "DELETE":
            del self.store.objects[kind, space, name]
            return 200, {"status": "Success"}
        if self.command in {"PATCH", "PUT"}:
            after = merged(before or {}, body) if self.command == "PATCH" else body
            return 200, after if "dryRun" in query else self.store.put(after)
        return 200, before

    def send(self, status, answer, headers=None):
        text = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass
