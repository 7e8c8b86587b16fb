import itertools
import json
import re
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from experiments.core import profile, reading
from experiments.core.errors import ExperimentError

GOOD = """\
model: image_classifier
arms:
  resnet50:  {keras: ResNet50}
  resnet101: {keras: ResNet101}
payloads: [images/*.jpg]
cohorts:
  everyone:     {share: 80%}
  canary-users: {share: 20%, headers: {user-group: canary}}
phases:
  - {name: dark-launch, route: {resnet50: 100, resnet101: 0}}
  - {name: split,       route: {resnet50: 70,  resnet101: 30}, for: 60s}
  - name: focused
    route: [{when: {user-group: canary}, to: resnet101}, {to: resnet50}]
load: {arrivals: 8/s, warmup: 5s}
claims:
  split:   {tolerance: 5pp}
  errors:  {max_increase: 1pp}
  latency: {p50: +60%, p95: {margin: +80%, required: false}}
"""


@pytest.fixture
def write(tmp_path):
    def write_text(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write_text


def problems_of(path: str) -> list[str]:
    with pytest.raises(ExperimentError) as refused:
        reading.load(path)
    return [line.removeprefix(f"{path}:") for line in str(refused.value).splitlines()]


def test_the_design_example_reads_in_base_units(write):
    experiment = reading.load(write(GOOD)).experiment
    assert experiment.name == "mine"
    assert experiment.baseline == "resnet50"
    assert experiment.canaries == ("resnet101",)
    assert experiment.cohorts["everyone"].share == 0.8
    assert experiment.phases[1].duration == 60
    assert experiment.load.arrivals == 8
    assert experiment.claims.split.tolerance == 0.05
    assert experiment.claims.latency["p95"].margin == pytest.approx(0.8)
    assert not experiment.claims.latency["p95"].required


def test_a_run_file_reads_back_to_an_equal_experiment(write):
    experiment = reading.load(write(GOOD)).experiment
    mapping = json.loads(json.dumps(reading.to_mapping(experiment)))
    again = reading.from_mapping(mapping, "run.json")
    assert again == experiment
    assert reading.experiment_hash(again) == reading.experiment_hash(experiment)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("{arrivals: 5/s..50/s, for: 60s, warmup: 2s}", "{steps: [{arrivals: 5/s..50/s, for: 60s}], warmup: 2s}"),
        ("[{arrivals: 5/s, for: 30s}, {arrivals: 120/min}]", "{steps: [{arrivals: 5/s, for: 30s}, {arrivals: 2/s}]}"),
        ("{}", "{arrivals: null}"),
    ],
)
def test_short_forms_of_a_load_mean_the_long_ones(write, short, long):
    loads = [
        reading.load(write(re.sub("(?m)^load: .*$", lambda _, text=text: f"load: {text}", GOOD))).experiment.load
        for text in (short, long)
    ]
    assert loads[0] == loads[1]


def test_phases_expect_the_requests_of_their_part_of_a_ramp(write):
    text = re.sub("(?m)^load: .*$", "load: {arrivals: 0/s..60/s, for: 60s, warmup: 10s}", GOOD)
    experiment = reading.load(write(text)).experiment
    seconds = [phase.duration for phase in experiment.phases]
    edges = [sum(seconds[:index]) for index in range(len(seconds) + 1)]
    # The rate is t for a minute and 60 after: its integral is t²/2, then straight on.
    until = [edge**2 / 2 if edge <= 60 else 1800 + 60 * (edge - 60) for edge in edges]
    expected = [b - a for a, b in itertools.pairwise(until)]
    assert [profile.expected_requests(experiment, phase) for phase in experiment.phases] == pytest.approx(expected)
    assert profile.mean_rate(experiment) == pytest.approx(sum(expected) / sum(seconds))


def test_any_change_of_meaning_changes_the_hash(write):
    before = reading.experiment_hash(reading.load(write(GOOD)).experiment)
    after = reading.experiment_hash(reading.load(write(GOOD.replace("30}", "31}"))).experiment)
    assert before != after


def test_the_hash_knows_which_arm_is_the_baseline(write):
    experiment = reading.load(write(GOOD)).experiment
    mapping = reading.to_mapping(experiment)
    mapping["arms"] = dict(reversed(mapping["arms"].items()))
    turned = reading.from_mapping(mapping, "turned")
    assert list(turned.arms) == list(experiment.arms)[::-1]
    assert reading.experiment_hash(turned) != reading.experiment_hash(experiment)


