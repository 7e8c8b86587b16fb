"""The committed comparison with `istioctl analyze` is what istioctl says."""

import json

import pytest
from analyze import FOUND, findings
from plane import binaries

pytestmark = [pytest.mark.slow, pytest.mark.mesh]


def test_the_table_in_the_documentation_is_istioctls_own_words():
    if "istio" in {module.name for module in binaries.missing()}:
        pytest.skip("no istioctl here: `make mesh-programs` builds it")
    assert findings() == json.loads(FOUND.read_text())
