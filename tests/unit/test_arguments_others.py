"""The grammars of i386, arm, ppc64le, s390x, riscv64 and loongarch64; x86-64 and aarch64 have files of their own."""

import pytest

from usdtkit.elf.arguments import parse, split
from usdtkit.model import Operand

SYMBOLS = {"counter": 0x5000, "_GLOBAL_OFFSET_TABLE_": 0x4000}


def one(machine, text):
    (operand,) = parse(text, machine, site_address=0x1000, resolve_symbol=SYMBOLS.get)
    return operand


@pytest.mark.parametrize(
    ("machine", "text", "size", "base"),
    [
        ("i386", "4@%eax", 4, "eax"),
        ("i386", "-2@%si", 2, "esi"),
        ("i386", "1@%bl", 1, "ebx"),
        ("i386", "-1@%edi", 1, "edi"),
        ("arm", "4@r0", 4, "r0"),
        ("arm", "-4@fp", 4, "r11"),
        ("arm", "2@lr", 2, "r14"),
        ("ppc64le", "8@3", 8, "r3"),
        ("ppc64le", "-4@%r31", 4, "r31"),
        ("ppc64le", "1@r9", 1, "r9"),
        ("ppc64le", "8@0", 8, "r0"),
        ("s390x", "8@%r2", 8, "r2"),
        ("s390x", "-1@%r0", 1, "r0"),
        ("riscv64", "8@a0", 8, "a0"),
        ("riscv64", "-4@x10", 4, "a0"),
        ("riscv64", "8@fp", 8, "s0"),
        ("riscv64", "8@x31", 8, "t6"),
        ("loongarch64", "8@$r4", 8, "r4"),
        ("loongarch64", "-4@$a0", 4, "r4"),
        ("loongarch64", "8@$sp", 8, "r3"),
        ("loongarch64", "8@$s8", 8, "r31"),
    ],
)
def test_registers(machine, text, size, base):
    assert one(machine, text) == Operand(text, "register", size=size, signed="-" in text, base=base)


@pytest.mark.parametrize(
    ("machine", "text", "size", "value"),
    [
        ("i386", "-4@$-997", 4, -997),
        ("i386", "8@$-1", 8, 2**64 - 1),
        ("arm", "-4@#-997", 4, -997),
        ("ppc64le", "-4@i-997", 4, -997),
        ("ppc64le", "8@i31", 8, 31),
        ("s390x", "-4@-997", 4, -997),
        ("s390x", "8@7", 8, 7),
        ("riscv64", "-4@-997", 4, -997),
        ("riscv64", "8@zero", 8, 0),
        ("loongarch64", "-4@-997", 4, -997),
        ("loongarch64", "4@$zero", 4, 0),
    ],
)
def test_constants(machine, text, size, value):
    assert one(machine, text) == Operand(text, "constant", size=size, signed=text[0] == "-", value=value)


