"""What a file's instructions and names say of functions that never return: stacks switched by hand, and signals."""

import pytest

from usdtkit.elf.image import Image
from usdtkit.elf.unwinding import may_end_anywhere, may_leave

PLAIN = "int main(int count, char **arguments) { return count * 997; }"
SWITCH = 'void switch_stack(void); __asm__(".globl switch_stack\\nswitch_stack: %s\\nret"); ' + PLAIN


def reason(path):
    with Image.open(path) as image:
        return may_leave(image)


@pytest.mark.parametrize(
    "instruction",
    [
        *("mov %rsi, %rsp", "mov %r9, %rsp", "mov (%rdi), %rsp", "mov 0x40(%r12), %rsp", "mov 8(%rsp), %rsp"),
        *("mov %rax, %rsp", "xchg %rsp, (%rsi)", "xchg %rsp, %r10", "xchg %rbx, %rsp", "mov 0x1234(%rdx), %rsp"),
    ],
)
def test_a_stack_that_is_switched_by_hand(compile_c, instruction):
    assert reason(compile_c(SWITCH % instruction)).startswith("sets the stack pointer at 0x")


@pytest.mark.parametrize(
    "instruction",
    [
        *("mov %rbp, %rsp", "mov -0x28(%rbp), %rsp", "add $8, %rsp", "sub $0x1234, %rsp", "mov %rsp, (%rsi)", "leave"),
        *("mov %rsp, %rbx", "mov %r12, %rbx", "mov (%rdi), %r12", "lea -8(%rsp), %rsp", "and $-16, %rsp"),
    ],
)
def test_what_any_function_does_with_its_stack(compile_c, instruction):
    assert reason(compile_c(SWITCH % instruction)) == ""


@pytest.mark.parametrize(("instruction", "said"), [("mov sp, x3", True), ("mov sp, x29", False), ("mov x3, sp", False)])
def test_on_aarch64(compile_c, instruction, said):
    flags = ["-nostdlib", "-static", "-ffreestanding"]
    source = f'void _start(void) {{ __asm__ volatile("{instruction}"); for (;;) ; }}'
    assert bool(reason(compile_c(source, *flags, compiler="aarch64-linux-gnu-gcc"))) == said


def build(compile_c, kind):
    """A file that throws, one that handles signals, one that cancels threads anywhere, or none of these."""
    calls = {
        "signals": ("signal.h", "signal(SIGUSR1, 0)"),
        "anywhere": ("pthread.h", "pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, 0)"),
        "jumps": ("setjmp.h", "longjmp(0, 1)"),
        "plain": ("stdio.h", "puts(arguments[0])"),
    }
    if kind == "throws":
        return compile_c("int main(int n, char **) { try { throw n; } catch (int m) { return m; } }", compiler="g++")
    header, call = calls[kind]
    source = f"#include <{header}>\nint main(int count, char **arguments) {{ if (count > 9) {call}; return 0; }}"
    return compile_c(source, "-Wno-nonnull")


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (["plain", "plain"], ""),
        (["signals", "plain"], ""),
        (["throws", "plain"], ""),
        (["signals", "jumps"], ""),
        (["plain", "anywhere"], "pthread_setcanceltype"),
        (["signals", "throws"], "handles signals"),
        (["throws", "signals"], "handles signals"),
    ],
)
def test_where_a_signal_may_end_a_function(compile_c, kinds, said):
    images = [Image.open(build(compile_c, kind)) for kind in kinds]
    try:
        found = may_end_anywhere(images)
    finally:
        for image in images:
            image.close()
    assert said in found
    assert bool(said) == bool(found)
