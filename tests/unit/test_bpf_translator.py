"""The translator's own rules: what it refuses and in which words, and what the verifier needs of its code."""

import pytest

from usdtkit.bpf.program import PRELUDE
from usdtkit.bpf.translator import UntranslatableError, obstacle, translate
from usdtkit.bpf.uapi import INSTRUCTION

EXIT, JUMP_CLASSES = 0x95, (5, 6)


def hook(*statements):
    return f"{PRELUDE}\nint hook_0(struct pt_regs *ctx) {{ {' '.join(statements)} return 0; }}\n"


def instructions(text):
    [code] = translate(text).programs.values()
    return list(INSTRUCTION.iter_unpack(code))


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("goto end; end:;", "goto"),
        ("u64 x = nonsense;", "the name nonsense"),
        ("bpf_trace_printk(ctx);", "a call of bpf_trace_printk"),
        ("s64 x = ctx->di; x = x / 3;", "a signed division"),
        ("struct counters a = {}, b = {}; a = b;", "a structure as a value"),
        ("char large[600];", "the stack of 512 bytes"),
        ("ctx->nothing = 1;", "struct pt_regs has no member nothing"),
        ("stats.pop(1);", "stats.pop()"),
        ("u64 x = (1 +;", "where a name is expected"),
        ('asm volatile("r0 = 1");', "asm"),
        ("double x = 1;", "double"),
        ("break;", "break outside of a loop"),
        ("u64 x = 1; x();", "a call of x"),
    ],
)
def test_what_it_does_not_know(statement, word):
    with pytest.raises(UntranslatableError) as raised:
        translate(hook(statement))
    assert word in str(raised.value)
    assert obstacle(hook(statement)) == str(raised.value)


def test_c_of_a_user_is_left_to_the_compiler():
    assert obstacle(hook('\n#line 1 "raw_0"\nctx->di;\n')) == "C text of a user"
    assert obstacle(hook("u64 x = ctx->di;")) == ""


def test_equal_texts_give_equal_bytecode():
    text = hook("u64 value = ctx->di; if (value > 7) count(&value);")
    assert translate(text) == translate(text)
    assert translate(text).bcc_version == ""
    names = [description.name for description in translate(text).maps]
    assert names == sorted(names) and {"events", "operands", "stats"} <= set(names)


def test_what_nothing_leads_to_is_left_out():
    """The verifier refuses a program that has it."""
    code = instructions(hook("if (ctx->di) return 1; else return 2; ctx->si = 3; for (;;) { ctx->si = 4; }"))
    reached, waiting = set(), [0]
    while waiting:
        at = waiting.pop()
        if at in reached:
            continue
        reached.add(at)
        opcode, _, distance, _ = code[at]
        is_jump = opcode & 7 in JUMP_CLASSES and opcode & 0xF0 not in (0x80, 0x90)
        if is_jump:
            waiting.append(at + 1 + distance)
        if opcode not in (EXIT, 0x05):
            waiting.append(at + 1)
    assert reached == set(range(len(code)))


def test_a_size_that_was_compared_stays_in_a_register():
    """Kernels before 6.8 forget the bounds of what was in the stack meanwhile."""
    values = [f"u64 v{i} = ctx->si + {i};" for i in range(12)]
    size = "u64 size = ctx->di; if (size > 64) return 0;"
    read = "bpf_probe_read_user(to, size, (void *)ctx->dx);"
    used = [f"ctx->ax += v{i};" for i in range(12)]
    code = instructions(hook("char to[64];", *values, size, read, read, *used))
    compared = [both & 15 for opcode, both, _, number in code if opcode in (0x25, 0xB5) and number == 64]
    moved = [both for opcode, both, _, _ in code if opcode == 0xBF and both & 15 == 2]
    assert [source >> 4 for source in moved] == compared * 2 and compared[0] in (6, 7, 8, 9)


def test_constants_are_calculated_before():
    code = instructions(hook("ctx->di = (3 + 4) * sizeof(struct counters) - (1 ? 2 : ctx->si) + !5;"))
    assert code[-3:] == [(0x7A, 1, 14 * 8, 7 * 64 - 2), (0xB7, 0, 0, 0), (EXIT, 0, 0, 0)]
