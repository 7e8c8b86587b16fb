"""Names, certificates and secrets of a gateway: a real Envoy lets in only whoever has all of them right."""

import contextlib
import re
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import msgspec
import pytest

from deploy.asking import ask
from deploy.cluster.effect import Eyes, await_effective
from experiments.core import reading
from experiments.core.access import Access, access_of, expanded, refuse_unset, refuse_untrusted
from experiments.core.errors import ExperimentError, StackError
from experiments.core.home import CHECKOUT
from loadgen.predict import Connections, Dialer, predict, request_head, target
from tests.guarded_envoy import ANSWER, NAME, ROUTE, TOKEN, guarded

EXPERIMENT = """
model: digits_classifier
arms:
  one: {digits: {hidden: [16]}}
  two: {digits: {hidden: [32]}}
payloads: {digits: 3}
gateway: {host: models.example}
cohorts:
  everyone: {share: 100%, headers: {Authorization: 'Bearer ${TOKEN}'}}
phases:
  - {name: split, route: {one: 50, two: 50}, for: 30s}
"""


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    with guarded(tmp_path_factory.mktemp("guarded") / "envoy") as found:
        yield found


@pytest.fixture
def access(front):
    return Access(host=NAME, ca_file=str(front.ca), client_cert=str(front.cert), client_key=str(front.key))


@pytest.fixture
def loaded(tmp_path):
    path = tmp_path / "secret.yaml"
    path.write_text(EXPERIMENT)
    return reading.load(str(path))


HEADERS = {"Authorization": "Bearer ${TOKEN}"}


def predicted(front, access):
    dialer = Dialer(target(front.url, access))
    head = request_head(dialer.target, "/v1/models/m:predict", expanded(HEADERS), b"{}")
    return predict(Connections(dialer), head + b"id\r\n\r\n{}", 5.0)


# What is wrong of it → the load's error class, and the status; the probes for a route get the same answers, or none.
WRONG = {
    "nothing": ({}, None, 200),
    "no token": ({}, "http_4xx", 401),
    "another name": ({"host": "other.example"}, "unheard", None),
    "another host": ({"host": "other.example", "sni": NAME}, "http_4xx", 404),
    "a name by the sni alone": ({"host": None, "sni": NAME}, "http_4xx", 404),
    "no certificate": ({"client_cert": None, "client_key": None}, "unheard", None),
    "another authority": ({"ca_file": None}, "unheard", None),
}


@pytest.mark.parametrize("what", WRONG)
def test_whoever_has_all_of_it_right_is_let_in_and_nobody_else(front, access, monkeypatch, what):
    monkeypatch.setenv("TOKEN", "guessed" if what == "no token" else TOKEN)
    changes, error, status = WRONG[what]
    given = msgspec.structs.replace(access, **changes)
    answer = predicted(front, given)
    # Who is turned away before HTTP meets an alert, or a closed connection, as the versions of TLS have it.
    assert ("unheard" if answer.error in {"tls", "connect", "reset"} else answer.error) == error
    assert answer.status == (status or 0)
    probe = ask(f"{front.url}/", headers=expanded(HEADERS), access=given)
    assert (probe and probe.status) == status
    if error is None:
        assert (answer.body.decode(), answer.route) == (ANSWER, ROUTE)


TOLD = {
    "no certificate": "we show no certificate; give one with --client-cert and --client-key",
    "another authority": r"is not trusted \(.*\); name the authority that signed it with --ca-file FILE\.$",
}


@pytest.mark.parametrize("what", TOLD)
def test_whoever_is_turned_away_is_told_by_what_and_which_option_mends_it(front, access, what):
    refuse_untrusted(front.url, access)
    with pytest.raises(StackError, match=TOLD[what]) as told:
        refuse_untrusted(front.url, msgspec.structs.replace(access, **WRONG[what][0]))
    assert str(told.value).startswith(f"{front.url}, asked for ")
    assert "\n" not in str(told.value)


def test_a_certificate_of_another_name_is_told_with_the_option_for_names(front, access):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(front.ca.parent / "server.crt", front.ca.parent / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=greet, args=(server, context), daemon=True).start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(StackError, match=r"is not trusted \(.*other\.example.*\); ask for a name .*--sni NAME"):
            refuse_untrusted(url, msgspec.structs.replace(access, sni="other.example"))


