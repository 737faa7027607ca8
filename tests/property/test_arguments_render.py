"""Reading an operand, writing it, and reading it again gives the same operand, whatever way it was spelt."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usdtkit.elf import arguments
from usdtkit.elf.arguments import MACHINES, parse, render

SYMBOLS = {"counter": 0x5000, "_GLOBAL_OFFSET_TABLE_": 0x4000}
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 8, -8, 127, 255, 2**31, -(2**31), 2**63 - 1, -(2**63)]), st.integers(-(2**63), 2**63 - 1)
)
OFFSETS = st.one_of(st.just(""), st.builds("{:+}".format, NUMBERS), NUMBERS.map(str), st.just("0x10"))
X86 = "{o}({b}) {o}({b},{b},4) {o}(,{b},8) {o}({b},{b}) ${n} {b} counter{p}({c}) {o}({c}) counter"
# machine: forms; registers for them; operands of their own; the program counter
FORMS = {
    "x86_64": (X86, "%rax %rbx %r8 %rbp %rdi %r15", "%eax %r9d %ax %sil %ah %dh %cl %r10b", "%rip"),
    "i386": (X86 + " counter@GOTOFF({b})", "%eax %ebx %ebp %edi", "%ax %si %ah %dh %cl", "%eip"),
    "aarch64": ("{n} {b} [{b}] [{b},{n}] [{b},{b}] [{b},{b},lsl{s}]", "x0 x29 sp fp x19", "w1 xzr", ""),
    "arm": ("#{n} {b} [{b}] [{b},#{n}] [{b},{b}] [{b},{b},lsl#{s}]", "r0 fp ip sp r9", "pc", ""),
    "ppc64le": ("i{n} {b} {o}({b}) {b},{b} 0,{b}", "0 1 %r31 r9", "30", ""),
    "s390x": ("{n} {b} {o}({b}) {o}({b},{b}) counter{p}", "%r0 %r2 %r15", "%r1", ""),
    "riscv64": ("{n} {b} {o}({b})", "a0 sp x10 fp zero t6", "a1", ""),
    "loongarch64": ("{n} {b} [{b}] [{b},{n}] {b},{n} [{b},{b}]", "$r0 $r4 $sp $a0 $fp", "$r5", ""),
}
SIZES = st.sampled_from(["", "1@", "2@", "4@", "8@", "-1@", "-2@", "-4@", "-8@", "4f@", "8f@"])


@st.composite
def spelt(draw, machine):
    forms, registers, parts, counter = FORMS[machine]
    form = draw(st.sampled_from([*forms.split(), *parts.split()]))
    while "{b}" in form:
        form = form.replace("{b}", draw(st.sampled_from(registers.split())), 1)
    return draw(SIZES) + form.format(
        o=draw(OFFSETS),
        n=draw(NUMBERS),
        c=counter,
        p=draw(st.sampled_from(["", "+8", "-4"])),
        s=draw(st.integers(0, 3)),
    )


def read(text, machine):
    (operand,) = parse(text, machine, site_address=0x1000, resolve_symbol=SYMBOLS.get)
    return operand


@pytest.mark.parametrize("machine", MACHINES)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_what_is_written_reads_the_same(machine, data):
    operand = read(data.draw(spelt(machine)), machine)
    text = render(operand, machine)
    again = read(text, machine)
    assert replace(again, text="") == replace(operand, text="")
    assert operand.kind == "unreadable" or render(again, machine) == text


@pytest.mark.parametrize("machine", ["x86_64", "i386"])
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_the_quick_way_reads_what_the_grammar_reads(machine, data):
    text = data.draw(spelt(machine))
    quick = arguments._grammar(machine).common(text)
    assert quick is None or quick == arguments._operand(text, machine, 0x1000, SYMBOLS.get)


def test_the_quick_way_reads_most_operands():
    for text in ("-4@%esi", "8@%rdi", "1@%ah", "8@$5", "-1@$255", "8@(%rax)", "8@-8(%rbp)"):
        assert arguments._grammar("x86_64").common(text) == arguments._operand(text, "x86_64", 0, SYMBOLS.get)
    for text in ("8@%xmm0", "8@(%eax)", "8@8(%rip)", "4f@%eax", "8@%nothing", "3@%rax", "8@$0x10"):
        assert arguments._grammar("x86_64").common(text) is None
    assert arguments._grammar("i386").common("8@%eax") is None


@pytest.mark.parametrize(
    ("machine", "text"),
    [
        (
            "x86_64",
            "-4@%esi 8@%rdi 2@%ax 1@%bpl 1@%ah 8@$5 -8@$-5 -1@$-1 8@-8(%rbp) 4@16(%rax,%rbx,4) 8f@(,%rax,8)",
        ),
        ("i386", "4@%eax 1@%bh -4@$5 8@-16(%ebp) 4@(%eax,%ecx,4) 4@%gs:20"),
        ("aarch64", "8@x0 -4@x19 4@5 8@[sp, 16] 8@[x0] 8@[x0, x1, lsl 3] 8@[x0, x1] 8f@d0"),
        ("arm", "4@r0 -4@#-5 4@[r11, #-8] 4@[r3, r2, lsl #2]"),
        ("ppc64le", "8@3 -4@i-5 8@32(1) 8@3,9 8@0,0"),
        ("s390x", "8@%r2 -4@-5 8@160(%r15) 8@8(%r2,%r3)"),
        ("riscv64", "8@a0 -4@-5 8@-24(s0)"),
        ("loongarch64", "8@$r4 -4@-5 8@[$r22, -24] 8@[$r4, $r5]"),
    ],
)
def test_the_usual_spelling_is_ours(machine, text):
    operands = parse(text, machine, site_address=0, resolve_symbol=SYMBOLS.get)
    assert " ".join(render(operand, machine) for operand in operands) == text


def test_the_forms_are_mostly_readable():
    """So that the first test above compares something."""
    for machine, (forms, registers, _, counter) in FORMS.items():
        for form in forms.split():
            text = "4@" + form.format(b=registers.split()[1], o="8", n="5", c=counter, p="+8", s=2)
            assert read(text, machine).kind != "unreadable", text
