"""The first bytes of an instruction → what the kernel does when a uprobe there is hit.

Used by `usdtkit.elf.symbols`, `usdtkit.elf.sites` and `usdtkit.kernel`. A uprobe replaces the first byte of an
instruction by a breakpoint. The kernel emulates some instructions. It executes the others in another place as a single
step, which takes a second trap and much longer. It refuses a few, some of them only when a process maps the file, and
then without an error. The first bytes tell which is the case, without a disassembler.
"""

from __future__ import annotations

from typing import Literal

Cost = Literal["emulated", "stepped", "refused", "mistaken", "held", "unknown"]

EMULATED_COST, STEPPED_COST = "0.4 to 0.9 µs", "10 to 40 times as much"
"""What a hit costs that is counted; docs/elf.md says how that was measured."""

LONGEST = 15
"""The size of the longest instruction in bytes."""

# The kernel refuses instructions with these prefixes: the segments ES, CS, SS, DS, and LOCK.
REFUSED_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\xf0")
_PREFIXES = frozenset(b"\x66\x67\xf2\xf3\x64\x65") | REFUSED_PREFIXES
_VEX, _EVEX = b"\xc4\xc5", 0x62
# syscall, sysenter, int $0x80
_SYSTEM_CALLS = (b"\x0f\x05", b"\x0f\x34", b"\xcd\x80")
# First bytes of instructions that a probe may harm: prefixes, and opcodes.
_MAY_HARM = (b"\x62", b"\x66", b"\x67", b"\x0f", b"\xcd")


def cost_of(code: bytes, machine: str) -> Cost:
    """Return what a probe on the instruction at the start of `code` costs, as measured on Linux 6.18.

    - "emulated": pushes of a register, calls, jumps and nops. Older kernels step nops of more than one byte.
    - "stepped": all others, such as `endbr64`, with which functions begin if control flow is protected.
    - "refused": the kernel puts no probe there.
    - "mistaken": the kernel emulates another instruction, and the program computes nonsense. It does so with
      instructions of AVX-512 whose opcode has the number of an emulated one in the first table of opcodes, such as the
      `vpbroadcastb` with which a strchr of glibc begins; and with `xchg %rax, %r8`, which is a nop but for its prefix,
      and with which a function of Go's write barrier begins.
    - "held": system calls. The kernel delivers no signal to a thread until the instruction has been stepped, so a call
      that waits (read, pause) could not be interrupted any more, neither by a timer nor by pthread_cancel.
    - "unknown": on machines other than x86-64 and i386.
    """
    if machine not in ("x86_64", "i386"):
        return "unknown"
    position = 0
    while position < len(code) and code[position] in _PREFIXES:
        position += 1
    prefixes, rest = code[:position], code[position:]
    if REFUSED_PREFIXES & set(prefixes):
        return "refused"
    wide = machine == "x86_64"
    rex = rest[:1] if wide and rest and rest[0] & 0xF0 == 0x40 else b""
    rest = rest[len(rex) :]
    if rest[:1] == b"\x90" and rex and rex[0] & 1:
        return "mistaken"
    if len(rest) > 1 and (wide or rest[1] >= 0xC0):  # otherwise these are other instructions of 32-bit code
        if rest[0] in _VEX:
            return "refused"
        if rest[0] == _EVEX:
            return "mistaken" if len(rest) > 4 and _is_emulated(rest[4:5], b"", b"") else "stepped"
    if rest[:2] in _SYSTEM_CALLS:
        return "held"
    if _is_jump(rest) and b"\x66" in prefixes:
        return "refused"  # with this prefix, the width of a jump differs between processors
    return "emulated" if _is_emulated(rest, prefixes, rex) else "stepped"


def is_safe(code: bytes, machine: str) -> bool:
    """Return whether a probe there leaves the program's behaviour as it is. For most code the first byte tells."""
    if code[:1] not in _MAY_HARM and code[1:2] != b"\x90":
        return True
    return cost_of(code, machine) not in ("mistaken", "held")


def _is_jump(code: bytes) -> bool:
    first = code[:1]
    return (
        first in (b"\xe8", b"\xe9", b"\xeb")
        or b"\x70" <= first <= b"\x7f"
        or (first == b"\x0f" and b"\x80" <= code[1:2] <= b"\x8f")
    )


def _is_emulated(code: bytes, prefixes: bytes, rex: bytes) -> bool:
    if b"\x50" <= code[:1] <= b"\x57":
        return not prefixes and rex in (b"", b"\x41")
    return code[:1] == b"\x90" or _is_jump(code) or (code[:2] == b"\x0f\x1f" and not prefixes)