def greet(server, context):
    with contextlib.suppress(OSError), server.accept()[0] as plain:
        context.wrap_socket(plain, server_side=True).close()


def test_who_is_not_there_at_all_is_for_others_to_tell(access):
    refuse_untrusted("https://127.0.0.1:9", access)
    refuse_untrusted("http://127.0.0.1:9", access)


def test_probes_for_a_route_send_the_cohorts_secret_under_the_gateways_name(front, access, loaded, monkeypatch):
    monkeypatch.setenv("TOKEN", TOKEN)
    eyes = Eyes([front.url], every_replica=True, access=access_of(loaded.experiment, replace_host(access)))
    await_effective(loaded.experiment, "split", eyes)
    assert eyes.access == access


def replace_host(access):
    """The files alone: the name is the experiment's."""
    return msgspec.structs.replace(access, host=None)


def test_a_variable_that_is_not_set_is_one_line_before_anything_begins(loaded, monkeypatch):
    monkeypatch.delenv("TOKEN", raising=False)
    with pytest.raises(StackError, match=r"^header 'Authorization': the variable TOKEN is not set; set it where"):
        refuse_unset(loaded.experiment)
    monkeypatch.setenv("TOKEN", "bad\nvalue")
    with pytest.raises(StackError, match="header 'authorization': its value cannot be sent") as told:
        request_head(target("http://h"), "/", expanded(HEADERS), b"")
    assert "bad" not in str(told.value)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"client_cert": "gone.pem"}, "--client-cert .*gone.pem: cannot be used: No such file"),
        ({"client_key": "key.pem"}, "--client-key: goes with a certificate"),
        ({"client_cert": __file__}, "--client-cert .*: no PEM that fits"),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_their_option(given, line):
    with pytest.raises(StackError, match=line):
        Dialer(target("https://h", Access(**given)))


def test_a_route_that_looks_at_a_secret_is_refused_for_its_expectation_is_not_known(tmp_path):
    path = tmp_path / "secret.yaml"
    rules = "[{when: {authorization: {prefix: Bearer}}, to: two}, {to: one}]"
    path.write_text(EXPERIMENT.replace("{one: 50, two: 50}", rules))
    with pytest.raises(ExperimentError, match=r"headers\.Authorization: holds a variable, and a route matches"):
        reading.load(str(path))


@pytest.mark.slow
def test_a_load_gets_in_and_its_secret_is_written_nowhere(front, load, loaded, monkeypatch):
    """Not in the run directory, what Locust says, its arguments, its page or the report."""
    web = "18089"
    child = load.start(
        *front.options, "--experiment", str(loaded.path), *load.payloads, "--autostart",
        "--run-time", "4s", "--autoquit", "2", "--web-host", "127.0.0.1", "--web-port", web, extra={"TOKEN": TOKEN},
    )  # fmt: skip
    load.await_rows(3)
    assert TOKEN not in Path(f"/proc/{child.pid}/cmdline").read_text()
    pages = [page(web, path) for path in ("/", "/experiment", "/experiment/look", "/stats/requests", "/exceptions")]
    assert "Experiment" in pages[0]
    ended = load.end(child)
    assert ended.code == 0, ended.text
    assert {(row.status, row.error, row.route) for row in load.rows()} == {(200, None, ROUTE)}
    monkeypatch.setenv("TOKEN", TOKEN)
    report = load_report(load)
    texts = [
        *pages,
        ended.text,
        report,
        *(path.read_text("latin-1") for path in load.folder.rglob("*") if path.is_file()),
    ]
    assert not [text[:200] for text in texts if TOKEN in text]
    assert re.search(r"Bearer \$\{TOKEN\}", load.run().info.read_text())


def page(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def load_report(load):
    done = subprocess.run(
        [sys.executable, "-m", "analysis", "report", str(load.run().path), "--html", str(load.folder / "r.html"),
         "--markdown", str(load.folder / "r.md"), "--junit", str(load.folder / "r.xml")],
        capture_output=True, text=True, cwd=CHECKOUT, check=False, env=load.environment,
    )  # fmt: skip
    assert (load.folder / "r.html").exists(), done.stderr
    return done.stdout + done.stderr
