"""Every public name has a docstring, is shown by dir(), and stands in the reference, which is up to date."""

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "api_reference.py"
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def load_script():
    spec = importlib.util.spec_from_file_location("api_reference", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["api_reference"] = module
    spec.loader.exec_module(module)
    return module


script = load_script()
MODULES = script.public_modules()
NAMES = [(module, name) for module in MODULES for name in script.public_names(MODULES[module])]
PUBLIC = {value for module, name in NAMES if inspect.isclass(value := getattr(MODULES[module], name))}
DESCRIBED = [f"{module}.{name}" for module, name in NAMES]


def test_public_modules_are_found():
    assert {"usdtkit", "usdtkit.trace", "usdtkit.testing", "usdtkit.results", "usdtkit.instrument.asyncio"} <= {
        *MODULES
    }
    assert {"usdtkit.Provider", "usdtkit.trace.Session", "usdtkit.elf.Image"} <= {*DESCRIBED}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_docstring_and_shows_its_names(module):
    assert inspect.getdoc(MODULES[module])
    assert {*script.public_names(MODULES[module])} <= {*dir(MODULES[module])}


@pytest.mark.parametrize(("module", "name"), NAMES, ids=DESCRIBED)
def test_a_public_name_has_a_docstring(module, name):
    assert script.doc_of(MODULES[module], name)
    value = getattr(MODULES[module], name)
    if inspect.isclass(value):
        without = [member.name for member in script.members(value, PUBLIC) if not member.doc]
        assert not without


def test_public_names_stand_in_the_reference():
    parts = dict(re.findall(r"^## (usdtkit\S*)\n(.*?)(?=^## |\Z)", REFERENCE, re.M | re.S))
    missing = [f"{module}.{name}" for module, name in NAMES if f"\n### {name}\n" not in parts.get(module, "")]
    for module, name in NAMES:
        value = getattr(MODULES[module], name)
        entries = (
            [f"{name}.{member.name}" for member in script.members(value, PUBLIC)] if inspect.isclass(value) else []
        )
        missing += [entry for entry in entries if f"\n#### {entry}\n" not in parts.get(module, "")]
    assert not missing, "make docs/reference.md"


def test_the_reference_is_made_from_the_code():
    made = subprocess.run([sys.executable, SCRIPT], text=True, capture_output=True, check=True)
    assert made.stdout == REFERENCE, "make docs/reference.md"
