"""Records decoded in C are what the Python decoder makes of the same bytes, whatever they hold."""

import copy
import itertools
import pickle
import struct
import tracemalloc
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usdtkit.bpf.layout import Field, Layout
from usdtkit.bpf.statements import RECORD_HEADER, SIZES, TEXT_CAPACITIES
from usdtkit.model import Truncated
from usdtkit.trace.events import Decoders, Event

NUMBER = struct.pack("<IIQIIQ", 0, 0, 1, 2, 3, 4)
texts = st.tuples(st.sampled_from(("str", "bytes")), st.integers(1, 300))
numbers = st.tuples(st.sampled_from(("u64", "i64", "bool", "f64")), st.just(8), st.just(()), st.booleans())
fields = st.lists(texts | numbers, min_size=1, max_size=6)


def program_of(wanted):
    """A program that sends fields of these kinds and sizes; of a number also its names, and whether it is optional."""
    described = [Field(f"field{index}", *described) for index, described in enumerate(wanted)]
    layouts = [Layout(described, RECORD_HEADER, longest=capacity) for capacity in TEXT_CAPACITIES] + [
        Layout(described, RECORD_HEADER)
    ]
    return SimpleNamespace(records=dict(enumerate(layouts)))


def ring_of(*payloads, flags=0):
    """(the memory of a ring, its size), as the kernel writes it."""
    memory = b"".join(struct.pack("<II", len(p) | flags, 0) + p + bytes(-len(p) % 8) for p in payloads)
    return bytearray(memory), len(memory)


@given(fields, st.integers(0, SIZES - 1), st.data())
def test_c_and_python_agree(wanted, size, data):
    program = program_of(wanted)
    layout = program.records[size]
    body = data.draw(st.binary(min_size=layout.size - 24, max_size=layout.size - 24))
    # Random lengths are mostly absurd: let some be what they are in life.
    for offset, field, capacity in zip(layout.offsets, layout.fields, layout.capacities, strict=True):
        if field.is_text and data.draw(st.booleans()):
            length = struct.pack("<i", data.draw(st.integers(-14, capacity)))
            body = body[: offset - 24] + length + body[offset - 20 :]
    payload = struct.pack("<IIQII", size, 1, 2**63 + 5, 42, 2**32 - 1) + body
    memory, whole = ring_of(payload, payload)
    decoders = Decoders(program, [None], {0: "one:probe", 1: "two:probe"}, {})
    _, _, time_ns, pid, tid, *own = layout.decode(payload)
    expected = repr((time_ns, pid, tid, "two:probe", *own))  # repr: a NaN equals no NaN
    events, taken = decoders.events(memory, whole)
    assert taken == whole
    assert [repr(tuple(event)) for event in events] == [expected, expected]
    assert [type(value) for value in events[0]] == [type(value) for value in (time_ns, pid, tid, "", *own)]
    (columns,), taken = decoders.columns(memory, whole)
    assert taken == whole
    assert len(columns) == 2 and list(columns)[:4] == ["time_ns", "pid", "tid", "probe"]
    as_rows = [tuple(columns[name][row] for name in columns) for row in range(2)]
    # A column has numbers only: booleans are 0 and 1 there, and a number that is None is 0.
    described = [(None,)] * 4 + list(wanted)
    row = [
        (0.0 if kind == "f64" else 0) if value is None and kind not in ("str", "bytes", None) else value
        for value, (kind, *_) in zip(events[0], described, strict=True)
    ]
    assert [repr(row) for row in as_rows] == [repr(tuple(int(v) if isinstance(v, bool) else v for v in row))] * 2


def test_texts_are_made_when_they_are_asked_for():
    """Ten times as many bytes of text as the first record hints at, and every kind of them."""
    long = [b"a" * length for length in (0, 1, 28, 124, 240)]
    payloads = [struct.pack("<IIQIIi28s", 0, 0, 1, 2, 3, length, b"ada\0") for length in (4, -14)]
    payloads += [struct.pack("<IIQIIi252s", 2, 0, 1, 2, 3, 252, text) for text in 20 * [*long, b"\xff", b"b" * 252]]
    memory, size = ring_of(*payloads)
    (columns,), _ = Decoders(program_of([("str", 244)]), [None], {0: "a:probe"}, {}).columns(memory, size)
    texts = columns["field0"]
    expected = ["ada", None, *20 * [*(text.decode() for text in long), "\udcff", "b" * 244]]
    assert (len(texts), list(texts), texts[-1], texts[1:-1:3]) == (142, expected, expected[-1], expected[1:-1:3])
    assert [isinstance(text, Truncated) for text in texts] == [mark == 1 for mark in texts.marks]
    assert [number for number, text in enumerate(texts) if text is None] == [texts.marks.index(2)] == [1]
    ends = list(texts.offsets)
    cut = [texts.data[start:end] for start, end in itertools.pairwise(ends)]
    assert cut == [(text or "").encode(errors="surrogateescape") for text in expected]
    assert len(texts.data) == ends[-1]
    for index in (142, -143):
        with pytest.raises(IndexError):
            texts[index]
    with pytest.raises(TypeError):
        texts["a"]


