import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import flask
import pytest
from werkzeug.serving import make_server

from experiments.core import records
from experiments.core.home import CHECKOUT
from loadgen.live import Live, add_tab, newest
from tests.analysis import browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = '</script><img src=x onerror="document.title=1">'

sees = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


class Page:
    """As much of Locust's `WebUI` as a page that is added to it meets: its Flask application."""

    def __init__(self) -> None:
        self.app = flask.Flask("page")
        self.template_args = {}
        locust = flask.Blueprint("locust", __name__, url_prefix="/base")
        locust.add_url_rule("/", "index", lambda: "<html><body><div id=root></div></body></html>")
        locust.add_url_rule("/other", "other", lambda: "<html><body></body></html>")
        self.app.register_blueprint(locust)

    def auth_required_if_enabled(self, view):
        return view


@pytest.fixture
def shown(tmp_path):
    """The page, the state behind it, and a run directory."""
    page, live = Page(), Live(records.RunDir(tmp_path))
    add_tab(page, "/base", live)
    return page, live, tmp_path


def claim(sentence):
    return {"state": "shown", "required": True, "sentence": sentence}


def look_of(name):
    """A look as `analysis watch` writes it, as far as the page shows it, with a name wherever there is one."""
    interval = {"estimate": 0.3, "low": 0.25, "high": 0.36, "level": 0.975, "anytime": True}
    share = {"phase": name, "cohorts": [name], "arm": name, "expected": 0.3, "requests": 10, "count": 3, "unknown": 1}
    failed = {"phase": name, "arm": name, "requests": 10, "failed": 1, "rate": interval, "kinds": {name: 1}}
    latency = {"phase": name, "arm": name, "requests": 10, "quantiles_us": {"p50": 1500.0, "p90": 2e6}}
    point = {"phase": name, "shares": [[name, name, 0.3, 0.2, None]]}
    report = {
        "subject": {"experiment": name, "arms": ["base", name], "baseline": "base"},
        "verdict": {"word": "hold", "sentence": f"Hold: {name}."},
        "shares": [{**share, "share": interval}],
        "latencies": [latency],
        "failures": [failed],
        "checks": [{"name": name, "ok": False, "sentence": name}],
        "claims": [claim(name)],
        "records": {"judged": 10, "requests": 12},
    }
    history = [{**point, "t_s": 1.0}, {**point, "t_s": 2.0}]
    return {
        "look": 3, "state": "live", "at_us": 1, "phase": name, "phase_s": 4.2, "report": report, "history": history,
    }  # fmt: skip


def test_the_page_passes_on_what_the_watch_wrote_byte_for_byte(shown):
    page, live, folder = shown
    client = page.app.test_client()
    assert client.get("/base/experiment/look").json["message"] == "Waiting for the first look."
    written = json.dumps(look_of(HOSTILE))
    (folder / "live.json").write_text(written + "\n")
    answer = client.get("/base/experiment/look")
    assert answer.mimetype == "application/json"
    assert written.encode() in answer.data
    assert answer.json == {"message": "Waiting for the first look.", "trouble": "", "look": look_of(HOSTILE)}
    # Nothing is sent again that is known already.
    tag = {"If-None-Match": answer.headers["ETag"]}
    assert client.get("/base/experiment/look", headers=tag).status_code == 304
    live.end()
    assert client.get("/base/experiment/look", headers=tag).json["message"] == "No test has been started yet."
    assert not (folder / "live.json").exists()


def test_locusts_page_gets_a_tab_and_no_other_page_does(shown):
    client = shown[0].app.test_client()
    assert shown[0].template_args["extended_tabs"] == [{"title": "Experiment", "key": "experiment"}]
    assert client.get("/base/").text.endswith('<script src="./experiment/tab.js" defer></script></body></html>')
    assert "tab.js" not in client.get("/base/other").text


def test_the_page_asks_nobody_but_its_own_host_and_writes_text_only(shown):
    client = shown[0].app.test_client()
    page = client.get("/base/experiment")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ")
    named = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert sorted(named) == ["./", "experiment/experiment.css", "experiment/experiment.js"]
    for name in ("experiment.css", "experiment.js", "tab.js"):
        text = client.get(f"/base/experiment/{name}").text
        assert len(text) > 500
        assert re.findall(r"https?://[^\"']+", text) in ([], ["http://www.w3.org/2000/svg"])
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|url\(|@import", text)
    assert client.get("/base/experiment/../live.py").status_code == 404


@pytest.mark.parametrize("code", [1, 2])
def test_a_watch_that_ended_early_is_told(shown, code):
    _page, live, folder = shown
    live.child = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    live.child.wait()
    (folder / "watch.log").write_text("first\nrun.json:1: damaged; copy it again.\n")
    told = json.loads(newest(live)[0])["trouble"]
    assert told == f"the watch ended with exit code {code}: run.json:1: damaged; copy it again."


def test_a_watch_that_cannot_be_started_does_not_stop_the_load(tmp_path):
    live = Live()
    live.follow(records.RunDir(tmp_path / "gone"))
    assert "the watch cannot be started: [Errno 2]" in json.loads(newest(live)[0])["trouble"]


def dom(url, folder):
    """The page as Chromium has it after some seconds."""
    arguments = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'chromium'}",
        "--virtual-time-budget=6000", "--dump-dom", url,
    ]  # fmt: skip
    return subprocess.run(arguments, capture_output=True, text=True, timeout=90, check=True).stdout


@contextlib.contextmanager
def served(app):
    server = make_server("127.0.0.1", 0, app)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@sees
