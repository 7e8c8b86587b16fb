import os

import psutil
import pytest
from hypothesis import settings

# A busy machine is no failure: what a test checks is its answer, not its time.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def processes_of(home):
    """The live processes that were started with this SPLITPROOF_HOME: ours, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("SPLITPROOF_HOME") == str(home):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The models of a home, for homes that link to it: each is trained once a session, whoever asks first."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def left_over():
    """A function that lists what still runs of a home."""
    return processes_of
