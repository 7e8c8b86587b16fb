"""Pods are real HTTP servers that answer as they are told: what a real model would do by accident."""

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deploy import references
from deploy.asking import ask
from experiments.core.errors import StackError
from experiments.core.records import ArmReference, PayloadReference, References
from experiments.core.spec import Experiment
from experiments.core.stack import Pod, StackInfo

A, B = [0.9, 0.1], [0.2, 0.8]
BODIES = {"p0": b'{"instances": [0]}', "p1": b'{"instances": [1]}'}


class TalkingPod(ThreadingHTTPServer):
    """Answers each prediction with the next of its answers: a vector, or a status."""

    daemon_threads = True

    def __init__(self, arm, answers):
        self.answers = itertools.cycle(answers)
        self.asked = 0
        super().__init__(("127.0.0.1", 0), TalkingHandler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        self.pod = Pod(f"m-{arm}-0", arm, f"http://127.0.0.1:{self.server_port}", 1)


class TalkingHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        answer = next(self.server.answers)
        status = answer if isinstance(answer, int) else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps({"error": "no"} if status != 200 else {"predictions": [answer]}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def pods():
    made = []

    def make(**answers):
        made.extend(TalkingPod(arm, vectors) for arm, vectors in answers.items())
        return made

    yield make
    for each in made:
        each.shutdown()
        each.server_close()


def known(a=A, b=B):
    arms = {"a": ArmReference(a, 0.0), "b": ArmReference(b, 0.0)}
    return References(1, "export", dict.fromkeys(BODIES, PayloadReference(arms)))


def check(servers, refs=None, **experiment):
    info = StackInfo(1, {"model": "m", **experiment}, "", "", "embedded", "", "", [each.pod for each in servers], 1, 0)
    return references.check(info, refs or known(), BODIES)


def near(vector, shift):
    return [vector[0] + shift, vector[1] - shift]


def test_each_pod_is_asked_several_times_and_its_spread_is_the_noise(pods):
    # ‖a−b‖₁/(‖a‖₁+‖b‖₁) of a shift of 1e-6 both ways is 2e-6 / 2.
    servers = pods(a=[A, near(A, 1e-6), A, A, near(A, -1e-6), A], b=[B])
    checked = check(servers)
    assert checked.problems == []
    assert [each.asked for each in servers] == [6, 6]
    noises = {payload.arms["a"].noise for payload in checked.payloads.values()}
    assert sorted(noises) == [pytest.approx(1e-6, rel=1e-3)] * len(noises)
    for payload in checked.payloads.values():
        assert [direct.matches for direct in payload.arms["b"].direct] == [True]
        assert payload.arms["b"].noise == 0
    assert checked.checked_us is not None


def test_another_arms_model_behind_a_name_is_said(pods):
    checked = check(pods(a=[A], b=[A]))
    assert checked.problems == [
        "pod m-b-0 is deployed as 'b', but serves 'a': so it answered 2 of 2 payloads; point its model path at 'b'."
    ]
    assert not any(direct.matches for payload in checked.payloads.values() for direct in payload.arms["b"].direct)
    # What the stranger answered is no noise of the arm: it would widen the match radius over both arms.
    assert all(payload.arms["b"].noise == 0 for payload in checked.payloads.values())


def test_a_model_of_nobody_is_said(pods):
    checked = check(pods(a=[A], b=[[0.5, 0.5]]))
    (problem,) = checked.problems
    assert problem.startswith("pod m-b-0 is deployed as 'b', but its answers to 2 of 2 payloads are no model's of ")


def test_a_pod_that_fails_now_and_then_is_asked_again(pods):
    checked = check(pods(a=[A], b=[503, B, 503, 503, B]))
    assert checked.problems == []


def test_a_pod_that_never_answers_is_said_with_its_last_words(pods):
    checked = check(pods(a=[A], b=[503]))
    (problem,) = checked.problems
    assert problem.startswith("pod m-b-0 is deployed as 'b', but did not answer 2 payloads; of p0: status 503: ")
    assert problem.endswith('{"error": "no"}; mend the pod.')


def test_payloads_that_cannot_tell_the_arms_apart_are_said_with_the_figures(pods):
    checked = check(pods(a=[A], b=[A]), known(b=A))
    assert len(checked.problems) == 1
    assert checked.problems[0].startswith("payload p0 cannot tell the arms apart: their outputs are 0 apart")
    assert check(pods(a=[A], b=[A]), known(b=A), attribution="route-header").problems == []


def test_noise_that_reaches_from_arm_to_arm_is_said(pods):
    # The arms are 0.05 apart, the noise of `a` is 0.005: ten times that is all of the distance.
    checked = check(pods(a=[A, A, near(A, 0.005)], b=[near(A, 0.05)]), known(b=near(A, 0.05)))
    (problem,) = checked.problems
    assert problem.startswith("payload p0 cannot tell the arms apart: their outputs are 0.05 apart, a match needs 0.05")
    assert problem.endswith("(and 1 more payloads)")


def experiment(**more):
    arms = {"a": {"keras": "A"}, "b": {"keras": "B"}}
    phases = [{"name": "p", "route": "service"}]
    return Experiment.model_validate({"name": "e", "arms": arms, "payloads": ["x"], "phases": phases, **more})


def test_equal_artefacts_are_refused_before_anything_is_started():
    references.refuse_indistinguishable(experiment(), known())
    with pytest.raises(StackError, match=r"^e: payload p0 cannot tell the arms apart: .* \(and 1 more payloads\)$"):
        references.refuse_indistinguishable(experiment(), known(b=A))
    by_header = experiment(attribution="route-header")
    references.refuse_indistinguishable(by_header, known(b=A))
    (note,) = references.notes(by_header, known(b=A))
    assert note.startswith("attribution is by the route header alone, as the experiment says: 2 of 2 payloads have ")
    assert references.notes(experiment(), known()) == []


def test_nobody_there_is_an_answer_too():
    assert ask("http://127.0.0.1:1/x", timeout_s=1) is None


def learn(servers):
    experiment = {"model": "m", "arms": {"a": {}, "b": {}}}
    info = StackInfo(1, experiment, "", "", "kubernetes", "", "", [each.pod for each in servers], 1, 0)
    return references.learn(info, BODIES)


def test_without_an_artefact_an_arm_is_known_by_the_answer_in_the_middle_of_its_own(pods):
    found = learn(pods(a=[A, near(A, 3e-4), near(A, -2e-4)], b=[B]))
    assert (found.source, found.problems) == ("direct", [])
    assert {tuple(payload.arms["a"].output) for payload in found.payloads.values()} == {tuple(A)}
    for payload in found.payloads.values():
        assert payload.arms["a"].noise == pytest.approx(3e-4, rel=1e-3)
        assert payload.arms["b"].noise == 0


def test_pods_of_one_arm_that_disagree_are_told_and_do_not_widen_it(pods):
    stranger, twins = TalkingPod("a", [B]), pods(a=[A], b=[B])
    twin = TalkingPod("a", [A])
    try:
        found = learn([stranger, *twins, twin])
    finally:
        for each in (stranger, twin):
            each.shutdown()
            each.server_close()
    assert all(payload.arms["a"].output == A for payload in found.payloads.values())
    (told,) = found.problems
    assert "is deployed as 'a', but serves 'b'" in told


def test_arms_that_answer_alike_cannot_be_told_apart_whoever_says_what_they_are(pods):
    found = learn(pods(a=[A], b=[A]))
    assert "cannot tell the arms apart" in found.problems[0]


def test_an_arm_without_a_pod_that_answers_is_refused_with_the_last_reason(pods):
    with pytest.raises(StackError, match=r"arm 'b': no pod of it answers payload p0 \(status 500: .*nothing tells its"):
        learn(pods(a=[A], b=[500]))
    with pytest.raises(StackError, match=r"arm 'b': no pod of it answers payload p0 \(it has no ready pod\)"):
        learn(pods(a=[A])[:1])
