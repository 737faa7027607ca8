"""What `usdtkit.elf.sites` says of a probe's cost, against this kernel: emulated is quicker than stepped."""

from usdtkit import trace
from usdtkit.elf.image import Image
from usdtkit.elf.sites import cost
from usdtkit.elf.symbols import functions

CODE = {
    "nop": ".byte 0x90",
    "push": "push %rbp; pop %rbp",
    "push_r12": "push %r12; pop %r12",
    "jump": ".byte 0xeb, 0",
    "call": ".byte 0xe8, 0, 0, 0, 0; pop %rax",
    "branch": ".byte 0x74, 0",
    "endbr": ".byte 0xf3, 0x0f, 0x1e, 0xfa",
    "subtract": "sub $8, %rsp; add $8, %rsp",
    "move": "mov %rdi, %rax",
    "load": "mov (%rsp), %rax",
    "pop": "pop %rax; push %rax",
    "segment": ".byte 0x3e, 0x90",
    "jump16": ".byte 0x66, 0x0f, 0x84, 0, 0, 0, 0",
    "vex": ".byte 0xc5, 0xf9, 0x6e, 0xc6",
}
# A branch with this prefix takes 16 bits of displacement on AMD's processors and 32 on Intel's: there is no program of
# one that does the same on both, so it is only attached to.
NEVER_EXECUTED = {"jump16"}
PROGRAM = """
#include <stdio.h>
#include <time.h>
%(declared)s
static struct { const char *name; void (*call)(void); } forms[] = { %(table)s };
__asm__(".text\\n" %(code)s);
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}
int main(void)
{
    puts("ready");
    fflush(stdout);
    getchar();
    for (unsigned i = 0; i < sizeof forms / sizeof *forms; i++) {
        double best = 1e18;
        for (int round = 0; round < 9; round++) {
            double start = now();
            for (int n = 0; n < 100; n++)
                forms[i].call();
            double each = (now() - start) / 100;
            if (each < best)
                best = each;
        }
        printf("%%s %%.0f\\n", forms[i].name, best);
    }
    return 0;
}
"""
FUNCTION = (
    '".globl form_{0}\\n.type form_{0},@function\\n.balign 64\\nform_{0}: {1}\\nret\\n.size form_{0}, .-form_{0}\\n"'
)


def test_emulated_is_quicker_than_stepped(compile_c, spawn, wait_for_line):
    program = compile_c(
        PROGRAM
        % {
            "declared": "".join(f"void form_{name}(void);" for name in CODE),
            "table": ",".join(f'{{"{name}", form_{name}}}' for name in CODE if name not in NEVER_EXECUTED),
            "code": "".join(FUNCTION.format(name, code) for name, code in CODE.items()),
        },
        "-O1",
    )
    with Image.open(program) as image:
        found = {function.name: function for function in functions(image, "form_*")}
        said = {name: cost(image, found[f"form_{name}"].file_offset) for name in CODE}
    process = spawn([program])
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid) as session:
        session.uprobe(str(program), "form_*").count()
        session.start()
        refused = {refusal.file_offset for refusal in session.refused}
        output, _ = process.communicate("\n")
    took = {name: float(time) for name, time in (line.split() for line in output.splitlines())}
    assert {name for name in CODE if found[f"form_{name}"].file_offset in refused} == {
        name for name in CODE if said[name] == "refused"
    }
    emulated, stepped = ([took[name] for name in took if said[name] == kind] for kind in ("emulated", "stepped"))
    assert max(emulated) < min(stepped), took
