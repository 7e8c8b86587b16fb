"""Which changes on a cluster are told as somebody else's: no cluster is needed to know."""

import time
from dataclasses import replace

import pytest

from deploy.cluster import foreign
from deploy.cluster.client import connect
from deploy.cluster.foreign import Watch
from deploy.cluster.scope import Scope, matters
from deploy.embedded.admin import wait_for
from experiments.core.errors import StackError

SHOP = Scope("web", "shop", gateways=frozenset({("istio-system", "public")}))


def virtual(generation, name="web", manager="kubectl-edit"):
    weights = [{"destination": {"subset": "old"}, "weight": 30}, {"destination": {"subset": "new"}, "weight": 70}]
    written = {"manager": manager, "operation": "Apply", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {}}}
    metadata = {"name": name, "generation": generation, "managedFields": [written]}
    return {"kind": "VirtualService", "metadata": metadata, "spec": {"http": [{"route": weights}]}}


def to(host):
    return {"route": [{"destination": {"host": host}}]}


def pod(uid, replica_set):
    owner = {"kind": "ReplicaSet", "name": replica_set}
    return {"kind": "Pod", "metadata": {"uid": uid, "name": f"{replica_set}-{uid}", "ownerReferences": [owner]}}


def watch(heard):
    return Watch(cluster=None, scope=SHOP, told=heard.append)


def test_a_change_of_our_own_is_not_told_and_the_next_by_somebody_else_is():
    heard = []
    watching = watch(heard)
    watching.ours(virtual(2))
    foreign._hear(watching, "MODIFIED", virtual(2))
    assert heard == []
    foreign._hear(watching, "MODIFIED", virtual(3))
    (entry,) = heard
    assert (entry.by, entry.object, entry.routes, entry.lasting) == ("kubectl-edit", "VirtualService", True, False)
    assert entry.what == "VirtualService web was changed (weights now old 30/new 70)"


def test_what_no_phase_of_ours_puts_right_lasts():
    heard = []
    watching = watch(heard)
    watching.ours(virtual(1))
    another = virtual(1, "another")
    foreign._hear(watching, "ADDED", {**another, "spec": {"gateways": ["istio-system/public"]}})
    foreign._hear(watching, "ADDED", {**virtual(1), "kind": "DestinationRule", "spec": {"host": "web"}})
    assert [(entry.object, entry.lasting) for entry in heard] == [("VirtualService", True), ("DestinationRule", True)]


def test_a_change_that_was_missed_is_as_old_as_the_watch_s_end_but_not_older_than_our_own():
    heard = []
    watching = watch(heard)
    foreign._hear(watching, "MODIFIED", virtual(1), 1_000)
    watching.ours(virtual(2))
    foreign._hear(watching, "MODIFIED", virtual(3), 1_000)
    assert heard[0].at_us == 1_000
    assert heard[1].at_us >= time.time_ns() // 1000 - 60_000_000


def test_the_pods_of_a_deployment_that_we_took_away_go_by_our_hand():
    heard = []
    watching = watch(heard)
    for each in (pod("1", "web-new-5f6d"), pod("2", "web-old-77c8")):
        watching.pods[each["metadata"]["uid"]] = each["metadata"]["name"]
    watching.gone("Deployment", "web-new")
    for each in (pod("1", "web-new-5f6d"), pod("2", "web-old-77c8")):
        foreign._hear(watching, "DELETED", each)
    assert [entry.what for entry in heard] == ["pod web-old-77c8-2 is gone"]


def test_the_pods_of_a_job_are_nobody_s_business():
    heard = []
    loading = pod("1", "load")
    loading["metadata"]["ownerReferences"][0]["kind"] = "Job"
    for what in ("ADDED", "MODIFIED", "DELETED"):
        foreign._hear(watch(heard), what, loading)
    assert heard == []
    foreign._hear(watch(heard), "ADDED", pod("2", "web-5f6d"))
    assert [entry.what for entry in heard] == ["pod web-5f6d-2 came"]


def test_an_object_that_was_made_anew_counts_from_1_again_and_is_told():
    """As a list shows it after a watch that broke off: the same name, another uid, a lower generation."""

    def gateway(uid, generation):
        found = virtual(generation)
        return {**found, "kind": "Gateway", "metadata": {**found["metadata"], "uid": uid}}

    heard = []
    watching = watch(heard)
    watching.ours(gateway("a", 3))
    foreign._hear(watching, "MODIFIED", gateway("b", 1))
    foreign._hear(watching, "DELETED", gateway("a", 3))  # that of the first one, which is no news any more
    foreign._hear(watching, "MODIFIED", gateway("b", 1))
    foreign._hear(watching, "DELETED", gateway("b", 1))
    assert [entry.what for entry in heard] == ["Gateway web was deleted and created anew", "Gateway web was deleted"]


