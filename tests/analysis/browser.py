"""What `sh tests/browser/fetch.sh` brings, and Chromium; the tests that need them skip where they are not."""

import json
import os
import shutil
import subprocess

import pytest

from experiments.core.home import CHECKOUT

FOLDER = CHECKOUT / "tests" / "browser"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NODE = shutil.which("node")
PACKAGES = FOLDER / "node_modules"
JUNIT_SCHEMA = FOLDER / "junit-10.xsd"

installed = pytest.mark.skipif(
    not JUNIT_SCHEMA.exists(), reason="sh tests/browser/fetch.sh brings the schema by which Jenkins reads JUnit"
)
sees = pytest.mark.skipif(
    not (NODE and CHROMIUM and (PACKAGES / "axe-core").exists()),
    reason="needs node, Chromium, and once: sh tests/browser/fetch.sh",
)


def looked_at(pages, timeout=1500):
    """What `pages.mjs` found on each page in each look: errors, requests, violations, what is crooked."""
    done = subprocess.run(
        [NODE, FOLDER / "pages.mjs", *pages], env={**os.environ, "CHROMIUM": CHROMIUM},
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
