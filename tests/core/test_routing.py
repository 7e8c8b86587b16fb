import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.core.errors import ExperimentError
from experiments.core.routing import (
    Expectation,
    Request,
    expected_shares,
    http_routes,
    phase_expectations,
    routed_arm,
    routed_phase,
)
from experiments.core.spec import Experiment

SUBSETS = {"a": "a", "b": "b"}
TO_A = {"route": [{"destination": {"host": "h", "subset": "a"}}]}
TO_B = {"route": [{"destination": {"host": "h", "subset": "b"}}]}


def when(block, route=TO_B):
    return {"match": [block] if isinstance(block, dict) else block, **route}


def arm_of(http, **headers):
    request = Request("/v1/models/m:predict", {name.replace("_", "-"): value for name, value in headers.items()})
    shares = expected_shares(http, request, SUBSETS, ["a", "b"]).shares
    return None if shares is None else max(shares, key=shares.__getitem__)


def experiment(*phases, **more):
    return Experiment.model_validate(
        {
            "model": "image_classifier",
            "arms": {"a": {"keras": "ResNet50"}, "b": {"keras": "ResNet101"}},
            "payloads": ["x.jpg"],
            "phases": list(phases),
            **more,
        }
    )


# Istio's VirtualService reference, HTTPMatchRequest and StringMatch: one expected answer for each rule that it states.
@pytest.mark.parametrize(
    ("match", "headers", "expected"),
    [
        ({"headers": {"user-group": {"exact": "canary"}}}, {"user_group": "canary"}, "b"),
        ({"headers": {"User-Group": {"exact": "canary"}}}, {"user_group": "canary"}, "b"),
        ({"headers": {"user-group": {"exact": "canary"}}}, {"user_group": "Canary"}, "a"),
        ({"headers": {"user-group": {"exact": "canary"}}}, {"user_group": "canary,x"}, "a"),
        ({"headers": {"user-group": {"exact": "canary"}}}, {}, "a"),
        ({"headers": {"user-group": {"prefix": "can"}}}, {"user_group": "canary"}, "b"),
        ({"headers": {"user-group": {"prefix": "can"}}}, {"user_group": "a canary"}, "a"),
        ({"headers": {"user-group": {"regex": "can.*"}}}, {"user_group": "canary"}, "b"),
        ({"headers": {"user-group": {"regex": "can"}}}, {"user_group": "canary"}, "a"),
        ({"headers": {"user-group": {}}}, {"user_group": "anything"}, "b"),
        ({"headers": {"user-group": {}}}, {}, "a"),
        ({"withoutHeaders": {"user-group": {"exact": "canary"}}}, {}, "b"),
        ({"withoutHeaders": {"user-group": {"exact": "canary"}}}, {"user_group": "canary"}, "a"),
        ({"withoutHeaders": {"user-group": {"regex": ".*"}}}, {}, "a"),
        ({"withoutHeaders": {"user-group": {}}}, {}, "b"),
        ({"uri": {"exact": "/v1/models/m:predict"}}, {}, "b"),
        ({"uri": {"prefix": "/v1/models"}}, {}, "b"),
        ({"uri": {"prefix": "/V1"}}, {}, "a"),
        ({"uri": {"prefix": "/V1"}, "ignoreUriCase": True}, {}, "b"),
        ({"uri": {"regex": "/v1/.*"}}, {}, "b"),
        ([{"uri": {"exact": "/x"}}, {"headers": {"k": {"exact": "v"}}}], {"k": "v"}, "b"),
        ({"uri": {"exact": "/x"}, "headers": {"k": {"exact": "v"}}}, {"k": "v"}, "a"),
    ],
)
def test_a_match_block_means_what_istio_says(match, headers, expected):
    assert arm_of([when(match), TO_A], **headers) == expected


def test_the_first_match_wins_and_nothing_comes_after_a_catch_all():
    # Istio's BuildHTTPRoutesForVirtualService stops at the first catch-all: rules after it never match.
    assert arm_of([when({"headers": {"k": {}}}, TO_A), when({"headers": {"k": {}}}, TO_B)], k="v") == "a"
    assert arm_of([TO_A, when({"headers": {"k": {}}})], k="v") == "a"
    assert arm_of([when({"uri": {"prefix": "/"}}, TO_A), when({"headers": {"k": {}}})], k="v") == "a"


def test_no_match_and_unknown_matchers_have_no_shares():
    request = Request("/", {})
    assert expected_shares([when({"uri": {"exact": "/x"}})], request, SUBSETS, []).shares is None
    unknown = expected_shares([when({"queryParams": {"q": {"exact": "1"}}}), TO_A], request, SUBSETS, [])
    assert unknown.shares is None
    assert "does not determine" in unknown.reason


def test_an_unknown_matcher_that_another_condition_excludes_does_no_harm():
    http = [when({"uri": {"exact": "/x"}, "queryParams": {"q": {"exact": "1"}}}), TO_A]
    assert arm_of(http) == "a"


def test_weights_are_relative_to_their_sum():
    entries = [{**TO_A["route"][0], "weight": 30}, {**TO_B["route"][0], "weight": 30}]
    found = expected_shares([{"route": entries}], Request("/"), SUBSETS, [])
    assert found == Expectation({"a": 0.5, "b": 0.5})