@pytest.mark.slow
def test_a_browser_shows_hostile_names_as_text(shown, tmp_path):
    page, _live, folder = shown
    (folder / "live.json").write_text(json.dumps(look_of(HOSTILE)))
    with served(page.app) as url:
        seen = dom(f"{url}/base/experiment", tmp_path)
    assert "<img" not in seen
    # The verdict, the claim, twice the check; phase, cohort and arm wherever they stand.
    assert seen.count("&lt;/script&gt;&lt;img src=x") > 12
    assert "25% – 36%" in seen
    assert "2,000 ms" in seen
    assert 'points="34,' in seen


class Stack:
    """The digits experiment, served by the embedded stack."""

    def __init__(self, home, models) -> None:
        home.mkdir(exist_ok=True)
        if not (home / "models").exists():
            (home / "models").symlink_to(models)
        self.environment = {**os.environ, "SPLITPROOF_HOME": str(home)}

    def deploy(self, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "deploy", *arguments],
            cwd=CHECKOUT, env=self.environment, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.fixture
def digits(load, models):
    stack = Stack(load.home, models)
    stack.deploy("up", "digits", "--phase", "split")
    yield stack
    stack.deploy("down", "digits")


def fetched(url, body=None):
    """What Locust's page answers; with a body it is posted."""
    with (
        contextlib.suppress(urllib.error.URLError, ConnectionError),
        urllib.request.urlopen(url, body, timeout=5) as answer,  # noqa: S310 - our own host
    ):
        return json.load(answer)
    return {"look": None}


@sees
@pytest.mark.slow
@pytest.mark.usefixtures("digits")
def test_the_tab_of_a_real_run_in_a_real_browser(load, port, tmp_path, left_over):
    url = f"http://127.0.0.1:{port}"
    before = set(left_over(load.home))
    child = load.start(
        "--experiment", "digits", "--autostart", "--web-host", "127.0.0.1", "--web-port", port, "--loglevel", "WARNING"
    )
    judged = lambda look: look and look["report"]["records"]["judged"] > 800  # noqa: E731
    load.wait_until(lambda: judged(fetched(f"{url}/experiment/look")["look"]), patience=60)
    locusts = dom(f"{url}/?tab=experiment", tmp_path)
    # The tab is chosen, our page lies beneath it, and Locust's own tables are by cohort.
    assert re.search(r'aria-selected="true"[^>]*>(<[^>]+>)*Experiment<', locusts)
    assert re.search(r'<iframe src="./experiment" title="Experiment" style="[^"]*height: \d{3,}px', locusts)
    names = {entry["name"] for entry in fetched(f"{url}/stats/requests")["stats"]}
    assert names == {"predict [canary-users]", "predict [everyone]", "Aggregated"}
    page = dom(f"{url}/experiment", tmp_path)
    rows = [re.findall(r"<bdi>(.*?)</bdi>", row) for row in re.findall(r"<tr.*?</tr>", page)]
    split = [row for row in rows if row[:1] == ["split"] and len(row) == 8]
    assert {(row[1], row[2], row[3]) for row in split} == {
        ("everyone", "small", "70%"), ("everyone", "large", "30%"),
        ("canary-users", "small", "70%"), ("canary-users", "large", "30%"),
    }  # fmt: skip
    for row in split:
        low, high = (float(bound.rstrip("%")) for bound in row[5].split(" – "))
        assert low < float(row[3].rstrip("%")) < high
    assert "all looks together" in page
    assert re.search(r"answers attributed: all [\d,]+ successful answers name their arm", page)
    # Stopped at the page: the last look is the final report. Nothing is left of the watch when Locust has ended.
    fetched(f"{url}/stop", b"")
    load.wait_until(lambda: fetched(f"{url}/experiment/look")["look"]["state"] == "ended", patience=40)
    assert "final" in dom(f"{url}/experiment", tmp_path)
    child.terminate()
    assert load.end(child).code == 0
    assert set(left_over(load.home)) <= before
    assert not (load.run().path / "live.json").exists()


@browser.sees
@pytest.mark.slow
def test_the_live_page_and_the_tab_light_dark_on_a_phone_and_by_keyboard(server, load, port, tmp_path):
    given = load.experiment(arrivals="100/s", warmup="0s")
    Path(given[1]).write_text(f"{Path(given[1]).read_text()}attribution: route-header\n")
    url = f"http://127.0.0.1:{port}"
    web = ["--web-host", "127.0.0.1", "--web-port", port, "--autostart", "--host", server().url]
    load.start(*web, *load.payloads, *given)
    load.await_rows(10)
    load.write_journal()
    load.wait_until(
        lambda: (look := fetched(f"{url}/experiment/look")["look"]) and look["report"]["records"]["judged"] > 300,
        patience=60,
    )
    done = subprocess.run(
        [browser.NODE, browser.FOLDER / "live.mjs", "--shots", tmp_path / "shots", url],
        env={**os.environ, "CHROMIUM": CHROMIUM}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for page in ("experiment", "tab"):
        for name, seen in told[page].items():
            assert (seen["errors"], seen["foreign"], seen["violations"]) == ([], [], []), (page, name)
            assert not seen["too_wide"], (page, name)
            assert seen["rows"] == 5, (page, name)
            assert seen["word"] != "Waiting"
    for name, seen in told["experiment"].items():
        assert (sum(seen["ground"][:3]) < 200) == (name != "light")
        # By keyboard: past what is above, then from stop to stop, each to be seen.
        assert (seen["first"], seen["skipped"]) == ("Skip to the split", "#split")
        assert seen["stops"][0] == "split"
        assert not [stop for stop in seen["stops"] if "not seen" in stop]
    for name, seen in told["tab"].items():
        assert (seen["tab"], seen["entered"]) == ("Experiment", True)
        assert seen["left"] != "Experiment"
        # It is as dark as the page around it.
        assert (seen["scheme"] == "dark") == (sum(seen["behind"][:3]) < 384), name
