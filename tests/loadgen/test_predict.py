import http.server
import itertools
import shutil
import socket
import ssl
import subprocess
import threading
import time

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.core.access import Access
from experiments.core.errors import StackError
from loadgen.predict import Connections, Dialer, Reply, predict, reachable, request_head, target

BODY = b'{"instances": [[1, 2]]}'


def connections_to(url, **policy):
    return Connections(Dialer(target(url)), **policy)


def ask(connections, timeout=5.0, headers=None):
    head = request_head(connections.dialer.target, "/v1/models/m:predict", headers or {}, BODY)
    return predict(connections, head + b"some-id\r\n\r\n" + BODY, timeout)


def test_an_answer_brings_its_status_body_route_and_upstream_time(server):
    started = server()
    answer = ask(connections_to(started.url), headers={"user-group": "canary"})
    assert (answer.status, answer.error, answer.route, answer.upstream_us) == (200, None, "split/one", 7000)
    assert answer.reply.json()["predictions"] == [[0.1] * 10]
    (seen,) = started.requests()
    assert (seen.request_id, seen.group, seen.path) == ("some-id", "canary", "/v1/models/m:predict")


def test_the_proxys_own_count_of_its_tries_is_seen_where_it_gives_one(server):
    assert ask(connections_to(server().url)).attempts is None
    assert ask(connections_to(server(behaviour="retried").url)).attempts == 2


def test_the_first_bytes_come_before_the_last(server):
    started = server(delay=0.05)
    before = time.monotonic_ns()
    answer = ask(connections_to(started.url))
    assert before + 50_000_000 <= answer.reply.first_byte_ns <= time.monotonic_ns()
    assert ask(connections_to(server(delay=3.0).url), timeout=0.2).reply.first_byte_ns == 0


def test_one_connection_serves_request_after_request(server):
    started = server()
    connections = connections_to(started.url)
    assert [ask(connections).status for _ in range(5)] == [200] * 5
    assert {seen.connection for seen in started.requests()} == {0}


def test_a_connection_that_the_server_has_closed_is_not_used_again(server):
    started = server(behaviour="close")
    connections = connections_to(started.url)
    for _ in range(3):
        assert ask(connections).error is None
        time.sleep(0.05)
    assert len({seen.connection for seen in started.requests()}) == 3


@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        ({"failure_rate": 1.0}, 503, "http_5xx"),
        ({"behaviour": "redirect"}, 302, "http_3xx"),
        ({"delay": 3.0}, 0, "timeout"),
    ],
)
def test_what_goes_wrong_has_a_class_and_is_not_tried_again(server, options, status, error):
    started = server(**options)
    answer = ask(connections_to(started.url), timeout=0.5)
    assert (answer.status, answer.error) == (status, error)
    gevent.sleep(0.2)
    assert len(started.requests()) == (0 if error == "timeout" else 1)


def test_a_timeout_bounds_the_whole_request(server):
    connections = connections_to(server(delay=3.0).url)
    start = time.monotonic()
    ask(connections, timeout=0.3)
    assert 0.3 <= time.monotonic() - start < 1.0


def test_nothing_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert ask(connections_to(url)).error == "connect"
        assert reachable(target(url)) == "Connection refused"


