"""Lines that C writes are those that Python writes of the same values, in every format."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usdtkit.model import Truncated
from usdtkit.output.clocks import UTC, Clock
from usdtkit.output.formats.csv import INNER as CSV_INNER
from usdtkit.output.formats.csv import PLAIN as CSV_PLAIN
from usdtkit.output.formats.csv import _cell
from usdtkit.output.formats.json import PLAIN as JSON_PLAIN
from usdtkit.output.formats.json import member
from usdtkit.output.lines import PRINTABLE, WHOLE, Cell, Lines
from usdtkit.output.text import show

hostile = st.binary(max_size=24).map(lambda data: data.decode(errors="surrogateescape")) | st.text(max_size=24)
texts = st.text(st.characters(min_codepoint=32, max_codepoint=127), max_size=24) | hostile | hostile.map(Truncated)
numbers = st.integers(-(2**63) - 1, 2**64) | st.sampled_from([0, 9, 10, -1, 10**18, -(10**18)])
values = texts | numbers | st.booleans() | st.none() | st.floats() | st.binary(max_size=8)
widths = st.integers(0, 12)


ODD = SimpleNamespace(second=lambda ns: None, digits=3)


class Row:
    """What has values by attributes, as an event has."""

    def __init__(self, values):
        self.__dict__.update(values)


def aligned(cells, widths, right):
    """The cells in columns. After one that is too long, the next ones move as little as possible."""
    line, edge = "", 0
    for cell, width, is_right in zip(cells, widths, right, strict=True):
        line, edge = f"{line} ", edge + 1 + width
        space = max(edge - len(line), 0)
        line += f"{cell:>{space}}" if is_right else f"{cell:<{space}}"
    return line[1:].rstrip(" ")


@given(st.lists(st.tuples(values, widths, st.booleans()), min_size=1, max_size=6))
def test_a_table(columns):
    row, widths, right = zip(*columns, strict=True)
    cells = [
        Cell(f"c{n}", None, show, " " if n else "", PRINTABLE, width=width, right=is_right, numbers=WHOLE)
        for n, (_, width, is_right) in enumerate(columns)
    ]
    row = {cell.name: value for cell, value in zip(cells, row, strict=True)}
    expected = aligned(map(show, row.values()), widths, right) + "\n"
    lines = Lines(cells, aligned=True)
    assert lines.text([row, Row(row)]) == expected * 2


@given(st.dictionaries(st.sampled_from("abc"), values, min_size=1))
def test_json(row):
    """One that has a dict, and one that has its values."""
    cells = [
        Cell(name, None, member(name), f'{", " if n else "{"}"{name}": ', JSON_PLAIN, quote='"', numbers=WHOLE)
        for n, name in enumerate(row)
    ]
    line = Lines(cells, "}\n").text([row])
    nested = Lines([Cell("d", None, member("d"), "", JSON_PLAIN, quote='"', numbers=WHOLE, nested=True)], "\n")
    assert line == nested.text([{"d": row}])
    assert line == member("d")(row) + "\n"
    json.loads(line)


@given(values)
def test_csv(value):
    cell = Cell("value", None, _cell, "", CSV_PLAIN, CSV_INNER, numbers=WHOLE)
    assert Lines([cell]).text([{"value": value}]) == f"{_cell(value)}\n"


@given(st.integers(-(2**62), 2**62), st.sampled_from([1e3, 1e6, 1e9]))
def test_durations(nanoseconds, unit):
    cell = Cell("value", None, show, numbers=unit)
    assert Lines([cell]).text([{"value": nanoseconds}]) == f"{nanoseconds / unit:.2f}\n"


@given(st.lists(st.integers(0, 3_000_000_000), min_size=1, max_size=20), st.integers(0, 9))
def test_times(times, digits):
    """Also where they go back to a second that was left."""
    clock = Clock(lambda second: f"[{second}]", digits)
    clock.second = lambda ns: (ns - (ns + 7) % 10**9, f"[{(ns + 7) // 10**9}].")
    expected = [f"[{(ns + 7) // 10**9}].{f'{(ns + 7) % 10**9:09}'[:digits]}\n" for ns in times]
    assert Lines([Cell("t", None, clock, clock=clock)]).text([{"t": ns} for ns in times]) == "".join(expected)
    assert [f"{clock(ns)}\n" for ns in times] == expected or digits == 0


def test_times_of_the_clock_grow_as_it_does():
    times = [*range(0, 5_000_000_000, 99_999_989)]
    shown = Lines([Cell("t", None, UTC, clock=UTC)]).text([{"t": ns} for ns in times]).split()
    assert shown == sorted(shown) and len({*shown}) == len(times)


def test_a_value_that_is_made():
    lines = Lines([Cell("a", lambda row: row["b"] * 2, show, plain=PRINTABLE, numbers=WHOLE)])
    assert lines.text([{"b": 4}, {"b": "x"}]) == "8\nxx\n"


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        (Cell("a", None, lambda value: 7), TypeError),
        (Cell("a", None, lambda value: 1 / 0), ZeroDivisionError),
        (Cell("a", None, lambda value: "\ud800"), UnicodeEncodeError),
        (Cell("a", lambda row: row.x, show), AttributeError),
        (Cell("b", None, show), KeyError),
        (Cell("a", None, show, clock=ODD), TypeError),
    ],
)
def test_an_error_comes_out(cell, error):
    lines = Lines([Cell("a", None, show, plain=PRINTABLE), cell])
    for _ in range(3):
        with pytest.raises(error):
            lines.text([{"a": 1}])


def test_many_and_long_lines():
    lines = Lines([Cell("a", None, show, plain=PRINTABLE, width=3, right=True, numbers=WHOLE)], aligned=True)
    rows = [{"a": "x" * (n % 997)} for n in range(9973)]
    assert lines.text(rows) == "".join(f"{row['a']:>3}".rstrip(" ") + "\n" for row in rows)
    assert lines.text([]) == ""
    with pytest.raises(TypeError):
        lines.text(({"a": 1},))


def test_a_row_may_leave_the_list_meanwhile():
    rows = [{"a": n} for n in range(97)]
    lines = Lines([Cell("a", lambda row: (rows.clear(), row["a"])[1], show, numbers=WHOLE)])
    assert lines.text(rows) == "0\n"
