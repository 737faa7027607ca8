"""The decoder against iced-x86's and objdump's, over all the code of real programs and libraries."""

import subprocess
from pathlib import Path

import iced_x86 as iced
import pytest

from usdtkit._ffi import ffi, lib
from usdtkit.elf.image import Image

RETURN, JUMP, BRANCH, INDIRECT, CALL, STOP = 1, 2, 3, 4, 5, 6
VENDOR = 2
AARCH64 = {
    **{"ret": RETURN, "retaa": RETURN, "retab": RETURN, "b": JUMP, "cbz": BRANCH, "cbnz": BRANCH, "tbz": BRANCH},
    **{"tbnz": BRANCH, "br": INDIRECT, "bl": CALL, "blr": CALL, "svc": CALL, "brk": STOP, "hlt": STOP, "udf": STOP},
}
MOST = 6 << 20  # bytes of each file
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# Debian's program is a small one, and what it does is in a library.
NODE = [*map(str, Path(LIBRARIES).glob("libnode.so.*")), "/usr/bin/node"][:1]
FILES = [
    *(f"{LIBRARIES}/libc.so.6", f"{LIBRARIES}/libstdc++.so.6", f"{LIBRARIES}/libcrypto.so.3", f"{LIBRARIES}/libm.so.6"),
    *("/usr/bin/python3.11", "/usr/sbin/mariadbd", *NODE, "/usr/bin/gdb"),
]


@pytest.mark.parametrize("path", FILES)
def test_lengths_and_kinds_are_those_of_iced(path):
    flow, odd = iced.FlowControl, iced.Mnemonic
    kinds = {
        **{flow.NEXT: 0, flow.RETURN: RETURN, flow.UNCONDITIONAL_BRANCH: JUMP, flow.CONDITIONAL_BRANCH: BRANCH},
        **{flow.INDIRECT_BRANCH: INDIRECT, flow.CALL: CALL, flow.INDIRECT_CALL: CALL, flow.INTERRUPT: CALL},
        **{flow.EXCEPTION: STOP, flow.XBEGIN_XABORT_XEND: 0},
    }
    others = {odd.HLT: STOP, odd.INT3: STOP, odd.INT1: 0, odd.SYSCALL: CALL, odd.SYSENTER: CALL, odd.RSM: 0}
    # In no function of a program; there are such bytes where data lies between the functions.
    far = {odd.RETF, odd.IRET, odd.IRETD, odd.IRETQ}
    with Image.open(path) as image:
        section = image.section(".text")
        code = image.read(section.offset, min(section.size, MOST))
    view, begins = ffi.from_buffer("uint8_t[]", code), ffi.new("uint8_t[]", 16)
    flows, end = ffi.new("usdtkit_flow[]", 1), ffi.new("usdtkit_sweep *")
    compared, refused, differ = 0, 0, []
    for instruction in iced.Decoder(64, code, ip=0):
        at = instruction.ip
        if instruction.code == iced.Code.INVALID:
            continue
        length = lib.usdtkit_length_x86_64(view + at, min(16, len(code) - at))
        if instruction.mnemonic in far or instruction.is_call_far_indirect or instruction.is_jmp_far_indirect:
            refused += 1
            assert length == 0
            continue
        compared += 1
        lib.usdtkit_sweep_x86_64(view + at, length, begins, flows, 1, end)
        if length == instruction.len and end.end == VENDOR:
            refused += 1
            assert 0x66 in code[at : at + length]
            continue
        kind, target = (flows[0].kind, flows[0].target + at) if end.flows else (0, 0)
        expected = others.get(instruction.mnemonic, kinds[instruction.flow_control])
        branch = instruction.near_branch_target if expected in (JUMP, BRANCH) else 0
        target = target % 2**64 if kind in (JUMP, BRANCH) else 0
        if (length, kind, target) != (instruction.len, expected, branch):
            differ.append((hex(at), code[at : at + 15].hex(), str(instruction)))
    assert differ == []
    assert compared > 50_000
    assert refused == 0 or path.endswith("libcrypto.so.3")


def test_aarch64_is_that_of_objdump(compile_c):
    """A whole C library, of which each word is compared."""
    libc = "/usr/aarch64-linux-gnu/lib/libc.so.6"
    with Image.open(libc) as image:
        section = image.section(".text")
        code, start = image.data(section), section.address
    listing = subprocess.run(
        ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", "--section=.text", libc],
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    room = len(code) // 4
    begins, flows, end = ffi.new("uint8_t[]", len(code)), ffi.new("usdtkit_flow[]", room), ffi.new("usdtkit_sweep *")
    lib.usdtkit_sweep_aarch64(code, len(code), begins, flows, room, end)
    ours = {f.at + start: (f.kind, f.target + start if f.kind in (JUMP, BRANCH) else 0) for f in flows[0 : end.flows]}
    compared, differ = 0, []
    for line in listing.splitlines():
        address, colon, text = line.partition(":\t")
        if not colon or ".word" in text or "undefined" in text:
            continue
        word, _, operands = text.partition("\t")
        kind = AARCH64.get(word, BRANCH if word.startswith("b.") else 0)
        if word == "ret" and operands:
            kind = INDIRECT
        target = int(operands.split("<")[0].split(",")[-1], 16) if kind in (JUMP, BRANCH) else 0
        compared += 1
        if ours.get(int(address, 16), (0, 0)) != (kind, target):
            differ.append((line, ours.get(int(address, 16))))
    assert differ == []
    assert compared > 200_000