def test_a_gateway_in_another_namespace_is_watched_where_the_routes_are_bound_to_it(lab):
    def gateway(space, host):
        metadata = {"name": "public", "namespace": space}
        kind = {"apiVersion": "networking.istio.io/v1", "kind": "Gateway"}
        return {**kind, "metadata": metadata, "spec": {"servers": [{"hosts": [host]}]}}

    for space in ("shop", "istio-system", "elsewhere"):
        lab.put(gateway(space, "*"))
    heard = []
    with foreign.watching(connect(), SHOP, "networking.istio.io/v1", heard.append):
        for space in ("elsewhere", "istio-system"):
            lab.put(gateway(space, "another.example"))
        # The small server refuses to watch: what changed is found by listing anew.
        assert wait_for(lambda: heard, 20)
    assert [(entry.object, entry.what) for entry in heard] == [("Gateway", "Gateway public was changed")]


LABELS = {"app": "web", "version": "old"}
# Another team's object in the same namespace → whether its change can be one for our requests.
OTHERS = {
    "VirtualService of ours": ("VirtualService", {"http": []}, True),
    "VirtualService of another host at another Gateway": (
        "VirtualService", {"hosts": ["till.example"], "gateways": ["till"], "http": [to("till")]}, False),
    "VirtualService at our Gateway": (
        "VirtualService", {"gateways": ["istio-system/public"], "http": [to("till")]}, True),
    "VirtualService that routes to us": ("VirtualService", {"http": [to("web.shop.svc.cluster.local")]}, True),
    "VirtualService that mirrors to us": ("VirtualService", {"http": [{"mirror": {"host": "web"}}]}, True),
    "VirtualService for us, in the mesh": ("VirtualService", {"hosts": ["web.shop"], "http": [to("till")]}, True),
    "VirtualService of a longer name": ("VirtualService", {"hosts": ["web2"], "http": [to("web-old")]}, False),
    "DestinationRule of ours": ("DestinationRule", {"host": "web.shop.svc.cluster.local"}, True),
    "DestinationRule for all": ("DestinationRule", {"host": "*.shop.svc.cluster.local"}, True),
    "DestinationRule for everything": ("DestinationRule", {"host": "*"}, True),
    "DestinationRule of another": ("DestinationRule", {"host": "till"}, False),
    "DestinationRule of others": ("DestinationRule", {"host": "*.bank.svc.cluster.local"}, False),
    "Gateway": ("Gateway", {}, True),
    "Deployment of an arm": ("Deployment", {"template": {"metadata": {"labels": LABELS}}}, True),
    "Deployment of another": ("Deployment", {"template": {"metadata": {"labels": {"app": "till"}}}}, False),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_what_another_team_does_in_the_same_namespace_matters_where_it_meets_our_requests(what):
    kind, spec, wanted = OTHERS[what]
    name = "web" if what.endswith("of ours") else "other"
    scope = replace(SHOP, selector={"app": "web"})
    item = {"kind": kind, "metadata": {"name": name, "namespace": "shop", "generation": 1, "uid": "a"}, "spec": spec}
    heard = []
    foreign._hear(Watch(None, scope, heard.append), "ADDED", item)
    assert bool(heard) is matters(scope, item) is wanted


def test_pods_of_another_team_come_and_go_untold_and_what_leaves_our_gateway_is_told():
    heard, scope = [], replace(SHOP, selector={"app": "web"})
    watching = Watch(None, scope, heard.append)
    for labels in ({"app": "till"}, LABELS):
        found = pod("1" if labels is LABELS else "2", "some-5f6d")
        found["metadata"]["labels"] = labels
        for event in ("ADDED", "DELETED"):
            foreign._hear(watching, event, found)
    assert [entry.what for entry in heard] == ["pod some-5f6d-1 came", "pod some-5f6d-1 is gone"]
    for generation, gateway in ((1, "istio-system/public"), (2, "till"), (3, "till")):
        item = virtual(generation, "other")
        foreign._hear(watching, "MODIFIED", {**item, "spec": {"gateways": [gateway]}})
    assert [entry.what.split(" was ")[1] for entry in heard[2:4]] == ["created", "changed"]


def test_what_cannot_be_watched_any_more_is_told_once(monkeypatch):
    """A run whose routes nobody could see is no run whose routes nobody changed."""
    attempts = []

    def refused(*_):
        attempts.append(1)
        if len(attempts) > 6:
            watching.ended.set()
        raise StackError("the API server is gone.")

    heard = []
    watching = watch(heard)
    monkeypatch.setattr(foreign, "watched", refused)
    monkeypatch.setattr(foreign, "listing", refused)
    monkeypatch.setattr(foreign, "_PAUSE_S", 0.001)
    monkeypatch.setattr(foreign, "_BLIND_US", 0)
    foreign._follow(watching, foreign._Kind("networking.istio.io/v1", "VirtualService", "shop"), "1")
    (entry,) = heard
    assert entry.routes
    assert "VirtualServices could not be watched any more (the API server is gone.)" in entry.what