@pytest.mark.parametrize(
    ("machine", "text", "fields"),
    [
        ("i386", "8@-16(%ebp)", {"base": "ebp", "value": -16}),
        ("i386", "8@(%eax,%ecx,4)", {"base": "eax", "index": "ecx", "scale": 4}),
        ("i386", "8@counter", {"base": "eip", "value": 0x4000}),
        ("i386", "8@counter+4(,%eax,8)", {"index": "eax", "scale": 8, "value": 0x5004}),
        ("i386", "8@counter@GOTOFF(%ebx)", {"base": "ebx", "value": 0x1000}),
        ("i386", "8@12+counter@GOTOFF(%ebx,%eax)", {"base": "ebx", "index": "eax", "value": 0x100C}),
        ("i386", "8@134520832", {"value": 134520832}),
        ("arm", "8@[r3]", {"base": "r3"}),
        ("arm", "8@[fp, #-8]", {"base": "r11", "value": -8}),
        ("arm", "8@[r3, r2, lsl #2]", {"base": "r3", "index": "r2", "scale": 4}),
        ("arm", "8@[r3, ip]", {"base": "r3", "index": "r12"}),
        ("ppc64le", "8@32(1)", {"base": "r1", "value": 32}),
        ("ppc64le", "8@-8(%r31)", {"base": "r31", "value": -8}),
        ("ppc64le", "8@8(0)", {"value": 8}),
        ("ppc64le", "8@0,9", {"base": "r9"}),
        ("ppc64le", "8@3,9", {"base": "r3", "index": "r9"}),
        ("ppc64le", "8@%r3, %r9", {"base": "r3", "index": "r9"}),
        ("s390x", "8@160(%r15)", {"base": "r15", "value": 160}),
        ("s390x", "8@8(%r2,%r3)", {"base": "r3", "index": "r2", "value": 8}),
        ("s390x", "8@(%r2)", {"base": "r2"}),
        ("s390x", "8@8(%r2,%r0)", {"base": "r2", "value": 8}),
        ("s390x", "8@8(%r0)", {"value": 8}),
        ("s390x", "8@counter+8", {"base": "pc", "value": 0x4008}),
        ("riscv64", "8@-24(s0)", {"base": "s0", "value": -24}),
        ("riscv64", "8@(a5)", {"base": "a5"}),
        ("loongarch64", "8@[$r4]", {"base": "r4"}),
        ("loongarch64", "8@[$r22, -24]", {"base": "r22", "value": -24}),
        ("loongarch64", "8@$r22,-24", {"base": "r22", "value": -24}),
        ("loongarch64", "8@[$r4,$r5]", {"base": "r4", "index": "r5"}),
    ],
)
def test_memory(machine, text, fields):
    assert one(machine, text) == Operand(text, "memory", **fields)


@pytest.mark.parametrize(
    ("machine", "text", "reason"),
    [
        ("i386", "8@%eax", "two registers"),
        ("i386", "4@%rax", "no such register"),
        ("i386", "4@%sil", "no such register"),
        ("i386", "4@%gs:20", "segment"),
        ("i386", "4@(%ax)", "16 bits"),
        ("i386", "4@missing@GOTOFF(%ebx)", "missing"),
        ("arm", "8@r4", "two registers"),
        ("arm", "8@d8", "floating-point"),
        ("arm", "4@[pc, #8]", "no register"),
        ("arm", "4@[r0, -r1]", "not a memory"),
        ("arm", "4@5", "not an operand"),
        ("arm", "4@counter", "where the file is loaded"),
        ("ppc64le", "8@997", "not an operand"),
        ("ppc64le", "8@32", "no such register"),
        ("ppc64le", "8@f1", "floating-point"),
        ("ppc64le", "8@counter@toc@l(9)", "no such offset"),
        ("s390x", "8@%f0", "floating-point"),
        ("s390x", "8@%r16", "no such register"),
        ("riscv64", "8@fa0", "floating-point"),
        ("riscv64", "8@%lo(counter)(a5)", "linker"),
        ("loongarch64", "8@$fa0", "floating-point"),
        ("loongarch64", "8@[$r4", "not an operand"),
    ],
)
def test_what_cannot_be_read_says_why(machine, text, reason):
    operand = one(machine, text)
    assert operand.kind == "unreadable"
    assert reason in operand.reason


def test_the_second_byte_of_a_register():
    assert one("i386", "1@%bh") == Operand("1@%bh", "register", size=1, base="ebx", shift=8)


@pytest.mark.parametrize(
    ("machine", "text", "size"), [("i386", "(%eax)", 4), ("arm", "[r0]", 4), ("s390x", "0(%r2)", 8)]
)
def test_without_a_size_it_is_that_of_a_pointer(machine, text, size):
    assert one(machine, text).size == size


def test_white_space_after_a_comma_is_inside_an_operand():
    assert split("8@%r3, %r9 -4@$r22, -24 8@[x0, 8]") == ["8@%r3, %r9", "-4@$r22, -24", "8@[x0, 8]"]
