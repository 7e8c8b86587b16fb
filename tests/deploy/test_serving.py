"""The real server with a real SavedModel, over real sockets; cases and texts are those of TensorFlow Serving's tests.

S: `model_servers/http_rest_api_handler_test.cc` and `util/json_tensor_test.cc` in its repository.
"""

import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.core.home import CHECKOUT

M = "/v1/models/m"


class Server:
    """A serving process, by its port."""

    def __init__(self, folder, *options):
        self.errors = folder / f"errors-{time.monotonic_ns()}"
        command = [
            sys.executable, "-m", "deploy.embedded.serving", "--model-name", "m", "--rest-port", "0",
            "--model-base-path", str(folder / "several"), *options,
        ]  # fmt: skip
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(command, stderr=errors, cwd=CHECKOUT)

    @property
    def port(self):
        end = time.monotonic() + 90
        while time.monotonic() < end:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", self.errors.read_text())
            if found:
                return int(found[1])
            assert self.process.poll() is None, self.errors.read_text()
            time.sleep(0.05)
        raise TimeoutError

    def ask(self, path, body=None, method=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        if isinstance(body, dict):
            body = json.dumps(body)
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def predict(self, body, path=f"{M}:predict"):
        status, content = self.ask(path, body)
        assert status == 200, content
        return json.loads(content)

    def refusal(self, body, path=f"{M}:predict", method="POST"):
        status, content = self.ask(path, body, method)
        assert set(json.loads(content)) == {"error"}
        return status, json.loads(content)["error"]


@pytest.fixture(scope="module")
def servers(saved_models):
    """A healthy one, and one with both faults; started together, since each imports TensorFlow."""
    made = [Server(saved_models), Server(saved_models, "--slowdown", "3", "--failure-rate", "0.3", "--seed", "7")]
    yield made
    for server in made:
        server.process.send_signal(signal.SIGTERM)
    assert [end_of(server.process) for server in made] == [0, 0]  # it ends in order


@pytest.fixture
def server(servers):
    return servers[0]


@pytest.fixture
def faulty(servers):
    return servers[1]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (f"{M}:predict", {"instances": [[1.0, 2.0], [3.0, 4.0]]}, {"predictions": [[2.5, 3.0], [3.5, 4.0]]}),
        (f"{M}/versions/123:predict", {"instances": [1.0, 2.0]}, {"predictions": [2.5, 3.0]}),
        (f"{M}:predict", {"signature_name": "serving_default", "instances": [3, 4]}, {"predictions": [3.5, 4.0]}),
        (f"{M}:predict", {"inputs": [3.0, 4.0]}, {"outputs": [3.5, 4.0]}),
        (f"{M}:predict", {"inputs": {"x": 4.0}}, {"outputs": 4.0}),
        ("/V1/Models/m:PREDICT", {"inputs": [3.0]}, {"outputs": [3.5]}),
        ("/v1/models/%6d:predict", {"inputs": [3.0]}, {"outputs": [3.5]}),
    ],
)
def test_predictions_in_rows_and_columns(server, path, body, expected):
    assert server.predict(body, path) == expected


@pytest.mark.parametrize(
    ("signature", "given", "expected"),
    [
        ("echo", {"instances": ["hello", {"b64": "d29ybGQ="}]}, {"predictions": ["hello", "world"]}),
        ("echo_bytes", {"instances": [{"b64": "/wA="}]}, {"predictions": [{"b64": "/wA="}]}),
        ("negate", {"instances": [True, False]}, {"predictions": [False, True]}),
        ("none", {"instances": [1.0]}, {"predictions": []}),
        ("total", {"inputs": [2**62, 1]}, {"outputs": 2**62 + 1}),
        (
            "named",
            {"instances": [{"a": 1, "b": [2, 3]}, {"b": [4, 5], "a": 0.5}]},
            {"predictions": [{"sum": 6.0, "twice": [4, 6]}, {"sum": 9.5, "twice": [8, 10]}]},
        ),
        (
            "named",
            {"inputs": {"a": [1], "b": [[2, 3]]}},
            {"outputs": {"sum": [6.0], "twice": [[4, 6]]}},
        ),
    ],
)
def test_other_signatures(server, signature, given, expected):
    assert server.predict({"signature_name": signature, **given}) == expected


def test_numbers_that_are_no_json(server):
    status, content = server.ask(f"{M}:predict", b'{"instances": [NaN, Infinity, 2, -Infinity]}')
    assert status == 200
    assert re.sub(rb"\s", b"", content) == b'{"predictions":[NaN,Infinity,3.0,-Infinity]}'


def test_a_double_that_is_too_large_or_too_small_for_a_float(server):
    status, content = server.ask(f"{M}:predict", b'{"instances": [1.7976931348623157e308, 2.2250738585072014e-308]}')
    assert status == 200
    assert re.sub(rb"\s", b"", content) == b'{"predictions":[Infinity,2.0]}'


