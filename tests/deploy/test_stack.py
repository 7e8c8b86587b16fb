"""A real stack: Envoy before two small classifiers, each served by its own process."""

import json
import math
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
import psutil
import pytest

from deploy.asking import ask
from deploy.embedded import stack as embedded
from deploy.embedded.admin import wait_for
from deploy.embedded.faults import Faults
from experiments.core import journal, reading
from experiments.core.answers import output_vector
from experiments.core.attribution import Reference, attribute
from experiments.core.errors import StackError
from experiments.core.home import CHECKOUT
from experiments.core.records import write_json
from experiments.core.routing import predict_path
from experiments.core.stack import read_payloads
from experiments.progress import Narrator
from experiments.targets import Embedded

pytestmark = pytest.mark.usefixtures("up")

JSON = {"Content-Type": "application/json"}
# No file may grow beyond two kilobytes: to a writer that looks like a full disk.
FULL_DISK = (
    "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
    "sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


def deploy(*arguments, timeout=120):
    """A command in another process, as from another terminal."""
    return subprocess.run(
        [sys.executable, "-m", "deploy", *arguments],
        check=False, capture_output=True, text=True, timeout=timeout, cwd=CHECKOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def digits(digits_home):
    assert str(digits_home) == os.environ["SPLITPROOF_HOME"]
    loaded = reading.load("digits")
    embedded.up(loaded, progress=lambda _: None)
    yield loaded
    embedded.down("digits")


@pytest.fixture
def up(digits):
    """The stack, whatever the tests before did to its routing."""
    info = embedded.up(digits)
    assert embedded.trouble("digits") is None
    return info


@pytest.fixture
def bodies(up):
    assert up.target == "embedded"
    return list(read_payloads(embedded.state_dir("digits").shared.payloads).values())


class Load:
    """A process that sends predictions all the while; afterwards, what each got and when."""

    def __init__(self, info, bodies, headers=None, threads=3):
        self.told = {
            "address": info.gateway_url.removeprefix("http://"),
            "path": predict_path(info.experiment["model"]),
            "bodies": [body.decode() for body in bodies],
            "headers": {**JSON, **(headers or {})},
            "threads": threads,
        }
        self.got = []

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("steady_load.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.process.stdin.write(json.dumps(self.told) + "\n")
        self.process.stdin.flush()
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        out, _ = self.process.communicate(timeout=30)
        self.got = json.loads(out)


def test_up_leaves_what_other_commands_need(up, bodies):
    state = embedded.state_dir("digits")
    assert {pod.arm for pod in up.pods} == {"small", "large"}
    assert len(bodies) == 60
    references = json.loads(state.shared.references.read_text())
    assert references["source"] == "export"
    assert references["problems"] == []
    for payload in references["payloads"].values():
        for arm in payload["arms"].values():
            assert arm["noise"] < 1e-4
            assert [direct["matches"] for direct in arm["direct"]] == [True]
    first = journal.changes(journal.read(state.shared.journal))[0]
    assert first.phase == "dark-launch"
    assert first.effective_us > first.applied_us


def test_everything_listens_on_loopback_alone(up):
    ours = {up.supervisor_pid, *(child.pid for child in psutil.Process(up.supervisor_pid).children(recursive=True))}
    listening = [each for each in psutil.net_connections("inet") if each.pid in ours and each.status == "LISTEN"]
    assert len(listening) == 4  # two pods, the gateway, its admin page
    assert {each.laddr.ip for each in listening} == {"127.0.0.1"}


def test_up_again_changes_nothing(digits, up):
    assert embedded.up(digits) == up


def test_another_version_under_the_same_name_is_refused():
    changed = reading.load("digits", ["load.arrivals=7/s"])
    with pytest.raises(StackError, match="another version of this experiment is up; take it down with"):
        embedded.up(changed)


def test_another_port_is_refused_while_it_is_up(digits):
    with pytest.raises(StackError, match="--port 1: digits is up already at http"):
        embedded.up(digits, port=1)


def test_a_taken_port_is_refused_before_any_work():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(StackError, match=f"127.0.0.1:{port} cannot be listened on: Address already in use"):
            embedded.up(reading.load("aa"), port=port)
        assert time.monotonic() - began < 2
    assert not embedded.state_dir("aa").path.exists()


def test_weights_hold_headers_decide_and_no_request_fails_while_routes_change(up, bodies):
    phases = ["split", "dark-launch", "split", "focused", "split", "dark-launch"]
    with Load(up, bodies) as plain, Load(up, bodies, {"user-group": "canary"}, threads=1) as marked:
        made = []
        for phase in phases:
            made.append(embedded.route("digits", phase))
            time.sleep(0.7)
    assert {status for _, _, status, _ in plain.got + marked.got} == {200}
    took = sorted((change.effective_us - change.applied_us) / 1000 for change in made)
    assert took[len(took) // 2] < 100, took
    within = Counter()
    for index, change in enumerate(made):
        end = made[index + 1].applied_us if index + 1 < len(made) else math.inf
        for cohort, load in (("plain", plain), ("marked", marked)):
            for start, done, _, route in load.got:
                if start >= change.effective_us and done < end:
                    within[change.phase, cohort, route] += 1
    seen = {key[:2] for key in within}
    assert {(phase, cohort) for phase in set(phases) for cohort in ("plain", "marked")} == seen
    for phase, cohort, route in within:
        allowed = {
            "dark-launch": {"dark-launch/small"},
            "split": {"split/small", "split/large"},
            "focused": {"focused/large" if cohort == "marked" else "focused/small"},
        }
        assert route in allowed[phase]
    large = sum(count for key, count in within.items() if key[2] == "split/large")
    total = large + sum(count for key, count in within.items() if key[2] == "split/small")
    assert abs(large - 0.3 * total) < 6 * math.sqrt(0.21 * total)


def test_envoys_own_log_agrees_that_zero_weight_gets_nothing(up, bodies):
    change = embedded.route("digits", "dark-launch")
    with Load(up, bodies):
        time.sleep(0.5)
    small = next(pod for pod in up.pods if pod.arm == "small").url.removeprefix("http://")
    log = embedded.state_dir("digits").envoy.access_log
    time.sleep(0.5)  # Envoy writes its log every 100 ms
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    since = [line for line in lines if float(line["start_time"]) * 1e6 > change.effective_us]
    assert len(since) > 20
    assert {line["upstream_host"] for line in since} == {small}


def test_the_answer_itself_names_the_arm_that_the_route_header_names(up):
    state = embedded.state_dir("digits")
    embedded.route("digits", "split")
    references = json.loads(state.shared.references.read_text())["payloads"]
    for name, body in read_payloads(state.shared.payloads).items():
        answer = ask(f"{up.gateway_url}{predict_path(up.experiment['model'])}", method="POST", body=body, headers=JSON)
        known = {arm: Reference(output_vector(json.dumps({"predictions": [each["output"]]}).encode()), each["noise"])
                 for arm, each in references[name]["arms"].items()}  # fmt: skip
        found = attribute(output_vector(answer.body), known)
        assert answer.headers["x-splitproof-route"] == f"split/{found.arm}", found


def test_another_terminal_changes_the_route_and_sees_it(up):
    ran = deploy("route", "digits", "focused")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("phase focused is in force, ")
    shown = deploy("status", "digits").stdout
    assert f"digits: up at {up.gateway_url}" in shown
    assert "phase    focused" in shown
    assert shown.count("alive") == 2
    assert "drift" not in shown


def test_an_unknown_phase_and_an_unknown_stack_are_one_clear_line():
    ran = deploy("route", "digits", "splitt")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "digits: has no phase 'splitt'; did you mean 'split'? there are: dark-launch, split, focused.\n"
    )
    ran = deploy("route", "quickstart", "split")
    assert ran.returncode == 2
    assert ran.stderr == "quickstart: no stack is up; put it up with: python -m deploy up quickstart\n"


def test_an_edited_route_is_what_is_journalled_and_shows_as_drift():
    def swap(objects):
        for each in objects:
            if each["kind"] == "VirtualService":
                first, second = each["spec"]["http"][0]["route"]
                first["weight"], second["weight"] = second["weight"], first["weight"]
        return objects

    change = embedded.route("digits", "split", edit=swap, by="a test")
    assert [entry["weight"] for entry in change.http[0]["route"]] == [30, 70]
    assert change.by == "a test"
    assert "is not the routing that phase 'split' states" in embedded.status("digits").drift
    embedded.route("digits", "split")
    assert embedded.status("digits").drift is None


def test_a_refused_route_leaves_the_old_one_and_no_trace():
    embedded.route("digits", "split")
    path = embedded.state_dir("digits").shared.journal
    before = path.read_bytes()

    def mirror(objects):
        objects[-1]["spec"]["http"][0]["mirror"] = {"host": "digits-classifier"}
        return objects

    with pytest.raises(StackError, match=r"spec\.http\[0\]\.mirror"):
        embedded.route("digits", "dark-launch", edit=mirror)
    assert path.read_bytes() == before
    assert embedded.status("digits").phase == "split"


def test_a_route_without_our_header_is_seen_too(up, bodies):
    def bare(objects):
        for each in objects:
            if each["kind"] == "VirtualService":
                for entry in each["spec"]["http"][0]["route"]:
                    del entry["headers"]
        return objects

    embedded.route("digits", "split")
    change = embedded.route("digits", "dark-launch", edit=bare)
    entry = journal.read(embedded.state_dir("digits").shared.journal)[-1]
    assert (entry.seen, entry.probes, entry.sequence) == (True, 5, change.sequence)
    answer = ask(f"{up.gateway_url}{predict_path(up.experiment['model'])}", method="POST", body=bodies[0], headers=JSON)
    assert (answer.status, "x-splitproof-route" in answer.headers) == (200, False)


def named(name):
    """The same experiment under another name."""
    loaded = reading.load("digits")
    return reading.Loaded(loaded.experiment.model_copy(update={"name": name}), loaded.folder, loaded.path)


def test_disk_full_while_a_stack_comes_up_is_one_clear_line_and_leaves_nothing(digits_home, left_over):
    before = {process.pid for process in left_over(digits_home)}
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "deploy", "up", "aa", "--set", "arms.one.digits.seed=1"],
        check=False, capture_output=True, text=True, timeout=120, cwd=CHECKOUT,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "cannot be written: File too large" in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr
    assert not embedded.state_dir("aa").path.exists()
    assert {process.pid for process in left_over(digits_home)} <= before


# Deaths


def ports_free(info):
    for url in [info.gateway_url, info.admin_url, *(pod.url for pod in info.pods)]:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0:
                return False
    return True


def victim(info, who):
    children = psutil.Process(info.supervisor_pid).children()
    found = {
        "supervisor": [psutil.Process(info.supervisor_pid)],
        "Envoy": [child for child in children if "envoy" in child.exe()],
        "serving of large": [child for child in children if child.pid == info.pods[1].pid],
    }[who]
    assert len(found) == 1
    return found[0]


def kill_and_look(info, who, home, left_over):
    """Kill one process of a stack: all must go, the ports be free, and everybody be told who it was."""
    name = info.experiment["name"]
    ours = {info.supervisor_pid, *(child.pid for child in psutil.Process(info.supervisor_pid).children())}
    assert len(ours) == 4
    victim(info, who).kill()
    assert wait_for(lambda: embedded.trouble(name) is not None, 5)
    said = embedded.trouble(name)
    assert who in said
    assert "killed" in said
    assert wait_for(lambda: not ours & {process.pid for process in left_over(home)}, 10)
    assert wait_for(lambda: ports_free(info), 5)
    assert not embedded.is_up(name)
    assert said in deploy("status", name).stdout
    with pytest.raises(StackError, match="its stack is dead"):
        embedded.route(name, "split")


@pytest.mark.slow
def test_two_stacks_share_nothing_and_one_dies_alone(up, digits_home, left_over):
    embedded.route("digits", "split")
    try:
        info = embedded.up(named("other"))
        urls = {info.gateway_url, info.admin_url, *(pod.url for pod in info.pods)}
        assert not urls & {up.gateway_url, up.admin_url, *(pod.url for pod in up.pods)}
        embedded.route("other", "focused")
        assert (embedded.status("digits").phase, embedded.status("other").phase) == ("split", "focused")
        kill_and_look(info, "Envoy", digits_home, left_over)
    finally:
        assert embedded.down("other")
    assert not embedded.down("other")
    assert embedded.trouble("digits") is None
    assert ask(f"{up.gateway_url}/v1/models/digits_classifier").status == 200


@pytest.mark.slow
@pytest.mark.parametrize("who", ["serving of large", "supervisor"])
def test_whoever_is_killed_all_go_and_status_says_who(who, digits_home, left_over):
    try:
        kill_and_look(embedded.up(named("victim")), who, digits_home, left_over)
        # A dead stack is replaced, not refused.
        assert embedded.is_up("victim") is False
        again = embedded.up(named("victim"), first_phase="focused")
        assert embedded.status("victim").phase == "focused"
        assert embedded.is_up("victim")
        assert all(psutil.pid_exists(pod.pid) for pod in again.pods)
    finally:
        embedded.down("victim")


@pytest.mark.slow
def test_an_impostor_and_a_failing_pod_are_put_up_and_the_impostor_is_named():
    faults = Faults(serves={"large": "small"}, failure_rate={"small": 0.2})
    try:
        embedded.up(named("sabotaged"), faults=faults)
        found = json.loads(embedded.state_dir("sabotaged").shared.references.read_text())["problems"]
        assert len(found) == 1
        assert found[0].startswith("pod digits-classifier-large-0 is deployed as 'large', but serves 'small'")
    finally:
        embedded.down("sabotaged")


@pytest.mark.slow
def test_a_stack_whose_owner_is_killed_goes_down(digits_home, left_over):
    code = (
        "import os, sys, time; from deploy.embedded import stack; from experiments.core import reading\n"
        "l = reading.load('aa'); stack.up(l, owner_pid=os.getpid()); print('up', flush=True); time.sleep(60)"
    )
    before = {process.pid for process in left_over(digits_home)}
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=CHECKOUT)
    try:
        assert owner.stdout.readline() == b"up\n"
        owner.kill()
        owner.wait()
        assert wait_for(lambda: embedded.trouble("aa") == f"its owner (pid {owner.pid}) is gone", 5)
        assert wait_for(lambda: {process.pid for process in left_over(digits_home)} <= before, 10)
    finally:
        owner.kill()
        owner.communicate()
        embedded.down("aa")


def test_while_a_run_has_the_stack_nobody_else_changes_its_routes(up):
    code = (
        "import sys, time; from deploy.embedded import stack\n"
        "with stack.reserved('digits'): print('mine', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=CHECKOUT)
    try:
        assert holder.stdout.readline() == b"mine\n"
        said = f"digits: a run (pid {holder.pid}) uses its stack, and one at a time may change its routes"
        for attempt in (lambda: embedded.route("digits", "split"), lambda: embedded.up(reading.load("digits"))):
            with pytest.raises(StackError) as refused:
                attempt()
            assert str(refused.value).startswith(said)
        with pytest.raises(StackError, match=f"pid {holder.pid}"), embedded.reserved("digits"):
            pass
    finally:
        holder.kill()  # the kernel gives the reservation back
        holder.communicate()
    with embedded.reserved("digits"):
        assert embedded.route("digits", "split").phase == "split"
    assert embedded.trouble("digits") is None
    assert up.target == "embedded"


@pytest.mark.parametrize(("wish", "arms"), [("restore", {"small"}), ("baseline", {"small"}), ("canary", {"large"}),
                                            ("leave", {"small", "large"})])  # fmt: skip
def test_a_run_leaves_a_stack_that_was_up_as_on_end_says(digits, up, bodies, wish, arms):
    """Whatever the phases of the run did; said by the experiment, on this machine as on a cluster."""
    embedded.route("digits", "dark-launch")
    state = embedded.state_dir("digits").shared
    write_json(state.info, msgspec.structs.replace(up, experiment={**up.experiment, "on_end": wish}))
    try:
        with Embedded().stack(digits, None, Narrator()):
            embedded.route("digits", "split")
        url = f"{up.gateway_url}{predict_path(up.experiment['model'])}"
        routes = {
            ask(url, method="POST", body=bodies[0], headers=JSON).headers["x-splitproof-route"].partition("/")[2]
            for _ in range(40)
        }
        assert routes == arms
        found = embedded.status("digits")
        assert found.drift is None
        assert found.phase == {"restore": "dark-launch", "leave": "split"}.get(wish, "on-end")
    finally:
        write_json(state.info, up)
