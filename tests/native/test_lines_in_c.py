"""The C that writes the lines of rows: what it may do to memory, whatever the values are."""

from pathlib import Path

import pytest
from compiled import build, run_sanitised

PROPERTIES = Path(__file__).parents[1] / "property" / "test_lines.py"


@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_it_compiles_without_a_warning(tmp_path, level):
    build(tmp_path, "lines", level)


def test_its_properties_under_address_and_undefined_behaviour_sanitisers(tmp_path):
    run_sanitised(tmp_path, "lines", PROPERTIES)