def test_answers_round_trip_in_float32(server):
    (value,) = server.predict({"instances": [0.2]})["predictions"]
    assert value == 2.1  # the shortest digits of float32(0.2) * 0.5 + 2


def test_deep_nesting_beside_the_instances_is_read(server):
    """S: parsing is iterative; 500,000 levels are no reason to crash."""
    body = b'{"instances": [1], "nested": ' + b"[" * 500_000 + b"]" * 500_000 + b"}"
    assert server.ask(f"{M}:predict", body)[0] == 200


def test_gzip(server):
    body = gzip.compress(b'{"instances": [2]}')
    assert server.ask(f"{M}:predict", body, headers={"Content-Encoding": "gzip"})[0] == 200
    status, content = server.ask(f"{M}:predict", b"no gzip", headers={"Content-Encoding": "gzip"})
    assert status == 400
    assert b"document is empty" in content


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("GET", "/v1/foo", "Malformed request: GET /v1/foo"),
        ("GET", "/v1/models", "Missing model name in request."),
        ("GET", f"{M}:predict", f"Malformed request: GET {M}:predict"),
        ("POST", "/v1/models/foo/version/50:regress", "Malformed request"),
        ("POST", "/v1/models/foo/versions/HELLO:regress", "Malformed request"),
        ("POST", f"{M}:predict?verbose=1", "Malformed request"),
        ("PUT", M, f"Malformed request: PUT {M}"),
        ("DELETE", f"{M}/metadata", "Malformed request"),
    ],
)
def test_paths_are_matched_whole(server, method, path, text):
    status, error = server.refusal("{}" if method == "POST" else None, path, method)
    assert (status, text in error) == (400, True)


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("POST", "/v1/models/foo:predict", 404, "Servable not found for request: Latest(foo)"),
        ("POST", f"{M}/versions/50:predict", 404, "Servable not found for request: Specific(m, 50)"),
        ("POST", f"{M}/labels/stable:predict", 400, "Unrecognized servable version label: stable"),
        ("GET", "/v1/models/foo", 404, "Could not find any versions of model foo"),
        ("GET", f"{M}/versions/99", 404, "Could not find version 99 of model m"),
        ("GET", f"{M}?x=1", 404, "Could not find any versions of model m?x=1"),
        ("GET", "/v1/models/foo/metadata", 404, "Servable not found for request: Latest(foo)"),
        ("POST", f"{M}:classify", 400, "Expected classification signature"),
        ("POST", f"{M}:regress", 400, "Expected regression signature"),
    ],
)
def test_what_is_not_there(server, method, path, status, text):
    body = '{"instances": [1]}' if method == "POST" else None
    found, error = server.refusal(body, path, method)
    assert (found, text in error) == (status, True)


def test_json_is_read_before_the_model_is_looked_up(server):
    assert server.refusal("{", "/v1/models/foo:predict")[0] == 400


def test_a_version_beyond_64_bits_is_400_without_a_body(server):
    assert server.ask(f"{M}/versions/18446744073709551615:predict", b"{}") == (400, b"")


def test_outside_of_the_api_there_is_html(server):
    status, content = server.ask("/")
    assert (status, b"<HTML>" in content) == (404, True)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "JSON Parse error: The document is empty"),
        ('{"instances": = [1, 2]}', "JSON Parse error: Invalid value. at offset: 14"),
        ('{"instances": [1, 2}', "JSON Parse error: Missing a comma or ] after an array element."),
        ("[1]", "Is not object"),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"instances": [], "inputs": []}', "Not formatted correctly expecting only one of 'inputs' or 'instances'"),
        ('{"instances": []}', "No values in 'instances' array"),
        ('{"instances": 3}', "Excepting 'instances' to be an list/array"),
        ('{"signature_name": 100, "instances": [1]}', "'signature_name' key must be a string value."),
        ('{"signature_name": "s", "instances": [1]}', 'Serving signature name: "s" not found in signature def'),
        (
            '{"instances": ["x", "y"]}',
            (
                "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"x\" "
                "Type: String is not of expected type: float"
            ),
        ),
        ('{"instances": [1, true]}', "element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: true"),
        ('{"instances": [1, null]}', "Type: Null is not of expected type: float"),
        ('{"instances": [[1, 2], [3]]}', "Expecting tensor size: 2 but got: 1"),
        ('{"instances": [[[1], [2]], [[1, 2]]]}', "Expecting shape [2,1] but got: [1,2]"),
        ('{"instances": [[1, [2]]]}', "Encountered list at unexpected level: 1 expected < 1"),
        ('{"instances": [{"z": 1}]}', "JSON object: does not have named input: z"),
        ('{"inputs": {"z": 1}}', "Missing named input: x in 'inputs' object."),
        ('{"signature_name": "named", "instances": [1]}', "expecting list of objects as multiple input tensors"),
        ('{"signature_name": "named", "inputs": [1]}', "expecting an object as multiple input tensors"),
        ('{"signature_name": "named", "instances": [{"a": 1}]}', "keys must be equal to: a,b"),
        ('{"signature_name": "named", "instances": [{"a": 1, "b": [1.5, 2]}]}', "is not of expected type: int32"),
        ('{"signature_name": "echo", "instances": [1]}', "Type: Number is not of expected type: string"),
        ('{"signature_name": "echo", "instances": [{"b64": "?"}]}', "Unable to base64 decode"),
        ('{"signature_name": "total", "instances": [1]}', "has no shape information"),
        ('{"signature_name": "product", "instances": [[1, 2, 3]]}', "In[0]: [1,3], In[1]: [2,1]"),
    ],
)
def test_wrong_requests_get_servings_words(server, body, text):
    status, error = server.refusal(body)
    assert (status, text in error) == (400, True), error


