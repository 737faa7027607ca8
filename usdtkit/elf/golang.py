"""The peculiarities of Go programs: how to recognise them, which of their functions follow Go's calling convention,
and at which instruction a call of one is counted.

Input: an `Image`, names, and decoded code; used by every module of `usdtkit.elf` that has to treat Go differently. A
function of Go may have to grow its stack when it is entered: its first instructions compare the stack pointer with the
limit of the goroutine. If the stack is too small, the function calls `runtime.morestack` and begins again on
another stack. A probe on the first instruction would count such a call twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from usdtkit.elf.constants import PT_NOTE
from usdtkit.elf.flows import BRANCH, CALL, JUMP
from usdtkit.elf.image import Image
from usdtkit.errors import ElfError

_SECTIONS = frozenset((".go.buildinfo", ".gopclntab", ".note.go.buildid", ".data.rel.ro.gopclntab"))
_NOTE_OWNER = b"Go"
_MAGIC = b"\xff Go buildinf:"
_VERSION_AT = 32  # a byte of length, and the text
_INLINE = 2  # a flag: the version is part of the data, as since Go 1.18
# These functions switch stacks, or cross between Go's code and other code.
_SWITCHING = frozenset(
    f"runtime.{name}"
    for name in (
        *("asmcgocall", "callbackasm", "callbackasm1", "cgocallback", "cgoSigtramp", "goexit", "gogo", "mcall"),
        *("morestack", "morestack_noctxt", "mstart", "reflectcall", "rt0_go", "sigreturn", "sigtramp"),
        *("systemstack", "systemstack_switch"),
    )
)


def is_go(image: Image) -> bool:
    """Whether Go's linker made the file. Go moves stacks, and a return address that a probe has replaced then ends the
    program."""
    if any(section.name in _SECTIONS for section in image.sections):
        return True
    for segment in image.segments if not image.sections else ():
        if segment.type == PT_NOTE:
            try:
                if any(owner == _NOTE_OWNER for owner, _, _ in image.notes(segment.offset, segment.file_size)):
                    return True
            except ElfError:  # damaged notes do not say that it is Go
                continue
    return False


def refusal(image: Image, name: str) -> str:
    """Return why Go's own convention does not say where a function of a Go program returns; "" if it does."""
    if not _is_recent(image):
        return "it was built by Go before 1.18, or by an unknown version"
    if name.endswith(".abi0"):
        return "it is assembler code of Go (ABI0), which does not keep the goroutine in a register"
    if "." not in name:
        return "it is C or assembler code in a Go program"
    if name in _SWITCHING:
        return "it switches stacks"
    return ""


def stack_check(start: int, flows: Sequence[tuple[int, int, int, int]]) -> int:
    """Bytes from the start of a function to the instruction behind its stack check, 0 if it has none.

    `flows` are (address, length, kind, target) of the instructions that change the flow of control. The check is one
    or two branches to a block that makes one call and jumps back to the start.
    """
    again = [at for at, _, kind, target in flows if kind == JUMP and target == start]
    behind = 0
    for at, length, kind, target in flows:
        if kind != BRANCH or not any(_calls_once(flows, target, back) for back in again):
            break
        behind = at + length - start
    return behind


def _calls_once(flows: Sequence[tuple[int, int, int, int]], low: int, high: int) -> bool:
    return [kind for at, _, kind, _ in flows if low <= at < high] == [CALL]


def goid_offset(image: Image) -> int:
    """Bytes from the start of a goroutine's descriptor (the runtime's struct g) to its number; 0 if unknown.

    A member was added before it in Go 1.23.
    """
    version = re.match(rb"go1\.(\d+)", _version(image))
    minor = int(version[1]) if version else 0
    return 152 if 18 <= minor < 23 else 160 if minor in (23, 24) else 0


def _is_recent(image: Image) -> bool:
    return bool(_version(image))


def _version(image: Image) -> bytes:
    """The version of Go that the file states, which files do since Go 1.18."""
    section = image.section(".go.buildinfo")
    try:
        data = image.read(section.offset, min(section.size, 64)) if section is not None else b""
    except ElfError:
        return b""
    if not data.startswith(_MAGIC) or len(data) <= _VERSION_AT or not data[15] & _INLINE:
        return b""
    return data[_VERSION_AT + 1 :][: data[_VERSION_AT]] or b"?"
