"""Records: one description gives the C struct and the decoder."""

import struct

import pytest

from usdtkit.bpf.layout import Field, Layout
from usdtkit.model import Truncated, TruncatedBytes


def text(size, length, data):
    field = Field("text", "str", size)
    return Layout([field]).decode(struct.pack(f"<i{field.capacity}s", length, data))[0]


def data(size, length, content):
    field = Field("data", "bytes", size)
    return Layout([field]).decode(struct.pack(f"<i{field.capacity}s", length, content))[0]


def test_the_struct_in_c():
    layout = Layout(
        [Field("n", "i64"), Field("t", "str", 8), Field("b", "bool")], header=(("kind", "u32"), ("at", "u32"))
    )
    assert layout.c_struct("record") == (
        "struct record { u32 kind; u32 at; s64 f0; s32 f1_length; char f1[12]; u64 f2; };"
    )
    assert layout.size == 8 + 8 + 16 + 8


def test_numbers():
    layout = Layout(
        [Field("u", "u64"), Field("i", "i64"), Field("b", "bool"), Field("f", "f64")], header=(("k", "u32"),)
    )
    assert layout.decode(struct.pack("<IQqQd", 3, 2**64 - 1, -1, 1, 0.5)) == (3, 2**64 - 1, -1, True, 0.5)
    assert layout.decode(struct.pack("<IQqQd", 3, 0, 0, 0, 0))[3] is False


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 4096])
def test_every_text_leaves_the_next_field_aligned(size):
    field = Field("t", "str", size)
    assert (field.capacity + 4) % 8 == 0
    assert field.capacity >= size + 2


def test_a_text_ends_at_its_nul():
    assert text(8, 4, b"ada\0junk") == "ada"
    assert not isinstance(text(8, 9, b"12345678\0"), Truncated)


def test_a_text_with_one_byte_too_many_was_cut():
    cut = text(8, 10, b"123456789\0")
    assert (cut, type(cut)) == ("12345678", Truncated)


@pytest.mark.parametrize("length", [-14, -1, -(2**31)])
def test_what_could_not_be_read_is_none(length):
    assert text(8, length, b"old bytes") is None
    assert data(8, length, b"old bytes") is None


def test_an_empty_text_of_either_kernel():
    assert text(8, 0, b"junk") == text(8, 1, b"\0junk") == ""


def test_bytes_keep_their_nuls_and_their_length():
    assert data(8, 5, b"a\0b\0cXYZ") == b"a\0b\0c"
    cut = data(8, 9, b"12345678")
    assert (cut, type(cut)) == (b"12345678", TruncatedBytes)
    assert data(8, 2**31 - 1, b"12345678") == b"12345678"
    assert type(data(8, 8, b"12345678")) is bytes


def test_bytes_that_are_no_utf_8_survive():
    assert text(8, 5, b"caf\xe9\0").encode(errors="surrogateescape") == b"caf\xe9"
    # cut in the middle of a character
    assert text(3, 5, "caf\xe9".encode()[:4] + b"\0") == "caf"


def test_several_texts_in_one_record():
    fields = [
        Field("a", "str", 3),
        Field("n", "u64"),
        Field("b", "bytes", 3),
        Field("yes", "bool"),
        Field("c", "str", 3),
    ]
    payload = struct.pack("<i12sQi12sQi12s", 3, b"ab\0", 7, 2, b"\0\1", 1, -14, b"")
    assert Layout(fields).decode(payload) == ("ab", 7, b"\0\1", True, None)
