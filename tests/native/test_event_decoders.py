"""The C that makes events and columns of records: what it may do to memory, whatever the records hold."""

from pathlib import Path

import pytest
from compiled import build, run_sanitised

PROPERTIES = Path(__file__).parents[1] / "property" / "test_events.py"


@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_it_compiles_without_a_warning(tmp_path, level):
    build(tmp_path, "events", level)


def test_its_properties_under_address_and_undefined_behaviour_sanitisers(tmp_path):
    run_sanitised(tmp_path, "events", PROPERTIES)