def test_more_records_than_are_taken_at_a_time_in_columns():
    """Of three sizes and two types, one in the other."""
    wanted = SimpleNamespace(records=program_of([("u64", 8), ("str", 200)]).records)
    wanted.records |= {kind + SIZES: layout for kind, layout in program_of([("bytes", 200)]).records.items()}
    decoders = Decoders(wanted, [None, None], {0: "a:probe", 1: "b:probe"}, {})
    bodies = {kind: b"%d" % kind + bytes(layout.size - 24 - 1) for kind, layout in wanted.records.items()}
    kinds = [number * number % 7 % 6 for number in range(997)]
    memory, size = ring_of(
        *(struct.pack("<IIQII", kind, kind % 2, row, row % 97, row) + bodies[kind] for row, kind in enumerate(kinds))
    )
    events, _ = decoders.events(memory, size)
    tables, taken = decoders.columns(memory, size)
    assert taken == size and [len(columns) for columns in tables] == [
        sum(k < 3 for k in kinds),
        sum(k > 2 for k in kinds),
    ]
    for columns in tables:
        same = [tuple(event) for event in events if event._fields == tuple(columns)]
        assert list(zip(*(columns[name] for name in columns), strict=True)) == same


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_decoded_and_nothing_else(garbage):
    decoders = Decoders(program_of([("u64", 8), ("str", 40)]), [None], {0: "a:probe"}, {})
    for decode in (decoders.events, decoders.columns):
        try:
            decode(bytearray(garbage), len(garbage))
        except ValueError as error:
            assert "record" in str(error)


def test_a_record_that_is_cut_off():
    memory, size = ring_of(NUMBER)
    decoders = Decoders(program_of([("u64", 8)]), [None], {0: "a:probe"}, {})
    assert decoders.events(memory, size)[0][0].field0 == 4
    with pytest.raises(ValueError, match="cut off"):
        decoders.events(memory[:-8], size)


def test_records_that_are_discarded_or_not_yet_there():
    good, size = ring_of(NUMBER)
    discarded, _ = ring_of(NUMBER, flags=1 << 30)
    busy, _ = ring_of(NUMBER, flags=1 << 31)
    decoders = Decoders(program_of([("u64", 8)]), [None], {0: "a:probe"}, {})
    for decode in (decoders.events, lambda *memory: (decoders.columns(*memory)[0][0], decoders.columns(*memory)[1])):
        found, taken = decode(discarded + good + busy + good, 1 << 20)
        assert (len(found), taken) == (1, 2 * size)
        found, taken = decode(good * 5, 2 * size + 1)
        assert (len(found), taken) == (3, 3 * size)


def test_an_event_is_read_as_a_tuple_and_never_changes():
    decoders = Decoders(program_of([("u64", 8), ("str", 40)]), [None], {0: "a:probe"}, {})
    memory, size = ring_of(struct.pack("<IIQIIQi28s", 0, 0, 1, 2, 3, 4, 4, b"ada"))
    [event], _ = decoders.events(memory, size)
    assert event._fields == ("time_ns", "pid", "tid", "probe", "field0", "field1")
    assert event._asdict() == dict(zip(event._fields, event, strict=True))
    assert event == (1, 2, 3, "a:probe", 4, "ada") == tuple(event) and len(event) == 6
    assert (event[-1], event[4:], hash(event)) == ("ada", (4, "ada"), hash(tuple(event)))
    match event:
        case Event(field0=number, field1="ada"):
            assert number == 4
    for copied in (pickle.loads(pickle.dumps(event)), copy.deepcopy(event)):
        assert copied == event and type(copied) is type(event)
    with pytest.raises(AttributeError):
        event.field0 = 5
    for kind in (Event, type(event)):
        with pytest.raises(TypeError):
            kind()


def test_events_are_freed():
    decoders = Decoders(program_of([("u64", 8), ("str", 40)]), [None], {0: "a:probe"}, {})
    texts = [f"text {number}" for number in range(997)]
    memory, size = ring_of(*(struct.pack("<IIQIIQi28s", 0, 0, 1, 2, 3, 4, 28, text.encode()) for text in texts))

    def held():
        events, _ = decoders.events(memory, size)
        (columns,), _ = decoders.columns(memory, size)
        assert [event.field1 for event in events] == list(columns["field1"]) == texts

    held()
    tracemalloc.start()
    try:
        held()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(20):
            held()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()
