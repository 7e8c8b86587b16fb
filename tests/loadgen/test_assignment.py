import argparse
import itertools
from dataclasses import replace

import pytest

from experiments.core import reading, records
from experiments.core.errors import SplitproofError
from loadgen.assignment import chosen_cohorts, resolve
from loadgen.rundir import local_run
from loadgen.schedule import arrivals

DEFAULTS = {
    "experiment": None, "payload": None, "runs": None, "run_id": None, "ca_file": None, "client_cert": None,
    "client_key": None, "host_header": None, "sni": None, "host": None, "headless": False,
    "autostart": False, "worker": False, "num_users": None, "class_picker": False, "closed_loop": False,
    "tags": None, "exclude_tags": None,
}  # fmt: skip


def options(**given):
    return argparse.Namespace(**{**DEFAULTS, **given})


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLITPROOF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SPLITPROOF_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("SPLITPROOF_RUN", raising=False)
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "body.json": '{"instances": [[1]]}', "other.json": '{"instances": [[2]]}', "torn.json": '{"inst',
        "list.json": "[1]", "empty.json": "{}",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    return tmp_path


BODY = ["body.json"]
HOST = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, "no experiment is named and no stack is up"),
        ({"host": HOST}, "no experiment is named and no stack is up"),
        ({"experiment": "nonesuch"}, "nonesuch: no such experiment file"),
        ({"experiment": "digits", "host": HOST}, "no payloads: no stack of digits is up"),
        (
            {"experiment": "digits", "payload": BODY, "headless": True},
            "no stack of digits is up, and there is no --host",
        ),
        ({"experiment": "digits", "payload": ["gone.json"]}, "gone.json: cannot be read: No such file"),
        ({"experiment": "digits", "payload": ["torn.json"]}, "torn.json: no JSON"),
        ({"experiment": "digits", "payload": ["list.json"]}, "list.json: no request body"),
        ({"experiment": "digits", "payload": ["empty.json"]}, "empty.json: no request body"),
        ({"experiment": "digits", "payload": [*BODY, *BODY]}, "a payload 'body' was named before"),
        ({"experiment": "digits", "payload": BODY, "host": "ftp://x"}, "must be a URL"),
        (
            {"experiment": "digits", "payload": BODY, "host": HOST, "headless": True},
            "cannot be reached: Connection ref",
        ),
        (
            {"experiment": "digits", "payload": BODY, "host": HOST, "autostart": True},
            "cannot be reached: Connection ref",
        ),
        ({"experiment": "digits", "payload": BODY, "num_users": 8}, "--users 8: the experiment's load has arrivals"),
        ({"experiment": "ramp", "payload": BODY, "num_users": 8}, "leave --users out, or add --closed-loop"),
        ({"experiment": "digits", "payload": BODY, "num_users": 0}, "--users 0: must be at least 1"),
        ({"experiment": "digits", "payload": BODY, "num_users": -3, "closed_loop": True}, "must be at least 1"),
        ({"experiment": "digits", "payload": BODY, "closed_loop": True}, "--closed-loop: needs a number of users"),
        ({"experiment": "digits", "payload": BODY, "tags": ["vip"]}, "unknown cohort 'vip'; must be one of everyone"),
        ({"experiment": "digits", "payload": BODY, "exclude_tags": ["everyone", "canary-users"]}, "no cohort with a"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_line(given, line):
    with pytest.raises(SplitproofError) as refused:
        resolve(options(**given))
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_with_host_and_payload_alone_the_quickstart_is_assumed_and_the_report_will_say_so():
    assignment = resolve(options(host=HOST, payload=BODY))
    assert assignment.experiment.name == "quickstart"
    assert any("no experiment was named" in note for note in assignment.notes)
    assert any("no stack of quickstart" in note for note in assignment.notes)
    assert any("payload body has no reference" in note for note in assignment.notes)


def test_the_only_stack_gives_experiment_host_and_payloads(put_up):
    put_up("digits", {"seven": {"instances": [[7]]}, "eight": {"instances": [[8]]}})
    assignment = resolve(options())
    assert (assignment.experiment.name, assignment.host, set(assignment.payloads)) == (
        "digits",
        HOST,
        {"seven", "eight"},
    )
    assert assignment.notes == ()


def test_of_several_stacks_one_must_be_named(put_up):
    put_up("digits", {"seven": {"instances": [[7]]}})
    put_up("aa", {"seven": {"instances": [[7]]}})
    with pytest.raises(SplitproofError, match="stacks of aa, digits are up"):
        resolve(options())
    assert resolve(options(experiment="aa")).experiment.name == "aa"


def test_a_body_of_the_stack_keeps_its_id_and_a_strange_one_is_noted(put_up):
    put_up("digits", {"seven": {"instances": [[1]]}})
    assignment = resolve(options(payload=["body.json", "other.json"]))
    assert set(assignment.payloads) == {"seven", "other"}
    assert [note for note in assignment.notes if "no reference" in note] == [
        "payload other has no reference: its answers cannot be attributed by output"
    ]


def test_a_stack_without_references_or_of_another_version_is_noted(place, put_up):
    put_up("digits", {"seven": {"instances": [[7]]}}, references=False)
    changed = place / "digits.yaml"
    changed.write_text(reading.find("digits").read_text().replace("120/s", "119/s"))
    notes = resolve(options(experiment=str(changed))).notes
    assert any("no references" in note for note in notes)
    assert any("another version of the experiment" in note for note in notes)


def test_a_host_that_is_named_goes_before_the_stacks(put_up):
    put_up("digits", {"seven": {"instances": [[7]]}})
    assert resolve(options(host="http://127.0.0.1:2")).host == "http://127.0.0.1:2"


def test_a_conductors_run_names_the_experiment(place, monkeypatch):
    experiment = reading.load("aa").experiment
    run = records.RunDir(place / "run")
    run.path.mkdir()
    info = records.RunInfo(1, "run", reading.to_mapping(experiment), reading.experiment_hash(experiment), 0, "")
    records.write_json(run.info, info)
    monkeypatch.setenv("SPLITPROOF_RUN", str(run.path))
    assignment = resolve(options(experiment="digits", payload=BODY, host=HOST))
    assert (assignment.experiment, assignment.experiment_hash) == (experiment, info.experiment_hash)
    monkeypatch.setenv("SPLITPROOF_RUN", str(place / "nowhere"))
    with pytest.raises(SplitproofError, match="is no run directory"):
        resolve(options(payload=BODY, host=HOST))


def test_experiments_of_one_hash_have_one_schedule():
    found = resolve(options(experiment="digits", payload=BODY))
    cohorts = dict(reversed(found.experiment.cohorts.items()))
    turned = replace(found, experiment=found.experiment.model_copy(update={"cohorts": cohorts}))
    assert list(turned.experiment.cohorts) != list(found.experiment.cohorts)
    assert turned.experiment_hash == found.experiment_hash
    drawn, other = (list(itertools.islice(arrivals(each.schedule), 200)) for each in (found, turned))
    assert drawn == other
    assert len({arrival.cohort for arrival in drawn}) == 2


def test_the_hash_of_payloads_tells_bodies_and_names_apart():
    def hashed(*payload):
        return resolve(options(experiment="digits", host=HOST, payload=list(payload))).payloads_hash

    assert hashed("body.json", "other.json") == hashed("other.json", "body.json")
    assert len({hashed("body.json"), hashed("other.json"), hashed("body.json", "other.json")}) == 3


@pytest.mark.parametrize(
    ("tags", "excluded", "left"),
    [
        ((), (), ("everyone", "canary-users")),
        (("canary-users",), (), ("canary-users",)),
        ((), ("canary-users",), ("everyone",)),
    ],
)
def test_tags_leave_cohorts(tags, excluded, left):
    assert chosen_cohorts(reading.load("digits").experiment, tags, excluded) == left


@pytest.mark.parametrize(
    ("given", "is_open"),
    [({}, True), ({"num_users": 3, "closed_loop": True}, False), ({"class_picker": True}, False), ({"tags": []}, True)],
)
def test_the_loop_is_open_unless_users_are_asked_for(given, is_open):
    assert resolve(options(experiment="digits", payload=BODY, host=HOST, **given)).open_loop is is_open


def test_a_worker_elsewhere_records_into_a_directory_of_the_same_name(place):
    assignment = resolve(options(experiment="digits", payload=BODY, host=HOST))
    (place / "shared").mkdir()
    assert local_run(place / "shared", assignment) == place / "shared"
    here = local_run(place / "elsewhere" / "the-run", assignment)
    assert here == place / "runs" / "digits" / "the-run"
    assert here.is_dir()
