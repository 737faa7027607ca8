"""The translator against gcc: what random C computes, translated and run by a small machine here, and compiled and run.

The machine knows the instructions that calculate, jump, and use memory; the kernel's side is in
tests/kernel/test_translator.py.
"""

import random
import re
import struct
import subprocess

from usdtkit.bpf.translator import UntranslatableError, translate
from usdtkit.cli.bundle import programs_of

TYPES = {"u8": 8, "u16": 16, "u32": 32, "u64": 64, "s8": 8, "s16": 16, "s32": 32, "s64": 64}
FUNCTIONS, CALLS, SEEDS = 50, 7, 3
INPUTS = ("di", "si", "dx", "cx", "r8", "r9")
MASK = (1 << 64) - 1
SIZES = {0x00: "I", 0x08: "H", 0x10: "B", 0x18: "Q"}
TYPEDEFS = """
#include <stdint.h>
#include <stdio.h>
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
typedef int8_t s8; typedef int16_t s16; typedef int32_t s32; typedef int64_t s64;
#define __always_inline __attribute__((always_inline)) inline
struct pt_regs {
  u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
"""
SHARED = """
struct pair { u64 first; u32 second; s16 third; u8 fourth[3]; };
#define TWICE(x) ((x) + (x))
static __always_inline u64 clamp(u64 value, u32 most) {
  if (value > most) return most;
  return value;
}
static __always_inline s32 steps(s64 from, u32 times, u64 *counted) {
  s32 sum = 0;
  for (u32 i = 0; i < times; i++) {
    if (i == 5) continue;
    sum += (s32)from ^ (s32)(i * 3);
    *counted += i;
    if (sum < -1000000) break;
  }
  switch (times & 3) {
  case 0: sum = -sum;
  case 1: sum += 7; break;
  case 2: break;
  default: sum ^= times;
  }
  return sum;
}
"""


class Writer:
    """Random functions over the variables that are there."""

    def __init__(self, seed):
        self.chance = random.Random(seed)

    def expression(self, names, depth):
        pick = self.chance.choice
        if depth == 0:
            number = pick([0, 1, 2, 7, 255, 4096, 0x7FFFFFFF, self.chance.getrandbits(40)])
            return pick([*names, *names, str(number), f"{number}ULL", f"{number & 0xFFFF}u", f"-{number & 0xFFF}"])
        a, b = self.expression(names, depth - 1), self.expression(names, self.chance.randrange(depth))
        return pick(
            [
                f"({a} {pick(['+', '-', '*', '&', '|', '^'])} {b})",
                f"({a} {pick(['+', '-', '*', '&', '|', '^'])} {b})",
                f"({a} {pick(['<', '<=', '>', '>=', '==', '!='])} {b})",
                f"({a} {pick(['&&', '||'])} {b})",
                f"((u64)({a}) {pick(['<<', '>>'])} ({b} & 63))",
                f"((s32)({a}) {pick(['<<', '>>'])} ({b} & 31))",
                f"((u64)({a}) {pick(['/', '%'])} ((u64)({b}) | 1))",
                f"(({pick(list(TYPES))})({a}))",
                f"{pick(['!', '~', '-'])}({a})",
                f"({a} ? {b} : {pick(names)})",
                f"clamp({a}, {pick(['9', '(u32)' + b])})",
                f"TWICE({a})",
                f"({{ u32 inner = {a}; inner += {b}; inner; }})",
            ]
        )

    def statement(self, names, changing):
        name, value = self.chance.choice(changing), self.expression(names, 2)
        return self.chance.choice(
            [
                f"{name} = {value};",
                f"{name} {self.chance.choice(['+', '-', '^', '|', '&', '*'])}= {value};",
                f"if ({value}) {{ {name}++; }} else {{ {name} = {self.expression(names, 1)}; }}",
                f"if (!({value})) {name} -= 3;",
                f"p.first = {value}; q->second += p.first; p.fourth[{name} & 1] = {name}--; {name} ^= p.fourth[1];",
                f"{name} += steps({value}, {self.chance.choice(['6', f'{name} & 15'])}, &counted);",
                f"for (s32 i = 0; i < ({name} & 7); i++) {{ counted += {value}; {name}--; }}",
            ]
        )

    def function(self, number):
        lines = [f"u64 a{i} = ctx->{register};" for i, register in enumerate(INPUTS)]
        lines += ["u64 counted = 0;", "struct pair p = { .second = a0, .third = a1 }, *q = &p;"]
        names = [f"a{i}" for i in range(len(INPUTS))] + ["counted", "p.first", "q->second", "q->third", "p.fourth[1]"]
        changing = []
        for i in range(4):
            lines.append(f"{self.chance.choice(list(TYPES))} v{i} = {self.expression(names, 2)};")
            names.append(f"v{i}")
            changing.append(f"v{i}")
        lines += [self.statement(names, changing) for _ in range(6)]
        lines.append(f"ctx->ax = {self.expression(names, 3)};")
        lines.append(f"ctx->bx = counted + p.first + q->third + {' + '.join(changing)};")
        return "\n  ".join([f"int hook_{number}(struct pt_regs *ctx) {{", *lines, "return 0;"]) + "\n}\n"