def test_every_mistake_is_reported_at_once_with_its_line(write):
    text = (
        GOOD.replace("keras: ResNet50", "keras: ResNet50, wieghts: random")
        .replace("share: 80%", "share: 80")
        .replace("resnet50: 100, resnet101: 0", "resnet50: 0, resnet101: 0")
        .replace("resnet101: 30", "resnet102: 30")
        .replace("for: 60s", "for: 60")
        .replace("arrivals: 8/s", "arivals: 8/s")
        .replace("p50: +60%", "p50: 60%")
    )
    found = problems_of(write(text))
    assert [line.split(":")[0] for line in found] == ["3", "7", "10", "11", "11", "14", "18"]
    joined = "\n".join(found)
    assert "unknown key; did you mean 'weights'?" in joined
    assert "must be a percentage such as 80%" in joined
    assert "weights sum to 0" in joined
    assert "unknown arm 'resnet102'; must be one of resnet50, resnet101" in joined
    assert "must be a duration such as 60s" in joined
    assert "did you mean 'arrivals'?" in joined
    assert "must be an increase such as +20%" in joined


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("share: 80%", "share: 90%", 6, "shares sum to 110%, must be 100%"),
        ("name: split", "name: dark-launch", 11, "phase names must differ"),
        ("{keras: ResNet50}", "{}", 3, "exactly one of keras, saved_model, digits"),
        ("{keras: ResNet50}", "{keras: A, saved_model: b}", 3, "it names 2"),
        ("{to: resnet50}]", "{to: resnet50}, {to: resnet101}]", 13, "the rules after it never match"),
        ("name: dark-launch,", "name: dark-launch, arms: [resnet101],", 10, "not in this phase's arms"),
        ("payloads: [images/*.jpg]", "", 1, "payloads: is missing"),
        ("arrivals: 8/s", "arrivals: 0/s", 14, "greater than 0"),
        ("resnet101: 0}", "resnet101: -5}", 10, "greater than or equal to 0"),
        ("name: dark-launch", "name: Dark Launch", 10, "should match pattern"),
        ("arrivals: 8/s", "arrivals: 900000/s", 14, "less than or equal to 100000"),
        ("arrivals: 8/s", "arrivals: 8/s..900000/s, for: 9s", 14, "must be at most 100000/s"),
        ("arrivals: 8/s", "arrivals: 8/s..9, for: 9s", 14, "a ramp such as 5/s..50/s"),
        ("arrivals: 8/s", "arrivals: 8/s..0/s, for: 9s", 14, "the load would end at rate 0"),
        ("arrivals: 8/s", "steps: [{arrivals: 1/s}, {arrivals: 2/s}]", 14, "only the last step may have none"),
        ("arrivals: 8/s", "arrivals: 8/s, steps: [{arrivals: 2/s}]", 14, "give one of the two"),
        ("share: 80%", "share: 80%, connections: pool:0", 7, "should match pattern"),
        ("share: 80%", "share: 80%, headers: {X-Request-Id: a}", 7, "X-Request-Id: every request has one of its own"),
        ("share: 80%", "share: 80%, headers: {transfer-encoding: chunked}", 7, "transfer-encoding: every request has"),
    ],
)
def test_a_broken_rule_is_named_with_its_line(write, old, new, line, says):
    found = problems_of(write(GOOD.replace(old, new)))
    assert len(found) == 1
    assert found[0].startswith(f"{line}:")
    assert says in found[0]


def test_a_share_above_100_percent_is_two_mistakes(write):
    found = problems_of(write(GOOD.replace("share: 80%", "share: 180%")))
    assert [line.split(":")[0] for line in found] == ["6", "7"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1, 2", ":1: not readable as YAML"),
        ("a: 1\na: 2\n", 'found duplicate key "a"'),
        ("", "is empty; must have arms"),
        ("- 1\n- 2\n", "is a mapping with arms"),
        ("\x00", "not readable as YAML"),
    ],
)
def test_what_is_no_experiment_gets_one_line(write, text, says):
    path = write(text)
    with pytest.raises(ExperimentError) as refused:
        reading.load(path)
    assert says in str(refused.value)
    assert str(refused.value).count("\n") == 0


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ExperimentError, match="did you mean 'quickstart'"):
        reading.load("quickstrat")


