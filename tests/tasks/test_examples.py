"""The examples in docstrings are right."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["fingerprints", "layers", "make", "passages", "recipes", "shapes"])
def test_the_examples_hold(name: str) -> None:
    """Every example of the module gives what it says, and there is one."""
    outcome = doctest.testmod(importlib.import_module(f"ggufsteer.tasks.{name}"))
    assert outcome.attempted
    assert not outcome.failed
