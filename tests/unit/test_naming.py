"""What tells functions of one name apart, so that each of the names means one of them."""

import time

import pytest

from usdtkit.model import Function
from usdtkit.naming import apart, exact, is_the_one, qualified


def function(address, version="", name="f", **more):
    return Function("/lib/x", name, address, 0, address, version=version, **more)


@pytest.mark.parametrize(
    ("functions", "patterns", "names"),
    [
        ([function(16)], ["f"], ["f"]),
        ([function(16), function(16)], ["f"], ["f", "f"]),
        ([function(16, "V_1"), function(32, "V_2")], ["f"], ["f@V_1", "f@V_2"]),
        ([function(16, "V_1"), function(32)], ["f"], ["f@V_1", "f@0x20"]),
        ([function(16, "V_1"), function(32, "V_1")], ["f"], ["f@0x10", "f@0x20"]),
        # That is no word in the language.
        ([function(16, "V-1"), function(32, "1.0")], ["f"], ["f@0x10", "f@0x20"]),
        ([function(16, "V_1")], ["f@V_1"], ["f@V_1"]),
        ([function(16, "V_1")], ["f@0x10"], ["f@0x10"]),
        ([function(16, "V_1"), function(32, "V_1")], ["f@V_1"], ["f@0x10", "f@0x20"]),
    ],
)
def test_each_name_means_one(functions, patterns, names):
    found = apart(functions, [each.name for each in functions], patterns)
    assert found == names
    for each, name in zip(functions, found, strict=True):
        if (asked := qualified(exact(name))) is not None:
            assert {other.address for other in functions if is_the_one(other, asked[1])} == {each.address}


def test_the_version_that_programs_are_linked_to():
    functions = [function(16, "V_1", superseded=True), function(32, "V_2")]
    assert apart(functions, ["f", "f"], ["f"], current=True) == ["f@V_1", "f"]
    functions.append(function(48, "V_3"))
    assert apart(functions, ["f"] * 3, ["f"], current=True) == ["f@V_1", "f@V_2", "f@V_3"]


def test_many_of_one_name():
    functions = [function(address) for address in range(1, 30_000)]
    begun = time.process_time()
    names = apart(functions, ["f"] * len(functions), ["f"], current=True)
    assert len(set(names)) == len(functions)
    assert time.process_time() - begun < 5
