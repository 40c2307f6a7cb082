"""The examples in public docstrings run and give what they show."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("configuration_bit", "modeling_bit", "processing_bit", "bit_speech", "datasets_scripts")
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
    # The metrics are scripts that `evaluate` loads, and have tests of their own.
    if ">>>" in path.read_text(encoding="utf-8") and "metrics" not in path.parts
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name):
    found = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert found.attempted and not found.failed