def signed(value, bits=64):
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


class Machine:
    """Runs bytecode whose only memory is its stack, below 1024, and what it is called with, above that."""

    def run(self, code, registers):
        memory = bytearray(1024) + struct.pack("<21Q", *registers)
        instructions = list(struct.iter_unpack("<BBhi", code))
        r = [0] * 11
        r[1], r[10], at = 1024, 1024, 0
        for _ in range(100_000):
            opcode, both, offset, number = instructions[at]
            at += 1
            target, source = both & 15, both >> 4
            kind, operation = opcode & 7, opcode & 0xF0
            value = r[source] if opcode & 8 else number & MASK
            match kind:
                case 0:
                    r[target] = number & 0xFFFFFFFF | (instructions[at][3] & 0xFFFFFFFF) << 32
                    at += 1
                case 1 | 2 | 3:
                    shape = "<" + SIZES[opcode & 0x18]
                    place = r[source if kind == 1 else target] + offset
                    if kind == 1:
                        [r[target]] = struct.unpack_from(shape, memory, place)
                    else:
                        content = number & MASK if kind == 2 else r[source]
                        struct.pack_into(shape, memory, place, content & (1 << 8 * struct.calcsize(shape)) - 1)
                case 4 | 7:
                    r[target] = self.calculate(operation, r[target], value, 32 if kind == 4 else 64)
                case 5 if operation == 0x90:
                    return memory[1024:]
                case 5:
                    if operation == 0 or self.holds(operation, r[target], value):
                        at += offset
        raise AssertionError("it does not end")

    def calculate(self, operation, a, b, bits):
        mask = (1 << bits) - 1
        a, b = a & mask, b & mask
        return {
            0x00: lambda: a + b,
            0x10: lambda: a - b,
            0x20: lambda: a * b,
            0x30: lambda: a // b if b else 0,
            0x40: lambda: a | b,
            0x50: lambda: a & b,
            0x60: lambda: a << b % bits,
            0x70: lambda: a >> b % bits,
            0x90: lambda: a % b if b else a,
            0xA0: lambda: a ^ b,
            0xB0: lambda: b,
            0xC0: lambda: signed(a, bits) >> b % bits,
        }[operation]() & mask

    def holds(self, operation, a, b):
        return {
            0x10: a == b, 0x20: a > b, 0x30: a >= b, 0x50: a != b, 0xA0: a < b, 0xB0: a <= b,
            0x60: signed(a) > signed(b), 0x70: signed(a) >= signed(b),
            0xC0: signed(a) < signed(b), 0xD0: signed(a) <= signed(b),
        }[operation]  # fmt: skip


def inputs(chance):
    given = [chance.getrandbits(chance.choice([1, 8, 31, 32, 33, 64])) for _ in range(21)]
    return [value * chance.choice([1, -1]) & MASK for value in given]


def test_what_gcc_computes(tmp_path):
    compared = 0
    for seed in range(SEEDS):
        writer = Writer(seed)
        functions = [writer.function(number) for number in range(FUNCTIONS)]
        calls = [(number, inputs(writer.chance)) for number in range(FUNCTIONS) for _ in range(CALLS)]
        main = ["int main(void) {"]
        for number, registers in calls:
            values = ", ".join(f"{value}ULL" for value in registers)
            main.append(f"{{ struct pt_regs r = {{ {values} }}; hook_{number}(&r);")
            main.append('printf("%llu %llu\\n", (unsigned long long)r.ax, (unsigned long long)r.bx); }')
        source = "\n".join([TYPEDEFS, SHARED, *functions, *main, "return 0; }"])
        command = ["gcc", "-w", "-O1", "-fwrapv", "-xc", "-", "-o", tmp_path / "program"]
        subprocess.run(command, input=source, text=True, check=True)
        printed = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True).stdout
        code = translate("\n".join([SHARED, *functions])).programs
        for (number, registers), line in zip(calls, printed.splitlines(), strict=True):
            after = struct.unpack("<21Q", Machine().run(code[f"hook_{number}"], registers))
            assert (after[10], after[5]) == tuple(map(int, line.split())), (
                f"seed {seed}:\n{functions[number]}{registers}"
            )
            compared += 1
    assert compared == SEEDS * FUNCTIONS * CALLS


def test_a_text_that_is_damaged():
    """It is refused, or translated, but nothing else happens."""
    [(_, text)] = programs_of("dlopens -x")
    pieces = re.findall(r"\w+|\s+|.", text)
    chance, refused = random.Random(997), 0
    for _ in range(97):
        damaged = list(pieces)
        for _ in range(chance.choice([1, 2, 13])):
            at, other = chance.randrange(len(damaged)), chance.randrange(len(damaged))
            damaged[at] = chance.choice(["", damaged[other], "(", ")", "{", "}", "*", "99999999999"])
        try:
            translate("".join(damaged))
        except UntranslatableError as error:
            refused += 1
            assert str(error)
    assert refused > 50
