"""The process that answers for a pod: its command line, and its name."""

import shutil
import sys

from deploy.embedded.faults import Faults
from deploy.embedded.state import Child, StateDir
from deploy.model_info import ModelInfo
from experiments.core.spec import Experiment

TENSORFLOW_SERVING = "tensorflow_model_server"
"""TensorFlow Serving's own binary; used where it is on the PATH."""


def own_server() -> str | None:
    """The path of TensorFlow Serving's own binary, if there is one on the PATH."""
    return shutil.which(TENSORFLOW_SERVING)


def process_name(arm: str) -> str:
    """What people read of the process that serves an arm."""
    return f"serving of {arm}"


def child(experiment: Experiment, state: StateDir, model: ModelInfo, faults: Faults, arm: str, port: int) -> Child:
    """The serving process of an arm: TensorFlow Serving's own where it is there, ours elsewhere.

    Where any arm is to be broken all are ours: two kinds of server could not be compared.
    """
    binary = own_server()
    if binary and not (faults.slowdown or faults.failure_rate):
        command = [
            binary, "--port=0", f"--rest_api_port={port}", f"--model_name={experiment.model}",
            f"--model_base_path={model.base_path}", "--file_system_poll_wait_seconds=0",
        ]  # fmt: skip
    else:
        command = [
            sys.executable, "-m", "deploy.embedded.serving", "--model-name", experiment.model,
            "--model-base-path", str(model.base_path), "--rest-port", str(port), *fault_options(faults, arm),
        ]  # fmt: skip
    return Child(process_name(arm), command, str(state.log(f"serving-{arm}")))


def fault_options(faults: Faults, arm: str) -> list[str]:
    """What makes our serving process break as an arm is told to."""
    found = []
    if arm in faults.slowdown:
        found += ["--slowdown", str(faults.slowdown[arm])]
    if arm in faults.failure_rate:
        found += ["--failure-rate", str(faults.failure_rate[arm])]
    return found
