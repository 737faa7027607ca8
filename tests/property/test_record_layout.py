"""Any record: what is packed as a C compiler packs the struct comes back."""

import re
import struct

from hypothesis import given
from hypothesis import strategies as st

from usdtkit.bpf.layout import Field, Layout
from usdtkit.model import Truncated, TruncatedBytes

NUMBERS = {
    "u64": st.integers(0, 2**64 - 1),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "f64": st.floats(allow_nan=False),
}
CODES = {"u32": "I", "u64": "Q", "s64": "q", "s32": "i"}


@st.composite
def fields_and_values(draw):
    fields, values = [], []
    for kind in draw(st.lists(st.sampled_from(["u64", "i64", "bool", "f64", "str", "bytes"]), max_size=9)):
        size = draw(st.integers(1, 40)) if kind in ("str", "bytes") else 8
        fields.append(Field(f"n{len(fields)}", kind, size))
        values.append(draw(NUMBERS.get(kind, st.none() | st.binary(max_size=60))))
    return fields, values


def member(field, value):
    """The parts of a member as the program writes them."""
    if field.kind in NUMBERS:
        return [value if field.kind != "f64" else struct.unpack("<Q", struct.pack("<d", value))[0]]
    if value is None:
        return [-14, b"\xaa" * field.capacity]
    if field.kind == "bytes":
        return [len(value), value[: field.size].ljust(field.capacity, b"\xaa")]
    read = value.partition(b"\0")[0][: field.size + 1] + b"\0"
    return [len(read), read.ljust(field.capacity, b"\xaa")]


def seen(field, value):
    if field.kind in NUMBERS or value is None:
        return value
    if field.kind == "bytes":
        return TruncatedBytes(value[: field.size]) if len(value) > field.size else value
    content = value.partition(b"\0")[0]
    kind = Truncated if len(content) > field.size else str
    return kind(content[: field.size].decode(errors="surrogateescape"))


@given(fields_and_values())
def test_a_record_comes_back(given_record):
    fields, values = given_record
    layout = Layout(fields, header=(("kind", "u32"), ("probe", "u32"), ("time", "u64")))
    # The struct's own declaration says how it lies in memory: native alignment, as in C.
    members = re.findall(r"(\w+) \w+(?:\[(\d+)\])?;", layout.c_struct("r").partition("{")[2])
    code = "".join(f"{size}s" if size else CODES[type] for type, size in members)
    parts = [part for field, value in zip(fields, values, strict=True) for part in member(field, value)]
    payload = struct.pack(f"@{code}0Q", 1, 2, 3, *parts)
    assert len(payload) == layout.size
    decoded = layout.decode(memoryview(payload + b"more"))
    expected = (1, 2, 3, *(seen(field, value) for field, value in zip(fields, values, strict=True)))
    assert decoded == expected
    assert [type(value) for value in decoded] == [type(value) for value in expected]
