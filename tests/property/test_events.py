"""Records decoded in C are what the Python decoder makes of the same bytes, whatever they hold."""

import struct
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usdtkit.bpf.actions import RECORD_HEADER, SIZES, TEXT_ROOMS
from usdtkit.bpf.layout import Field, Layout
from usdtkit.trace.events import Decoders

KINDS = ("u64", "i64", "bool", "f64", "str", "bytes")
fields = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 300)), min_size=1, max_size=6)


def program_of(wanted):
    described = [Field(f"field{index}", kind, size) for index, (kind, size) in enumerate(wanted)]
    layouts = [Layout(described, RECORD_HEADER, longest=room) for room in TEXT_ROOMS] + [
        Layout(described, RECORD_HEADER)
    ]
    return SimpleNamespace(records=dict(enumerate(layouts)))


def drained(*payloads):
    """A chunk as the ring's drain writes it."""
    chunk = b"".join(struct.pack("<II", len(p), 0) + p + bytes(-len(p) % 8) for p in payloads)
    return bytearray(chunk), len(chunk)


@given(fields, st.integers(0, SIZES - 1), st.data())
def test_c_and_python_agree(wanted, size, data):
    program = program_of(wanted)
    layout = program.records[size]
    body = data.draw(st.binary(min_size=layout.size - 24, max_size=layout.size - 24))
    # Random lengths are mostly absurd: let some be what they are in life.
    for offset, field, room in zip(layout.offsets, layout.fields, layout.rooms, strict=True):
        if field.is_text and data.draw(st.booleans()):
            length = struct.pack("<i", data.draw(st.integers(-14, room)))
            body = body[: offset - 24] + length + body[offset - 20 :]
    payload = struct.pack("<IIQII", size, 1, 2**63 + 5, 42, 2**32 - 1) + body
    chunk, end = drained(payload, payload)
    decoders = Decoders(program, 1, ["one:probe", "two:probe"])
    _, _, time_ns, pid, tid, *own = layout.decode(payload)
    expected = repr((time_ns, pid, tid, "two:probe", *own))  # repr: a NaN equals no NaN
    events = decoders.events(chunk, end)
    assert [repr(tuple(event)) for event in events] == [expected, expected]
    assert [type(value) for value in events[0]] == [type(value) for value in (time_ns, pid, tid, "", *own)]
    (columns,) = decoders.columns(chunk, end)
    assert len(columns) == 2 and list(columns)[:4] == ["time_ns", "pid", "tid", "probe"]
    as_rows = [tuple(columns[name][row] for name in columns) for row in range(2)]
    assert [repr(row) for row in as_rows] == [repr(tuple(int(v) if isinstance(v, bool) else v for v in events[0]))] * 2


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_decoded_and_nothing_else(garbage):
    decoders = Decoders(program_of([("u64", 8), ("str", 40)]), 1, ["a:probe"])
    for decode in (decoders.events, decoders.columns):
        try:
            decode(bytearray(garbage), len(garbage))
        except ValueError as error:
            assert "record" in str(error)


def test_a_record_that_is_cut_off():
    chunk, end = drained(struct.pack("<IIQIIQ", 0, 0, 1, 2, 3, 4))
    decoders = Decoders(program_of([("u64", 8)]), 1, ["a:probe"])
    assert decoders.events(chunk, end)[0].field0 == 4
    with pytest.raises(ValueError, match="cut off"):
        decoders.events(chunk, end - 8)
