"""Every object of every phase of the shipped experiments, in every form, as a real API server takes it."""

import json

import pytest
from plane import api

from deploy.manifests import ISTIO_APIS, Form, manifests
from experiments.core import reading

pytestmark = [pytest.mark.slow, pytest.mark.mesh]


def objects_of(form):
    """Each object once, however many phases have it."""
    found = {}
    for path in reading.catalogue():
        loaded = reading.load(path.stem)
        for phase in loaded.experiment.phases:
            for manifest in manifests(loaded, phase, form):
                found[json.dumps(manifest, sort_keys=True)] = manifest
    return list(found.values())


@pytest.mark.parametrize("claim", [None, "models"])
@pytest.mark.parametrize("profile", ["tutorial", "hardened"])
@pytest.mark.parametrize("version", ISTIO_APIS)
def test_the_servers_dry_run_takes_every_object_and_keeps_what_it_says(mesh, profile, version, claim):
    objects = objects_of(Form(profile, istio_api=f"networking.istio.io/{version}", model_claim=claim))
    with mesh.inside():
        for manifest in objects:
            # Nothing can be tried in a Namespace that is not there, so that one is made.
            answer = api.apply(mesh.api, manifest, force=True, dry=manifest["kind"] != "Namespace")
            assert answer["apiVersion"] == manifest["apiVersion"]
            assert not list(lost(manifest, answer)), manifest["metadata"]["name"]


def lost(wanted, found, path=""):
    """The paths of what we wrote and the server does not have: a field that the schema does not know is dropped."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            if key not in found and value not in ({}, [], None, 0, False):
                yield f"{path}.{key}"
            elif key in found:
                yield from lost(value, found[key], f"{path}.{key}")
    elif isinstance(wanted, list):
        if len(wanted) != len(found):
            yield path
        for value, other in zip(wanted, found, strict=False):
            yield from lost(value, other, path)
    elif wanted != found:
        yield path