def test_values_can_be_changed_for_one_run(write):
    experiment = reading.load(write(GOOD), ["load.arrivals=5/s", "phases.1.for=20s"]).experiment
    assert experiment.load.arrivals == 5
    assert experiment.phases[1].duration == 20


@pytest.mark.parametrize("change", ["load.arrivals", "phases.9.for=2s", "=3", "model.x.y=2"])
def test_a_change_without_a_place_is_refused(write, change):
    with pytest.raises(ExperimentError, match="--set"):
        reading.load(write(GOOD), [change])


@pytest.mark.parametrize("path", reading.catalogue(), ids=lambda path: path.stem)
def test_each_shipped_experiment_fits_the_committed_schema(path):
    schema = json.loads((reading.CATALOGUE / "experiment.schema.json").read_text(encoding="utf-8"))
    assert schema == reading.json_schema()
    jsonschema.validate(YAML(typ="safe").load(path), schema)
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=experiment.schema.json"
    assert reading.load(path.stem).experiment.name == path.stem


def test_the_schema_refuses_what_reading_refuses(write):
    bad = YAML(typ="safe").load(Path(write(GOOD.replace("share: 80%", "share: 80"))))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, reading.json_schema())


def test_aliases_that_unfold_without_end_are_refused_before_they_are_walked(write):
    levels = "".join(f"x{n + 1}: &x{n + 1} [{', '.join([f'*x{n}'] * 9)}]\n" for n in range(12))
    assert problems_of(write(f"x0: &x0 [1]\n{levels}arms: *x12\n")) == [
        "1: unfolds to more than 100,000 values, an experiment has hundreds; drop the aliases."
    ]


def test_a_folder_and_text_of_another_encoding_are_named_as_such(tmp_path):
    with pytest.raises(ExperimentError, match="is a folder; must be an experiment file"):
        reading.load(str(tmp_path))
    other = tmp_path / "other.yaml"
    other.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(ExperimentError, match=r"other\.yaml:1: is not UTF-8 text .*; save it as UTF-8\."):
        reading.load(str(other))


def test_a_mistake_inside_the_only_phase_is_not_called_a_missing_phase(write):
    text = GOOD[: GOOD.index("  - {name: split")] + "load: {arrivals: 8/s}\n"
    assert [line.partition(" ")[2] for line in problems_of(write(text.replace("name: dark-launch", "name: Dark")))] == [
        "phases.0.name: 'Dark': String should match pattern '^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$'; mend it."
    ]


def test_a_changed_value_that_the_file_lacks_is_refused_like_any_other(write):
    with pytest.raises(ExperimentError, match=r"1: name: '\.\./x': String should match"):
        reading.load(write(GOOD), ["name=../x"])


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(", "'(': is no regular expression: missing ), unterminated subpattern at position 0; mend it."),
        ("(?=a)b", "'(?=a)b': '(?=' is not known to RE2, Envoy's regular expressions; do without."),
        (r"(a)\1", r"""'(a)\\1': '\\1' is not known to RE2, Envoy's regular expressions; do without."""),
    ],
)
def test_a_regex_that_envoy_would_refuse_is_refused_with_its_line(write, pattern, says):
    text = GOOD.replace("{user-group: canary}, to:", "{user-group: {regex: '" + pattern + "'}}, to:")
    assert problems_of(write(text)) == [f"13: phases.2.route.0.when.user-group.regex: {says}"]


def test_a_duration_beyond_all_numbers_is_refused(write):
    assert "must be a duration" in problems_of(write(GOOD.replace("for: 60s", f"for: {'9' * 400}s")))[0]


def test_a_rate_above_the_brake_is_refused_with_its_line(write):
    with pytest.raises(ExperimentError, match=r"mine.yaml:\d+: .*8/s is above max_rate 5/s; lower the one"):
        reading.load(write(GOOD + "max_rate: 5/s\n"))
    ramp = re.sub("(?m)^load: .*$", "load: [{arrivals: 1/s..20/s, for: 30s}]", GOOD)
    with pytest.raises(ExperimentError, match=r"1/s..20/s is above max_rate 10/s"):
        reading.load(write(ramp + "max_rate: 10/s\n"))
    assert reading.load(write(GOOD + "max_rate: 480/min\n")).experiment.max_rate == 8.0
