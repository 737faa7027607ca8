"""Whatever a traced program says, it neither steers the terminal nor breaks what reads our output."""

import csv
import io
import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from usdtkit.bpf.layout import Field, Layout
from usdtkit.output.sink import open_sink
from usdtkit.output.text import printable, show
from usdtkit.results import Column, Schema

BIDI = {"\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
# As the decoder of events makes them: any bytes, those that are no UTF-8 as lone surrogates.
hostile = st.binary(max_size=64).map(lambda data: data.decode(errors="surrogateescape")) | st.text(max_size=64)
values = hostile | st.binary(max_size=32) | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.booleans() | st.none()


def is_safe(text):
    return not any(
        character < " " or "\x7f" <= character <= "\x9f" or character in BIDI or unicodedata.category(character) == "Cs"
        for character in text
    )


def written(form, rows):
    """What a tool writes for rows of one string, one value of another argument."""
    output = io.StringIO()
    sink = open_sink(form, output)
    sink.begin(Schema("lab", [Column("name", "NAME", "text", 16), Column("value", "VALUE", "text")]))
    for name, value in rows:
        sink.row({"name": name, "value": value, "arguments": {"value": value}})
    return output.getvalue()


@given(hostile)
def test_nothing_that_steers_a_terminal_is_printed(text):
    shown = printable(text)
    assert is_safe(shown)
    assert shown.isprintable()
    shown.encode()  # no lone surrogate is left


@given(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=64))
def test_ordinary_text_stays_as_it_is(text):
    assert printable(text) == text


@given(values)
def test_every_value_is_one_safe_line(value):
    assert is_safe(show(value))


@given(st.lists(st.tuples(hostile, values), max_size=5))
def test_a_table_has_a_line_for_each_row(rows):
    text = written("table", rows)
    assert text.count("\n") == len(rows) + 1
    assert is_safe(text.replace("\n", ""))


@given(st.lists(st.tuples(hostile, values), max_size=5))
def test_json_stays_loadable_and_plain(rows):
    text = written("json", rows)
    assert text.isascii()
    assert is_safe(text.replace("\n", ""))
    _, *events = [json.loads(line, parse_constant=float.fromhex) for line in text.splitlines()]
    assert len(events) == len(rows)
    for (name, value), event in zip(rows, events, strict=True):
        assert isinstance(event["name"], str)
        if isinstance(value, (bool, int)):
            assert event["arguments"]["value"] == value
        if all(not "\ud800" <= character <= "\udfff" for character in name):
            assert event["name"] == name


@given(st.lists(st.tuples(hostile, values), max_size=5))
def test_csv_stays_readable_and_is_no_formula(rows):
    text = written("csv", rows)
    assert is_safe(text.replace("\n", ""))
    read = list(csv.DictReader(io.StringIO(text)))
    assert len(read) == len(rows)
    for (name, _), row in zip(rows, read, strict=True):
        assert row["name"].removeprefix("'") == printable(name).removeprefix("'")
        assert not row["name"].startswith(("=", "+", "-", "@"))


@given(st.binary(max_size=300), st.integers(1, 64), st.integers(-(2**31), 2**31 - 1), st.sampled_from(["str", "bytes"]))
def test_a_record_with_any_content_is_decoded(content, size, length, kind):
    """The kernel says how long a string is, the program what is in it: neither may surprise the decoder."""
    layout = Layout([Field("text", kind, size)])
    capacity = layout.fields[0].capacity
    payload = length.to_bytes(4, "little", signed=True) + content[:capacity].ljust(capacity, b"\0")
    (value,) = layout.decode(payload)
    assert value is None if length < 0 else len(value) <= size
    assert is_safe(show(value))
