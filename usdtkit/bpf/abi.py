"""Everything about a processor architecture that programs in the kernel depend on: one `Abi` for each.

Input: a machine's name, as `os.uname().machine` spells it. Output: where struct pt_regs has arguments, return values
and return addresses, and how breakpoints look. `access`, `operands` and `program` read it here, `kernel.dispatcher` and
`trace.breakpoints` above. What differs by architecture in ELF files stays in `usdtkit.elf`.

A new architecture needs its entry in ABIS, and its struct pt_regs in headers/include/linux/ptrace.h.
"""

from __future__ import annotations

import os

from usdtkit.errors import UnsupportedError
from usdtkit.records import dataclass


@dataclass(frozen=True)
class CallingConvention:
    """How functions receive integers, and where their return address is.

    The first arguments are in `registers`. Further ones lie on the stack, `word` bytes each, beginning `displacement`
    bytes above the stack pointer. `return_slot` is the size of the return address that a call pushes: by the time a
    return probe is hit, the return has popped it. It is 0 where calls leave the address in a register. `routine` is the
    register in which Go keeps the goroutine that runs.
    """

    registers: tuple[str, ...]
    displacement: int
    word: int = 8
    return_slot: int = 0
    routine: str = ""


@dataclass(frozen=True)
class Abi:
    """One architecture. Its registers are members of struct pt_regs, in C's spelling.

    - `conventions`: how functions are called, by `Function.convention`
    - `named_registers`: those that an expression may ask for by name
    - `instruction`, `frame_pointer`, `return_value`: the registers with these values
    - `link_register`: the one in which a call leaves its return address; "" where it goes on the stack
    - `flags`: the one that conditional jumps test; "" where exits by conditional jumps are not searched for
    - `is_32_bit`: C that tells, of a struct pt_regs `ctx`, whether its process is a 32-bit one
    - `address_bits`: how many low bits of a code address matter; pointer authentication signs the others
    - `offsets`: where struct pt_regs has each register, by the name that a probe's note uses for it
    - `counter`: what notes call the address of the instruction
    - `breakpoint_size`: how many bytes of an instruction a breakpoint replaces
    - `unwinding`: macros for walk.h: the bytes that a call pushes; whether a function can have a frame of no bytes;
      where the registers are above the stack pointer when a signal handler returns; and what else of the innermost
      frame a walk `w` starts with
    """

    conventions: dict[str, CallingConvention]
    named_registers: tuple[str, ...]
    instruction: str
    frame_pointer: str
    return_value: str
    link_register: str
    flags: str
    is_32_bit: str
    address_bits: int
    offsets: dict[str, int]
    counter: str
    breakpoint_size: int
    unwinding: dict[str, str]

    @property
    def instruction_offset(self) -> int:
        """Where struct pt_regs has the address of the instruction."""
        return self.offsets[self.counter]

    @property
    def stack_macros(self) -> str:
        """What stacks.c needs to know of the architecture, as macros."""
        mask = "" if self.address_bits == 64 else f" & {(1 << self.address_bits) - 1:#x}ULL"
        lines = [
            f"#define INSTRUCTION(ctx) ((ctx)->{self.instruction})",
            f"#define FRAME_POINTER(ctx) ((ctx)->{self.frame_pointer})",
            f"#define IS_NARROW(ctx) ({self.is_32_bit})",
            f"#define PLAIN(address) ((address){mask})",
        ]
        if self.link_register:
            lines.append(f"#define LINK_REGISTER(ctx) ((ctx)->{self.link_register})")
        lines += [f"#define {name} {value}" for name, value in self.unwinding.items()]
        return "\n".join(lines)


# struct pt_regs of each architecture, in order: 8 bytes a register.
_X86_64 = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8"),
    *("rax", "rcx", "rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss"),
)
_AARCH64 = (*(f"x{n}" for n in range(31)), "sp", "pc")
# 32-bit programs run on the lower halves of the same registers.
_I386 = {name: name.replace("e", "r", 1) for name in ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp", "eip")}

# Go's convention is the one that it has had since 1.17; before, and in assembler code, all arguments are on the stack.
ABIS: dict[str, Abi] = {
    "x86_64": Abi(
        conventions={
            "": CallingConvention(("di", "si", "dx", "cx", "r8", "r9"), 8, return_slot=8),
            "i386": CallingConvention((), 4, word=4, return_slot=4),
            "go": CallingConvention(("ax", "bx", "cx", "di", "si", "r8", "r9", "r10", "r11"), 8, 8, 8, "r14"),
            "go-stack": CallingConvention((), 8, return_slot=8),
            "go-i386": CallingConvention((), 4, word=4, return_slot=4),
        },
        named_registers=(
            *("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip"),
            *(f"r{n}" for n in range(8, 16)),
        ),
        instruction="ip",
        frame_pointer="bp",
        return_value="ax",
        link_register="",
        flags="flags",
        is_32_bit="(ctx)->cs == 0x23",
        address_bits=64,
        offsets={
            **{name: 8 * at for at, name in enumerate(_X86_64)},
            **{name: 8 * _X86_64.index(full) for name, full in _I386.items()},
        },
        counter="rip",
        breakpoint_size=1,
        unwinding={
            "RETURN_SLOT": "8",
            "LEAF_FRAMES": "0",
            "SIGNAL_FP": "120",
            "SIGNAL_SP": "160",
            "SIGNAL_IP": "168",
            "INNERMOST(w, ctx)": "(w)->rax = (ctx)->ax; (w)->r10 = (ctx)->r10; (w)->r11 = (ctx)->r11",
        },
    ),
    "aarch64": Abi(
        conventions={
            "": CallingConvention(tuple(f"regs[{n}]" for n in range(8)), 0),
            "go": CallingConvention(tuple(f"regs[{n}]" for n in range(16)), 8, routine="regs[28]"),
            "go-stack": CallingConvention((), 8),
        },
        named_registers=("sp", "pc"),
        instruction="pc",
        frame_pointer="regs[29]",
        return_value="regs[0]",
        link_register="regs[30]",
        flags="",
        is_32_bit="(ctx)->pstate & 16",
        address_bits=48,
        offsets={name: 8 * at for at, name in enumerate(_AARCH64)},
        counter="pc",
        breakpoint_size=4,
        unwinding={
            "RETURN_SLOT": "0",
            "LEAF_FRAMES": "1",
            "SIGNAL_FP": "544",
            "SIGNAL_LR": "552",
            "SIGNAL_SP": "560",
            "SIGNAL_IP": "568",
            "INNERMOST(w, ctx)": "(w)->lr = PLAIN(LINK_REGISTER(ctx))",
        },
    ),
}


def abi_of(machine: str | None = None) -> Abi:
    """The ABI of a machine, or of the one that we run on. UnsupportedError where it is not one of ABIS."""
    machine = machine or os.uname().machine
    try:
        return ABIS[machine]
    except KeyError:
        raise UnsupportedError(
            f"tracing is not supported on {machine}", hint=f"usdtkit traces on {' and '.join(ABIS)}"
        ) from None
