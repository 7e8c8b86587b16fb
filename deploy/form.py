"""How the objects of a stack are written, as against what they say."""

from dataclasses import dataclass
from typing import Any, Literal

Manifest = dict[str, Any]
Profile = Literal["tutorial", "hardened"]

MANAGED_BY = {"app.kubernetes.io/managed-by": "splitproof"}
"""The label of everything that is ours, and so may be removed by us."""


ISTIO_APIS = ("v1", "v1beta1", "v1alpha3")
"""The versions of `networking.istio.io` in which the objects can be written: they mean the same in all."""


@dataclass(frozen=True)
class Form:
    """How the objects are written.

    Attributes:
        profile: `tutorial` is the canary lab's own YAML; `hardened` adds what a cluster needs.
        model_root: The folder on the node that holds a folder for each arm; minikube keeps `/data` over restarts.
        istio_api: The API version of Istio's networking objects, as `networking.istio.io/v1`; None: the profile's own.
        model_claim: A PersistentVolumeClaim that holds a folder for each arm, in place of the node's folder.
        image: The image of TensorFlow Serving, best by its digest; the profile's own tag if None.
        gateway_namespace: Where the pods of the ingress gateway run (hardened: they may call the models).
        istio_namespace: Where istiod runs (hardened: sidecars must reach it).
        mutual_tls: Whether callers in the mesh have an identity, as they have unless automatic mutual TLS is off;
            without it the AuthorizationPolicy says what may be asked for, and the NetworkPolicy alone who may ask.
    """

    profile: Profile = "hardened"
    model_root: str = "/data/models"
    istio_api: str | None = None
    model_claim: str | None = None
    image: str | None = None
    gateway_namespace: str = "istio-system"
    istio_namespace: str = "istio-system"
    mutual_tls: bool = True


DEFAULT_FORM = Form()
