"""The examples in docstrings are run: a figure in one is a figure that came out."""

import doctest
import importlib
import pkgutil

import pytest

import analysis
import experiments.core

# Modules that load heavy or patching libraries when imported (Locust, TensorFlow) have no examples.
MODULES = sorted(
    module.name
    for package in (analysis, experiments.core)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0