def test_status(server):
    state = {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in (M, f"{M}/versions/123", f"{M}/labels/any"):
        assert json.loads(server.ask(path)[1]) == {"model_version_status": [state]}


def test_metadata(server):
    """S: the form of saved_model_half_plus_two_2_versions_metadata.json."""
    status, content = server.ask(f"{M}/metadata")
    described = json.loads(content)
    assert (status, described["model_spec"]) == (200, {"name": "m", "signature_name": "", "version": "123"})
    named = described["metadata"]["signature_def"]["signature_def"]["named"]
    shape = {"dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}], "unknown_rank": False}
    assert named["inputs"]["b"]["dtype"] == "DT_INT32"
    assert named["inputs"]["b"]["tensor_shape"] == shape
    assert named["method_name"] == "tensorflow/serving/predict"


def test_many_clients_at_once_get_their_own_answers(server):
    wrong = []

    def client(start):
        for number in range(start, start + 50):
            answer = server.predict({"instances": [number]})
            if answer != {"predictions": [number / 2 + 2]}:
                wrong.append(answer)

    threads = [threading.Thread(target=client, args=(1000 * each,)) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_equal_requests_give_equal_bytes(server):
    assert len({server.ask(f"{M}:predict", {"instances": [[0.1, 0.7]]}) for _ in range(20)}) == 1


def median_ms(server, count=150):
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    times = []
    body = json.dumps({"instances": [[float(number) for number in range(40_000)]]})
    while len(times) < count:
        began = time.perf_counter()
        connection.request("POST", f"{M}:predict", body)
        answer = connection.getresponse()
        answer.read()
        if answer.status == 200:
            times.append((time.perf_counter() - began) * 1000)
    return sorted(times)[count // 2]


def test_a_slow_server_takes_its_multiple_of_the_time_and_fails_its_share(server, faulty):
    healthy, slow = median_ms(server, 40), median_ms(faulty, 40)
    assert slow > 2 * healthy  # three times the time of the server, but not of the sockets
    answers = [faulty.ask(f"{M}:predict", {"instances": [1]}) for _ in range(300)]
    failed = [content for status, content in answers if status == 503]
    assert 60 <= len(failed) <= 120  # 90 ± 4 binomial standard deviations
    assert all("Failed on purpose" in json.loads(content)["error"] for content in failed)
    assert {status for status, _ in answers} == {200, 503}


def test_status_and_metadata_are_spared_the_faults(faulty):
    assert {faulty.ask(path)[0] for path in (M, f"{M}/metadata") for _ in range(20)} == {200}


def end_of(process):
    process.wait(30)
    return process.returncode


def test_a_taken_port_is_one_line_and_exit_code_2(saved_models):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = Server(saved_models, "--rest-port", str(taken.getsockname()[1]))
        assert end_of(server.process) == 2
    assert re.fullmatch(r"127\.0\.0\.1:\d+: cannot be listened on: .*\n", server.errors.read_text())


def test_no_version_directory_is_one_line_and_exit_code_2(saved_models, tmp_path):
    server = Server(saved_models, "--model-base-path", str(tmp_path))
    assert end_of(server.process) == 2
    assert "holds no numbered version directory" in server.errors.read_text()
    assert server.errors.read_text().count("\n") == 1


@pytest.mark.slow
def test_it_ends_when_its_parent_is_killed(saved_models):
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'deploy.embedded.serving', '--model-name', 'm',"
        f" '--rest-port', '0', '--model-base-path', {str(saved_models / 'several')!r}])\n"
        "print(child.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    child = int(parent.stdout.readline())
    time.sleep(3)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 20
    while time.monotonic() < end and Path(f"/proc/{child}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
    assert not alive(child)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