def served_raw(answer, *, abort=False):
    """A server that gives one raw answer to one connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(answer)
        if abort:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        listener.close()

    threading.Thread(target=serve, daemon=True).start()
    return connections_to(f"http://127.0.0.1:{listener.getsockname()[1]}")


TWO_BYTES = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "status", "error", "body"),
    [
        (b"", 0, "reset", b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", 200, "reset", b"ab"),
        (b"HTTP/1.1 200 OK\r\nconte", 200, "reset", b""),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, None, b"until the end"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, None, b"abcde"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, None, b"ok"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 0, "protocol", b""),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 404, "http_4xx", b""),
        # What follows an answer is no part of it, be it another answer (to a body that was not read) or no HTTP.
        (TWO_BYTES + b"okHTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nbad", 200, None, b"ok"),
        (TWO_BYTES + b"okHTTP/1.1 100 Continue\r\n\r\n", 200, None, b"ok"),
        (TWO_BYTES + b"ok and more", 200, None, b"ok"),
    ],
)
def test_answers_of_every_form(raw, status, error, body):
    answer = ask(served_raw(raw))
    assert (answer.status, answer.error, answer.body) == (status, error, body)


def test_a_connection_with_more_than_an_answer_on_it_is_not_used_again():
    connections = served_raw(TWO_BYTES + b"okHTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    assert ask(connections).status == 200
    assert not connections._idle


@pytest.mark.parametrize("digits", [10, 30, 5000])
def test_a_proxys_number_that_is_none_loses_no_answer(digits):
    number = b"9" * digits
    head = b"x-envoy-upstream-service-time: " + number + b"\r\nx-envoy-attempt-count: " + number + b"\r\n\r\n"
    answer = ask(served_raw(b"HTTP/1.1 204 No Content\r\n" + head))
    assert (answer.status, answer.upstream_us, answer.attempts) == (204, None, None)


def test_a_trailer_does_not_change_who_answered():
    head = b"HTTP/1.1 200 OK\r\nx-splitproof-route: split/one\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = ask(served_raw(head + b"2\r\nok\r\n0\r\nx-splitproof-route: split/two\r\n\r\n"))
    assert (answer.route, answer.body) == ("split/one", b"ok")


def test_a_connection_cut_off_is_a_reset():
    assert ask(served_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", abort=True)).error == "reset"


WHOLE = (
    b"HTTP/1.1 200 OK\r\nX-Splitproof-Route: split/one\r\nempty:\r\nlong: "
    + b"v" * 300
    + b"\r\ncontent-length: 11\r\n\r\nhello world"
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=12))
def test_it_does_not_matter_how_an_answer_is_cut_into_pieces(cuts):
    reply, edges = Reply("http://h"), [0, *sorted(set(cuts)), len(WHOLE)]
    for start, end in itertools.pairwise(edges):
        assert not reply.complete
        reply.feed(WHOLE[start:end])
    assert reply.complete
    assert reply.content == b"hello world"
    assert reply.headers == {
        "x-splitproof-route": "split/one", "empty": "", "long": "v" * 300, "content-length": "11",
    }  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "localhost:80", "ftp://x", "http://", "http://h:port", "http://h:99999", "http://[::1", "", "http://a..b:80",
        "http://.a", f"http://{'a' * 64}.b", "http://h/\u6a21", "http://h/a b", "http://a b/", "http://\u6a21/",
        "http://h:0", "http://me:secret@h", "http://h?a=1", "http://h/#x", "http://h/a\x01",
    ],
)  # fmt: skip
def test_a_wrong_url_is_refused_in_one_line(url):
    with pytest.raises(StackError, match=r"^--host .*; mend it\.$"):
        target(url)


@pytest.mark.parametrize(
    ("url", "authority", "port"),
    [
        ("http://h", "h", 80),
        ("https://h/", "h", 443),
        ("http://h:81/base/", "h:81", 81),
        ("http://[::1]:9", "[::1]:9", 9),
        ("http://my_host.svc.cluster.local.:9/a%20b", "my_host.svc.cluster.local.:9", 9),
        (f"http://{'a' * 63}.b", f"{'a' * 63}.b", 80),
    ],
)
def test_the_authority_of_a_url(url, authority, port):
    assert (target(url).authority, target(url).port) == (authority, port)


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"a": "x\r\nhost: evil"}, {"": "x"}, {"a": "\u20ac"}, {"a:": "x"}])
def test_a_header_that_cannot_be_sent_is_refused(headers):
    with pytest.raises(StackError, match="cannot be sent"):
        request_head(target("http://h"), "/p", headers, BODY)


@pytest.mark.parametrize("name", ["X-Request-Id", "transfer-encoding", "Content-Length"])
def test_a_second_header_of_every_requests_own_is_refused(name):
    with pytest.raises(StackError, match=f"header '{name}': every request has one of its own"):
        request_head(target("http://h"), "/p", {name: "chunked"}, BODY)


def test_the_head_ends_at_the_request_id_and_a_cohort_may_name_another_host():
    head = request_head(target("http://h:81/base"), "/v1/models/m:predict", {"Host": "models.example", "X": "é"}, BODY)
    lines = head.decode("latin-1").split("\r\n")
    assert lines[0] == "POST /base/v1/models/m:predict HTTP/1.1"
    assert [line for line in lines if line.lower().startswith("host:")] == ["host: models.example"]
    assert lines[-1] == "x-request-id: "
    assert f"content-length: {len(BODY)}" in lines


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), ("no certificate", "no PEM certificates")])
def test_a_file_of_certificates_that_cannot_be_used_is_refused_in_one_line(tmp_path, content, why):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StackError, match=rf"^--ca-file .*{why}.*; name a file of PEM certificates\.$"):
        Dialer(target("https://h", Access(ca_file=str(file))))


@pytest.fixture
def certificate(tmp_path):
    """A certificate of its own authority for localhost, with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command")
    key, made = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(made),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, made


def served_over_tls(key, made, opened):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)

    class Answering(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            opened.append(1)
            super().setup()

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    served.socket = context.wrap_socket(served.socket, server_side=True)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    return served


def test_tls_is_verified_and_its_connections_are_kept(certificate, monkeypatch):
    key, made = certificate
    opened = []
    served = served_over_tls(key, made, opened)
    url = f"https://localhost:{served.server_port}"
    assert ask(connections_to(url)).error == "tls"
    opened.clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(made))
    trusting = connections_to(url)
    assert [ask(trusting).body for _ in range(3)] == [b"ok"] * 3
    assert len(opened) == 1
    monkeypatch.delenv("SSL_CERT_FILE")
    named = Connections(Dialer(target(url, Access(ca_file=str(made)))))
    assert ask(named).body == b"ok"
    # The name is verified too, not only the signature.
    elsewhere = Connections(Dialer(target(f"https://127.0.0.1:{served.server_port}", Access(ca_file=str(made)))))
    assert ask(elsewhere).error == "tls"
    served.shutdown()
    served.server_close()
