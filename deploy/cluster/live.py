"""The objects of a namespace as they are on a cluster now, for whoever looks at manifests."""

from deploy.cluster.client import Cluster, Json
from deploy.cluster.objects import get, listed, serves
from deploy.cluster.ownership import versions
from deploy.lint.world import KINDS
from experiments.core.errors import StackError


def objects(cluster: Cluster, namespace: str) -> list[Json]:
    """What lint looks at: everything of its kinds in a namespace, and the pods of every gateway.

    Raises:
        StackError: there is no such namespace, or something may not be read.
    """
    space = get(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    if space is None:
        raise StackError(f"{cluster}: has no namespace {namespace}; name one that it has.")
    found = [{**space, "apiVersion": "v1", "kind": "Namespace"}]
    for version, kind in KINDS:
        known = next((each for each in versions(version) if serves(cluster, each, kind)), None)
        if known and kind != "Namespace":
            found += listed(cluster, known, kind, namespace)
    return found + [
        pod for pod in listed(cluster, "v1", "Pod", "", "istio") if pod["metadata"]["namespace"] != namespace
    ]
