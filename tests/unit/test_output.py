"""Strings of traced programs as text, and as JSON."""

import json

import pytest

from usdtkit.model import Truncated, TruncatedBytes
from usdtkit.output.text import decoded, hexdump, is_cut, jsonable, paragraph, printable, show


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("select 1", "select 1"),
        ("Zoë 東京 😀", "Zoë 東京 😀"),
        ("a\\b", "a\\b"),
        ("a\nb\tc\r", "a\\x0ab\\x09c\\x0d"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x7f\x9b2J", "\\x7f\\x9b2J"),
        ("invoice\u202efdp.exe", "invoice\\u202efdp.exe"),
        ("a\u200bb\u2028c\ufeff", "a\\u200bb\\u2028c\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        (b"caf\xe9".decode(errors="surrogateescape"), "caf\\xe9"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_could_steer_a_terminal_becomes_visible(hostile, shown):
    assert printable(hostile) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "?"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-1, "-1"),
        (2**64 - 1, "18446744073709551615"),
        (0.5, "0.5"),
        (float("nan"), "nan"),
        (b"\x00\xff", "00ff"),
        ("", ""),
        ("a\n", "a\\x0a"),
        (Truncated("sel"), "sel…"),
        (TruncatedBytes(b"\x01"), "01…"),
    ],
)
def test_values_in_a_table(value, shown):
    assert show(value) == shown


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        (None, None),
        (7, 7),
        (True, True),
        (0.5, 0.5),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        (float("nan"), "nan"),
        (b"\x00\xff", "00ff"),
        ("Zoë\n", "Zoë\n"),
        (b"caf\xe9".decode(errors="surrogateescape"), "caf\\xe9"),
    ],
)
def test_values_in_json(value, decoded):
    assert json.loads(json.dumps(jsonable(value), allow_nan=False)) == decoded


def test_what_was_cut_is_marked():
    assert is_cut(Truncated("a"))
    assert is_cut(TruncatedBytes(b"a"))
    assert not is_cut("a")
    assert not is_cut(None)


def test_content_below_a_row():
    assert hexdump(b"GET /\r\n\x1b[2J" + bytes(8)).splitlines() == [
        "",
        "  0000  47 45 54 20 2f 0d 0a 1b 5b 32 4a 00 00 00 00 00  GET /...[2J.....",
        "  0010  00 00 00                                         ...",
    ]
    assert paragraph(decoded(b"one\r\n\x1b[2J\xff")) == "\n  one\n  \\x1b[2J\\xff"
    assert paragraph(decoded(TruncatedBytes(b"half"))) == "\n  half\n  …"
    assert hexdump(None) == paragraph(decoded(None)) == "\n  ?"
    assert hexdump(b"") == paragraph("") == ""
