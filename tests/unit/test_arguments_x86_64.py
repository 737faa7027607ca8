import pytest

from usdtkit.elf.arguments import parse, split
from usdtkit.model import Operand

SYMBOLS = {"counter": 0x5000, "_ZN3fooE.part.0": 0x6000}


def one(text):
    operands = parse(text, "x86_64", site_address=0x1000, resolve_symbol=SYMBOLS.get)
    assert len(operands) == 1
    return operands[0]


@pytest.mark.parametrize(
    ("text", "size", "signed", "base"),
    [
        ("8@%rdi", 8, False, "rdi"),
        ("-8@%r15", 8, True, "r15"),
        ("-4@%esi", 4, True, "rsi"),
        ("4@%r9d", 4, False, "r9"),
        ("2@%ax", 2, False, "rax"),
        ("-2@%r8w", 2, True, "r8"),
        ("1@%bpl", 1, False, "rbp"),
        ("-1@%cl", 1, True, "rcx"),
        ("1@%r10b", 1, False, "r10"),
        ("-1@%rdi", 1, True, "rdi"),
        ("8@%ebx", 4, False, "rbx"),
        ("%rsp", 8, False, "rsp"),
        ("%eax", 4, False, "rax"),
    ],
)
def test_registers(text, size, signed, base):
    assert one(text) == Operand(text, "register", size=size, signed=signed, base=base)


@pytest.mark.parametrize("letter", "abcd")
def test_the_second_byte_of_a_register(letter):
    text = f"-1@%{letter}h"
    assert one(text) == Operand(text, "register", size=1, signed=True, base=f"r{letter}x", shift=8)


@pytest.mark.parametrize(
    ("text", "size", "signed", "value"),
    [
        ("-4@$-1", 4, True, -1),
        ("4@$-1", 4, False, 0xFFFFFFFF),
        ("8@$-1", 8, False, 2**64 - 1),
        ("8@$18446744073709551615", 8, False, 2**64 - 1),
        ("-1@$255", 1, True, -1),
        ("1@$997", 1, False, 997 % 256),
        ("8@$0x1f", 8, False, 31),
        ("$5", 8, False, 5),
        ("$-5", 8, True, -5),
    ],
)
def test_constants_come_cut_to_size_and_sign(text, size, signed, value):
    assert one(text) == Operand(text, "constant", size=size, signed=signed, value=value)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("8@(%rax)", {"base": "rax"}),
        ("8@-144(%rbp)", {"base": "rbp", "value": -144}),
        ("8@+8(%rbp)", {"base": "rbp", "value": 8}),
        ("8@0x10(%r12)", {"base": "r12", "value": 16}),
        ("8@8(%rax,%rbx,4)", {"base": "rax", "index": "rbx", "scale": 4, "value": 8}),
        ("8@8(%rax, %rbx, 4)", {"base": "rax", "index": "rbx", "scale": 4, "value": 8}),
        ("8@(%rax,%rbx)", {"base": "rax", "index": "rbx", "scale": 1}),
        ("8@-8(,%r9,8)", {"index": "r9", "scale": 8, "value": -8}),
        ("8@counter(%rip)", {"base": "rip", "value": 0x4000}),
        ("8@counter+8(%rip)", {"base": "rip", "value": 0x4008}),
        ("8@40+counter(%rip)", {"base": "rip", "value": 0x4028}),
        ("8@counter-8+4(%rip)", {"base": "rip", "value": 0x3FFC}),
        ("8@_ZN3fooE.part.0(%rip)", {"base": "rip", "value": 0x5000}),
        ("8@16(%rip)", {"base": "rip", "value": 16}),
        ("8@counter", {"base": "rip", "value": 0x4000}),
        ("8@counter(,%rax,8)", {"index": "rax", "scale": 8, "value": 0x5000}),
        ("8f@-24(%rbp)", {"base": "rbp", "value": -24, "floating": True}),
        ("4f@-4(%rbp)", {"base": "rbp", "value": -4, "size": 4, "floating": True}),
    ],
)
def test_memory(text, fields):
    assert one(text) == Operand(text, "memory", **fields)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("8@%xmm0", "vector"),
        ("8f@%xmm11", "vector"),
        ("2f@-4(%rbp)", "2 bytes"),
        ("16@(%rax)", "16 bytes"),
        ("8f@%st", "floating-point"),
        ("8@%fs:0", "segment"),
        ("8@%fs:(%rax)", "segment"),
        ("8@%rzx", "no such register"),
        ("8@(%eax)", "32 bits"),
        ("8@(%rax,%rbx,3)", "scale"),
        ("8@(%rax,%rsp,2)", "not a memory"),
        ("8@()", "not a memory"),
        ("8@missing(%rip)", "missing"),
        ("8@counter-counter(%rip)", "symbols"),
        ("8@counter@GOTPCREL(%rip)", "counter@GOTPCREL"),
        ("8@$counter", "linker"),
        ("8@$99999999999999999999", "64 bits"),
        ("8@$" + "9" * 5000, "linker"),
        ("8@", "not an operand"),
        ("8@(%rax", "not an operand"),
    ],
)
def test_what_cannot_be_read_says_why(text, reason):
    operand = parse(text, "x86_64", site_address=0x1000, resolve_symbol=SYMBOLS.get)[0]
    assert operand.kind == "unreadable"
    assert reason in operand.reason


def test_an_unreadable_operand_keeps_its_place():
    operands = parse("8@%rdi 8@%xmm0 -4@%esi", "x86_64", site_address=0, resolve_symbol=SYMBOLS.get)
    assert [operand.kind for operand in operands] == ["register", "unreadable", "register"]
    assert operands[2].base == "rsi"


def test_an_open_bracket_swallows_no_later_operand():
    assert split("8@(%rax 4@%esi -2@[x0 8@%rdi") == ["8@(%rax", "4@%esi", "-2@[x0", "8@%rdi"]


def test_no_arguments():
    assert parse("", "x86_64", site_address=0, resolve_symbol=SYMBOLS.get) == ()


def test_a_machine_without_grammar_keeps_the_number_of_operands():
    operands = parse("8@a0 -4@8(sp)", "machine-997", site_address=0, resolve_symbol=SYMBOLS.get)
    assert [(operand.kind, operand.size, operand.signed) for operand in operands] == [
        ("unreadable", 8, False),
        ("unreadable", 4, True),
    ]
    assert "machine-997" in operands[0].reason
