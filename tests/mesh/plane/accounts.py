"""The ServiceAccounts that we ship, as a kubeconfig of their own each: what they may do is what real RBAC says."""

import json
from collections.abc import Sequence
from pathlib import Path

from plane import api
from plane.mesh import Mesh
from ruamel.yaml import YAML

from experiments.core.home import CHECKOUT

NAMESPACE = "tf-serving"


def grant(mesh: Mesh, *names: str) -> None:
    """Apply the roles of `deploy/rbac`, after the namespace of their accounts."""
    space = {"apiVersion": "v1", "kind": "Namespace"}
    labels = {"istio-injection": "enabled"}
    api.apply(mesh.api, {**space, "metadata": {"name": NAMESPACE, "labels": labels}}, force=True)
    for name in names:
        for each in YAML(typ="safe").load_all((CHECKOUT / "deploy" / "rbac" / f"{name}.yaml").read_text()):
            api.apply(mesh.api, each, force=True)


def kubeconfig_of(mesh: Mesh, account: str, folder: Path) -> Path:
    """A kubeconfig with a token of a ServiceAccount, as a file in a folder."""
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 900}}
    token = api.request(mesh.api, "POST", path, body)["status"]["token"]
    document = json.loads(mesh.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": token}
    made = folder / account
    made.write_text(json.dumps(document))
    return made


def may(mesh: Mesh, account: str, verb: str, resource: str, namespace: str = NAMESPACE) -> bool:
    """Whether the authorizer lets an account do something; a resource is `PLURAL` or `PLURAL.GROUP`."""
    plural, _, group = resource.partition(".")
    attributes = {"verb": verb, "resource": plural, "group": group, "namespace": namespace}
    plural, _, part = plural.partition("/")
    attributes.update({"resource": plural, "subresource": part})
    user = f"system:serviceaccount:{NAMESPACE}:{account}"
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    body = {**review, "spec": {"resourceAttributes": attributes, "user": user, "groups": ["system:serviceaccounts"]}}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(api.request(mesh.api, "POST", path, body)["status"]["allowed"])


def refused(mesh: Mesh, account: str, asked: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Those of (verb, resource, namespace) that the account may do though it should not."""
    return [each for each in asked if may(mesh, account, *each)]
