"""Random C expressions mean in the kernel what gcc makes of them."""

import random

from commandline import end_of_tracing, go, json_lines, start_tracing

PROGRAM = """
#include "program.h"
NOINLINE void given(long a, long b, int c) {{ asm volatile("" : : "r"(a), "r"(b), "r"(c)); }}
int main(void) {{
    long as[] = {{0, 1, -1, 7, 1000003, -99991, 1L << 40}};
    await_go();
    for (int i = 0; i < 7; i++) for (int j = 0; j < 7; j++) {{
        long a = as[i], b = as[j];
        int c = i - j;
        given(a, b, c);
        printf("{conversions}\\n", {values});
    }}
    return 0;
}}
"""
BOTH = ("+", "-", "&", "|", "^", "<", "<=", ">", ">=", "==", "!=", "&&", "||")


def expression(chance, depth):
    """An expression of C that has one meaning, also in 64 bits: what may be large is a long, and nothing below 0 is
    divided or shifted."""
    if depth == 0 or chance.random() < 0.1:
        return chance.choice(["a", "b", "c", "(long)(int)a", "(long)(u8)b", str(chance.randrange(100)), "0x1F", "'z'"])
    inner = [expression(chance, depth - 1) for _ in range(2)]
    match chance.randrange(8):
        case 0:
            return f"{chance.choice('-~!')}({inner[0]})"
        case 1:
            return f"(({inner[0]}) & 0xffff) {chance.choice(['/', '%'])} {chance.randrange(1, 50)}"
        case 2:
            return f"(({inner[0]}) & 0xffff) {chance.choice(['<<', '>>'])} {chance.randrange(9)}"
        case 3:
            return f"(({inner[0]}) & 0xfff) * (({inner[1]}) & 0xfff)"
        case 4:
            return f"(long)({chance.choice(['int', 'long', 'short', 'signed char', 'u16', 'u32'])})({inner[0]})"
        case _:
            left, right = inner if chance.random() < 0.6 else (f"({part})" for part in inner)
            return f"{left} {chance.choice(BOTH)} {right}"


def test_random_expressions(compile_c, ready, spawn):
    chance = random.Random(997)
    chosen = [f"(long)({expression(chance, 3)})" for _ in range(60)]
    types = "#include <stdint.h>\ntypedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32;\n"
    source = types + PROGRAM.format(conversions=" ".join(["%ld"] * 60), values=", ".join(chosen))
    path = compile_c(source, "-O1", "-w", "-fwrapv")
    program = ready([path])
    halves = [
        f'p:{path}:given(long a, long b, int c) "{number} {" ".join(["%ld"] * 30)}", {", ".join(half)}'
        for number, half in enumerate((chosen[:30], chosen[30:]))
    ]
    tracer = start_tracing(spawn, "trace", *halves, "-p", program.pid, "--json")
    go(program)
    expected = [line.split() for line in program.stdout.read().splitlines()]
    _, events, _ = json_lines(end_of_tracing(tracer)[0])
    # Which of two hooks at one place sends first is not promised.
    halves = [[event["message"].split()[1:] for event in events if event["message"][0] == which] for which in "01"]
    found = [first + second for first, second in zip(*halves, strict=True)]
    assert len(found) == 49
    different = {
        (chosen[n], theirs[n], ours[n])
        for theirs, ours in zip(expected, found, strict=True)
        for n in range(60)
        if theirs[n] != ours[n]
    }
    assert not {text for text, _, _ in different}
