"""What `istioctl analyze` finds in the files that `deploy lint` finds fault with: `python tests/mesh/analyze.py`.

Writes docs/reference/istioctl-analyze.json, from which the table in docs/reference/lint.md is made. It needs istioctl
from the cache of the mesh's programs, and no cluster: both look at the same files and at nothing else.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from plane import binaries

from deploy.lint.examples import EXAMPLES, sound
from deploy.manifests import render
from experiments.core.home import CHECKOUT

FOUND = CHECKOUT / "docs" / "reference" / "istioctl-analyze.json"


def analyzed(objects: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """The codes and sentences of `istioctl analyze` about these objects, in the namespace of the experiment."""
    file = folder / "objects.yaml"
    file.write_text(render(objects))
    arguments = ["analyze", "--use-kube=false", "-n", "tf-serving", "-o", "json", str(file)]
    environment = {"HOME": str(folder), "KUBECONFIG": str(folder / "none")}
    done = subprocess.run(
        [str(binaries.paths()["istioctl"]), *arguments],
        capture_output=True, text=True, env=environment, check=False, timeout=60,
    )  # fmt: skip
    # Without a finding it prints a sentence, and no JSON.
    messages = json.loads(done.stdout) if done.stdout.startswith("[") else []
    if not messages and "No validation issues found" not in done.stdout + done.stderr:
        raise RuntimeError(done.stdout + done.stderr)
    return [f"{each['code']} {each['message']}" for each in messages]


def findings() -> Mapping[str, list[str]]:
    """By code of ours, what istioctl says of our example that it does not say of the sound stack."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor() as pool:
        folders = [Path(name) / code for code in EXAMPLES]
        for folder in folders:
            folder.mkdir()
        usual = analyzed(sound(), Path(name))
        found = pool.map(lambda example, folder: analyzed(example(), folder), EXAMPLES.values(), folders)
        return {code: [each for each in told if each not in usual] for code, told in zip(EXAMPLES, found, strict=True)}


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    FOUND.write_text(json.dumps(findings(), indent=2) + "\n")
    click.echo(FOUND)