def test_the_service_itself_has_a_share_only_while_one_arm_is_deployed():
    both = experiment({"name": "p", "route": "service"})
    found = phase_expectations(both, both.phases[0])["everyone"]
    assert found.shares is None
    assert "no share is configured" in found.reason
    alone = experiment({"name": "p", "route": "service", "arms": ["a"]})
    assert phase_expectations(alone, alone.phases[0])["everyone"].shares == {"a": 1.0, "b": 0.0}


def test_weights_and_headers_at_once():
    both = experiment(
        {"name": "p", "route": [{"when": {"g": "x"}, "to": {"a": 10, "b": 90}}, {"to": {"a": 70, "b": 30}}]},
        cohorts={"plain": {"share": "50%"}, "marked": {"share": "50%", "headers": {"G": "x"}}},
    )
    found = phase_expectations(both, both.phases[0])
    assert found["plain"].shares == {"a": 0.7, "b": 0.3}
    assert found["marked"].shares == {"a": 0.1, "b": 0.9}


def test_a_stated_intent_goes_before_the_route():
    stated = experiment({"name": "p", "route": {"a": 1, "b": 1}, "expect": {"everyone": {"a": "90%", "b": "10%"}}})
    assert phase_expectations(stated, stated.phases[0])["everyone"].shares == {"a": 0.9, "b": 0.1}


def test_each_destination_names_its_phase_and_arm_in_the_route_header():
    split = experiment({"name": "split", "route": {"a": 70, "b": 30}})
    (route,) = http_routes(split, split.phases[0])
    values = [entry["headers"]["response"]["set"]["x-splitproof-route"] for entry in route["route"]]
    assert values == ["split/a", "split/b"]
    assert [routed_arm(value) for value in values] == ["a", "b"]
    assert routed_phase(values[0]) == "split"
    assert [entry["weight"] for entry in route["route"]] == [70, 30]


names = st.sampled_from(["x", "y", "z"])
texts = st.sampled_from(["", "can", "canary", "Canary"])
matchers = st.one_of(
    st.just({}), st.builds(lambda kind, text: {kind: text}, st.sampled_from(["exact", "prefix", "regex"]), texts)
)
blocks = st.fixed_dictionaries(
    {},
    optional={
        "headers": st.dictionaries(names, matchers, max_size=2),
        "withoutHeaders": st.dictionaries(names, matchers, max_size=2),
        "uri": matchers,
    },
)
weights = st.lists(st.integers(0, 10**6), min_size=1, max_size=4)


@st.composite
def routes(draw):
    chosen = draw(weights)
    arms = [draw(st.sampled_from(["a", "b"])) for _ in chosen]
    entries = [{"destination": {"host": "h", "subset": arm}, "weight": w} for arm, w in zip(arms, chosen, strict=True)]
    match = draw(st.lists(blocks, max_size=2))
    return {"match": match, "route": entries} if match else {"route": entries}


@given(st.lists(routes(), max_size=4), st.dictionaries(names, texts, max_size=3))
def test_shares_sum_to_one_or_there_are_none_with_a_reason(http, headers):
    found = expected_shares(http, Request("/v1/models/m:predict", headers), SUBSETS, ["a", "b"])
    if found.shares is None:
        assert found.reason
    else:
        assert math.isclose(sum(found.shares.values()), 1)
        assert all(0 <= share <= 1 for share in found.shares.values())
        assert set(found.shares) == {"a", "b"}


@pytest.mark.parametrize(
    ("match", "headers", "expected"),
    [
        # For Istio `*` alone asks for presence (route.go, metadataMatcherFromStringMatch); as a regex it is none.
        ({"headers": {"h": {"regex": "*"}}}, {"h": ""}, "b"),
        ({"headers": {"h": {"regex": "*"}}}, {}, "a"),
        ({"withoutHeaders": {"h": {"regex": "*"}}}, {"h": ""}, "a"),
        ({"withoutHeaders": {"h": {"regex": "*"}}}, {}, "b"),
    ],
)
def test_a_star_asks_whether_a_header_is_there(match, headers, expected):
    assert arm_of([when(match), TO_A], **headers) == expected


def test_ignoring_case_is_for_paths_and_prefixes_envoy_passes_it_over_for_a_regex():
    http = [when({"uri": {"regex": "/V1/.*"}, "ignoreUriCase": True}), TO_A]
    assert expected_shares(http, Request("/V1/x"), SUBSETS, []).shares == {"a": 0, "b": 1}
    assert expected_shares(http, Request("/v1/x"), SUBSETS, []).shares == {"a": 1, "b": 0}


@pytest.mark.parametrize("name", [":authority", "User-Agent", "x-forwarded-for"])
def test_a_header_that_is_set_on_the_way_decides_nothing_unless_the_cohort_sends_it(name):
    http = [when({"headers": {name: {"exact": "x"}}}), TO_A]
    found = expected_shares(http, Request("/"), SUBSETS, [])
    assert found.shares is None
    assert "does not determine" in found.reason
    assert expected_shares(http, Request("/", {name: "x"}), SUBSETS, []).shares == {"a": 0, "b": 1}


def test_the_only_destination_gets_all_whatever_its_weight():
    only = {"route": [{"destination": {"host": "s", "subset": "b"}, "weight": 0}]}
    assert expected_shares([only], Request("/"), SUBSETS, []).shares == {"a": 0, "b": 1}


def test_a_route_file_with_a_regex_that_is_none_is_refused():
    with pytest.raises(ExperimentError, match=r"regex '\(': is no regular expression"):
        expected_shares([when({"headers": {"h": {"regex": "("}}})], Request("/", {"h": "x"}), SUBSETS, [])
