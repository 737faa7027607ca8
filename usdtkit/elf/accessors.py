"""Functions that return a member of their first argument → where that member is in the structure.

Input: an `Image`, and the name of such a function. Output: offsets. A program that exports accessors for its plugins
says by them how its structures are laid out, in every version and build; used by `usdtkit.providers.mysql`.

Only the few forms are known that optimising compilers give such functions. Whatever else a function does, its answer is
that nothing is known.
"""

from __future__ import annotations

from usdtkit.elf.image import Image
from usdtkit.elf.symbols import functions
from usdtkit.errors import ElfError

_LONGEST = 48  # bytes of code that are looked at


def member(image: Image, function: str) -> tuple[int, ...]:
    """The offsets that lead from the first argument of a function to the member that it returns, or points to.

    One offset means that the member is in the structure. Of two, the first is that of a pointer to another structure,
    in which the member is. () if there is no such function, or it does anything else.
    """
    for found in functions(image, function):
        try:
            code = image.read(found.file_offset, min(found.size or _LONGEST, _LONGEST))
        except ElfError:
            continue
        if image.machine == "x86_64":
            return _member_x86_64(code)
        if image.machine == "aarch64":
            return _member_aarch64(code)
    return ()


def _member_x86_64(code: bytes) -> tuple[int, ...]:
    offsets: list[int] = []
    at, base = 4 if code.startswith(b"\xf3\x0f\x1e\xfa") else 0, 7  # rdi
    while at < len(code):
        if code[at] == 0xC3 or code[at : at + 2] == b"\xf3\xc3":  # ret
            return tuple(offsets)
        if offsets and code[at : at + 4] == b"\x48\x85\xc0\x74":  # test rax, rax; je to where it returns NULL
            at += 5
            continue
        at += code[at] == 0x48  # without this, a member of 32 bits is read
        opcode, modrm = (*code[at : at + 2], 0, 0)[:2]
        mode, register, memory = modrm >> 6, modrm >> 3 & 7, modrm & 7
        size = (0, 1, 4)[mode] if mode < 3 else -1
        if opcode not in (0x8B, 0x8D) or size < 0 or memory not in (7, base):  # mov or lea
            return ()
        offset = int.from_bytes(code[at + 2 : at + 2 + size], "little", signed=True)
        at += 2 + size
        if opcode == 0x8D and offsets:  # what is calculated from a member
            return ()
        if register == 0 and memory == base:  # into rax, which leads further
            offsets.append(offset)
            base = 0
        elif register != 2 or memory != 7 or offsets != [offset - 8]:  # rdx is the second half of the member
            return ()
    return ()


def _member_aarch64(code: bytes) -> tuple[int, ...]:
    offsets: list[int] = []
    added = constant = 0
    for at in range(0, len(code) - 3, 4):
        word = int.from_bytes(code[at : at + 4], "little")
        immediate = word >> 10 & 0xFFF
        if word == 0xD65F03C0:  # ret
            return tuple([*offsets, added] if added or not offsets else offsets)
        if word in (0xD503245F, 0xD503201F):  # bti c, nop
            continue
        if word & 0xFF8003FF == 0x91000000 and not offsets:  # add x0, x0, #imm{, lsl #12}
            added += immediate << (12 if word >> 22 & 1 else 0)
        elif word & 0xFFE0001F == 0xD2800001 and not (offsets or added):  # mov x1, #imm
            constant = word >> 5 & 0xFFFF
        elif word == 0x8B010000 and not offsets:  # add x0, x0, x1
            added += constant
        elif word & 0xBFC003FF == 0xB9400000:  # ldr x0 or w0, [x0, #imm]
            offsets.append(added + (8 if word >> 30 & 1 else 4) * immediate)
            added = 0
        elif word & 0xFF00001F != 0xB4000000 or not offsets:  # cbz x0, to where it returns NULL
            return ()
    return ()
