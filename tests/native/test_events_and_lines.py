"""The C that makes events and columns of records, and lines of rows: what it may do to memory, whatever is in them."""

from pathlib import Path

import pytest
from compiled import build, run_sanitised

PROPERTIES = Path(__file__).parents[1] / "property"

pytestmark = pytest.mark.parametrize("module", ["events", "lines"])


@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_it_compiles_without_a_warning(tmp_path, module, level):
    build(tmp_path, module, level)


def test_its_properties_under_address_and_undefined_behaviour_sanitisers(tmp_path, module):
    run_sanitised(tmp_path, module, PROPERTIES / f"test_{module}.py")
