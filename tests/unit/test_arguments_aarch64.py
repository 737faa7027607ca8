import pytest

from usdtkit.elf.arguments import parse
from usdtkit.model import Operand


def one(text):
    operands = parse(text, "aarch64", site_address=0x1000, resolve_symbol={}.get)
    assert len(operands) == 1
    return operands[0]


@pytest.mark.parametrize(
    ("text", "size", "signed", "base"),
    [
        ("8@x0", 8, False, "x0"),
        ("-4@w19", 4, True, "x19"),
        ("-4@x19", 4, True, "x19"),
        ("8@w3", 4, False, "x3"),
        ("8@sp", 8, False, "sp"),
        ("8@x30", 8, False, "x30"),
        ("8@lr", 8, False, "x30"),
        ("1@w2", 1, False, "x2"),
        ("x7", 8, False, "x7"),
    ],
)
def test_registers(text, size, signed, base):
    assert one(text) == Operand(text, "register", size=size, signed=signed, base=base)


@pytest.mark.parametrize(
    ("text", "size", "signed", "value"),
    [
        ("8@xzr", 8, False, 0),
        ("-4@wzr", 4, True, 0),
        ("-4@997", 4, True, 997),
        ("-4@-1", 4, True, -1),
        ("8@-1", 8, False, 2**64 - 1),
        ("8@#16", 8, False, 16),
        ("8@0x10", 8, False, 16),
    ],
)
def test_constants(text, size, signed, value):
    assert one(text) == Operand(text, "constant", size=size, signed=signed, value=value)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("8@[x0]", {"base": "x0"}),
        ("8@[sp, 8]", {"base": "sp", "value": 8}),
        ("8@[sp,#-16]", {"base": "sp", "value": -16}),
        ("8@[x29, 24]", {"base": "x29", "value": 24}),
        ("8@[x0, x1]", {"base": "x0", "index": "x1"}),
        ("8@[x0, x1, lsl 3]", {"base": "x0", "index": "x1", "scale": 8}),
        ("8@[x0, x1, lsl #2]", {"base": "x0", "index": "x1", "scale": 4}),
    ],
)
def test_memory(text, fields):
    assert one(text) == Operand(text, "memory", **fields)


@pytest.mark.parametrize(
    "text",
    [
        "8@d0",
        "4@s31",
        "8@v3.d[0]",
        "8@x31",
        "8@[w0]",
        "8@[x0, w1, sxtw 3]",
        "8@[x0, 8]!",
        "8@[x0, :lo12:name]",
        "8@[d0]",
        "8@",
    ],
)
def test_what_cannot_be_read_says_why(text):
    operand = one(text)
    assert operand.kind == "unreadable"
    assert operand.reason


def test_brackets_keep_an_operand_together():
    operands = parse("-4@[sp, 12] 8@[x0, x1, lsl 3] 8@x2", "aarch64", site_address=0, resolve_symbol={}.get)
    assert [operand.text for operand in operands] == ["-4@[sp, 12]", "8@[x0, x1, lsl 3]", "8@x2"]
