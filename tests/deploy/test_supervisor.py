"""The real supervisor over real processes that do nothing but live."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from deploy.embedded.processes import Running, alive, end, spawn_detached
from deploy.embedded.state import Child, Plan, StateDir
from experiments.core.records import write_json

SLEEPER = "import sys, time; print('here I am', flush=True); time.sleep(float(sys.argv[1])); sys.exit('no more')"


def until(reached, seconds=10.0):
    end_at = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end_at, "not within time"
        time.sleep(0.01)


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Supervised:
    def __init__(self, folder, seconds=(60, 60), **plan):
        self.state = StateDir(folder)
        self.state.logs.mkdir(parents=True)
        children = [
            Child(f"child {index}", [sys.executable, "-c", SLEEPER, str(length)], str(self.state.log(str(index))))
            for index, length in enumerate(seconds)
        ]
        write_json(self.state.plan, Plan(children, **plan))
        arguments = [sys.executable, "-m", "deploy.embedded.supervisor", str(folder)]
        self.supervisor = Running("supervisor", spawn_detached(arguments, str(self.state.log("supervisor"))), arguments)
        until(self.state.processes.exists)
        self.children = [each["pid"] for each in json.loads(self.state.processes.read_text())]

    def all_gone(self):
        return not alive(self.supervisor) and all(gone(pid) for pid in self.children)

    @property
    def sentence(self):
        return json.loads(self.state.end.read_text())["sentence"]


@pytest.fixture
def supervised(tmp_path):
    made = []

    def make(**more):
        made.append(Supervised(tmp_path / str(len(made)), **more))
        return made[-1]

    yield make
    for each in made:
        end(each.supervisor, 5)
        assert all(gone(pid) for pid in each.children)


def test_children_live_in_sessions_of_their_own(supervised):
    each = supervised()
    sessions = {os.getsid(pid) for pid in (each.supervisor.pid, *each.children)}
    assert len(sessions) == 3
    assert os.getsid(0) not in sessions


def test_told_to_stop_it_ends_its_children_and_says_nothing(supervised):
    each = supervised()
    os.kill(each.supervisor.pid, signal.SIGTERM)
    until(each.all_gone)
    assert not each.state.end.exists()


def test_a_child_that_ends_takes_the_others_down_and_is_named(supervised):
    each = supervised(seconds=(60, 0.3))
    until(each.all_gone)
    assert each.sentence == f"child 1 (pid {each.children[1]}) ended with exit code 1; its last line: no more"


def test_a_child_that_is_killed_is_named_with_the_signal(supervised):
    each = supervised()
    until(lambda: "here" in each.state.log("0").read_text())
    os.kill(each.children[0], signal.SIGKILL)
    until(each.all_gone)
    assert each.sentence == f"child 0 (pid {each.children[0]}) was killed by SIGKILL; its last line: here I am"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_killed_itself_it_leaves_no_orphan(supervised):
    each = supervised()
    os.kill(each.supervisor.pid, signal.SIGKILL)
    until(each.all_gone)


def test_it_ends_when_its_owner_is_gone(supervised):
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    each = supervised(owner_pid=owner.pid, owner_started=psutil.Process(owner.pid).create_time())
    time.sleep(0.3)
    assert alive(each.supervisor)
    owner.kill()
    owner.wait()
    until(each.all_gone)
    assert each.sentence == f"its owner (pid {owner.pid}) is gone"


def test_a_process_is_known_by_its_command_line_too():
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        until(lambda: psutil.Process(stranger.pid).cmdline()[1:2] == ["-c"])
        ours = Running("ours", stranger.pid, ["another", "command"])
        assert not alive(ours)
        end(ours, 0.1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
