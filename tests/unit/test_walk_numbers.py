"""What the texts of the walk in the kernel and user space must agree about: numbers, and the members of structures."""

import re
from pathlib import Path

import pytest

from usdtkit._ffi import lib
from usdtkit.bpf.sources import text_of
from usdtkit.signatures import cpython, cruby, zend
from usdtkit.trace import stacks
from usdtkit.unwind import codeobjects, mapped, pythons, store, tables
from usdtkit.unwind import cpython as builds

NATIVE = Path(__file__).parents[2] / "native" / "unwind.h"


def defined(name, prefix=""):
    """The numbers that a text defines, by their names without a prefix."""
    found = re.findall(rf"^#define {prefix}(\w+) (0x[0-9a-f]+|\d+)\b", text_of(name), re.M)
    return {name: int(number, 0) for name, number in found}


def members(name, structure):
    """The members of a structure of u32."""
    [body] = re.findall(rf"struct {structure} {{(.*?)}};", text_of(name), re.S)
    return tuple(re.findall(r"\w+", body.replace("u32", "")))


def assert_same(numbers, module, at_least):
    """Those that a module has under the same names are the same, and there are so many."""
    same = {name: number for name, number in numbers.items() if hasattr(module, name)}
    assert same == {name: getattr(module, name) for name in same}
    assert len(same) >= at_least, numbers


def test_rows():
    kinds, saved = defined("unwind.c", "FRAME_"), defined("unwind.c", "SAVED_")
    assert kinds == {name: getattr(tables, name) for name in kinds} and len(kinds) == tables.R11 + 1
    of_table = {"FP": tables.SAVED_FP, "AT_FP": tables.SAVED_AT_FP, "LOST": tables.LOST}
    of_table |= {name: getattr(tables, f"SAVED_{name}") for name in ("PAIR", "PAIR_HIGH", "RA", "RA_HIGH")}
    assert saved == of_table
    native = NATIVE.read_text()
    named = {name: int(number) for name, number in re.findall(r"USDTKIT_FRAME_(\w+) = (\d+)", native)}
    assert named == kinds | {"OTHER": tables.OTHER}
    named = {name: int(number) for name, number in re.findall(r"USDTKIT_SAVED_(\w+) = (\d+)", native)}
    assert named == saved | {"NOT": tables.NOT_SAVED}


def test_maps():
    numbers = defined("unwind.c")
    assert numbers["ROWS"] == store.CHUNK_ROWS
    assert numbers["PAGES"] == store.MOST_PAGES
    assert numbers["MAPPINGS"] == mapped.MOST_MAPPINGS
    assert 1 << numbers["MOST_STEPS"] == lib.USDTKIT_PAGE_MOST


def test_records():
    ends = defined("walk.h", "END_")
    assert sorted(ends.values()) == list(range(len(stacks.ENDS)))
    assert defined("walk.h")["STACK_DEPTH"] + 1 == stacks._ADDRESSES.size // 8


def test_python():
    numbers = defined("pythonframes.c")
    assert_same(numbers, cpython, 3)
    assert (numbers["LONGEST_NAME"], numbers["LONGEST_FILE"], numbers["MANY_LINES"]) == (
        codeobjects.LONGEST_NAME,
        codeobjects.LONGEST_FILE,
        codeobjects.LONGEST_LINES,
    )
    assert (numbers["BYTES_SIZE"], numbers["BYTES_DATA"]) == (pythons._BYTES_SIZE, pythons._BYTES_DATA)
    assert members("pythonframes.c", "python_layout") == cpython.Layout._fields
    assert len(builds.packed(cpython.LAYOUTS[3, 11])) == 4 * len(cpython.Layout._fields)


@pytest.mark.parametrize(
    ("name", "prefix", "module", "at_least"), [("phpframes.c", "PHP_", zend, 9), ("rubyframes.c", "RUBY_", cruby, 8)]
)
def test_other_languages(name, prefix, module, at_least):
    assert_same({name: n for name, n in defined(name, prefix).items() if name != "BODY_SIZE"}, module, at_least)


def test_members_of_ruby():
    assert members("rubyframes.c", "ruby_layout") == cruby.Layout._fields
