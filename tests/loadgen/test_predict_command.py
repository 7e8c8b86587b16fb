import pytest

from experiments.core import command
from experiments.core.records import ArmReference, PayloadReference
from loadgen.__main__ import loadgen

# What answering_server.py answers as arm `one` and as arm `two`.
ONE = [0.1] * 10
TWO = [(index + 1) / 55 for index in range(10)]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLITPROOF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "body.json").write_text('{"instances": [[1]]}')
    return tmp_path


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = command.run(loadgen, "loadgen", ["predict", *arguments])
        return code, *capsys.readouterr()

    return call


def known(one, two):
    return {"seven": PayloadReference({"small": ArmReference(one, 0.0), "large": ArmReference(two, 0.0)})}


def test_it_prints_status_latency_top_outputs_and_the_arm_that_answered(server, put_up, run):
    started = server()
    put_up("digits", {"seven": {"instances": [[7]]}}, references=known(ONE, TWO), url=started.url)
    code, first, _ = run("seven")
    _, second, _ = run("seven", "--header", "user-group=canary")
    lines = first.splitlines()
    assert code == 0
    assert lines[0] == "status   200"
    assert lines[1].startswith("latency  ")
    assert lines[1].endswith("(server 7 ms)")
    assert lines[2] == "route    split/one"
    assert lines[3].startswith("arm      small (distance to small 0, large ")
    assert lines[4:] == [f"  0.1000  class {index}" for index in range(10)]
    assert "arm      large" in second
    assert second.splitlines()[4] == "  0.1818  class 9"
    assert [seen.group for seen in started.requests()] == ["-", "canary"]


def test_a_thousand_outputs_have_the_names_of_imagenet(server, run):
    code, out, _ = run("body.json", "--host", server(width=1000).url)
    assert code == 0
    assert out.splitlines()[4:6] == ["  0.0010  tench", "  0.0010  goldfish"]


@pytest.mark.parametrize(
    ("references", "why"),
    [
        (False, "no references; they are made by"),
        ({}, "no reference for this payload"),
        (known(TWO, TWO[::-1]), "near no reference"),
        (known(ONE, ONE), "near two references"),
    ],
)
def test_it_says_why_it_cannot_tell_the_arm(server, put_up, run, references, why):
    put_up("digits", {"seven": {"instances": [[7]]}}, references=references)
    code, out, _ = run("seven", "--host", server().url)
    assert code == 0
    assert f"arm      cannot tell: {why}" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"failure_rate": 1.0}, ["status   503 (http_5xx)", 'answer   {"error": "no"}']),
        ({"behaviour": "garbage"}, ["status   200", "arm      cannot tell: the answer is no prediction"]),
        ({"delay": 2.0}, ["status   none (timeout)", "arm      cannot tell: the answer is no prediction"]),
    ],
)
def test_what_is_no_prediction_ends_in_2(server, run, options, said):
    code, out, _ = run("body.json", "--host", server(**options).url, "--timeout", "0.5")
    assert code == 2
    assert set(said) <= set(out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["body.json"], "no experiment is named and no stack is up"),
        (["gone.json", "--experiment", "digits", "--host", "HOST"], "no payload of the stack (there are: none, for no"),
        (["body.json", "--experiment", "digits"], "no stack of digits is up, and there is no --host"),
        (["body.json", "--host", "http://127.0.0.1:1"], "cannot be reached: Connection refused"),
        (["body.json", "--host", "HOST", "--header", "x"], "must be NAME=VALUE"),
        (["body.json", "--host", "HOST", "--header", "a b=c"], "cannot be sent over HTTP"),
        (["torn.json", "--host", "HOST"], "torn.json: no JSON"),
    ],
)
def test_what_cannot_be_asked_is_refused(place, server, run, arguments, line):
    (place / "torn.json").write_text("{")
    url = server().url if "HOST" in arguments else ""
    code, out, err = run(*(url if word == "HOST" else word for word in arguments))
    assert (code, out) == (2, "")
    assert line in err


def test_an_image_for_a_model_that_takes_none_is_refused(place, server, put_up, run):
    models = {"small": {"preprocessing": None}}
    put_up("digits", {"seven": {"instances": [[7]]}}, url=server().url, models=models)
    (place / "cat.png").write_bytes(b"no image")
    code, _, err = run("cat.png")
    assert code == 2
    assert "takes no images" in err


def test_an_unreadable_image_is_refused_with_the_line_of_deploy(place, server, run):
    (place / "cat.png").write_bytes(b"no image")
    code, _, err = run("cat.png", "--experiment", "quickstart", "--host", server().url)
    assert code == 2
    assert "cat.png" in err
    assert len(err.strip().splitlines()) == 1
