"""The peculiarities of Go programs: how to recognise them, what they say of their making, which of their functions
follow Go's calling convention, and at which instruction a call of one is counted.

Input: an `Image`, names, and decoded code; used by every module of `usdtkit.elf` that has to treat Go differently. A
function of Go may have to grow its stack when it is entered: its first instructions compare the stack pointer with the
limit of the goroutine. If the stack is too small, the function calls `runtime.morestack` and begins again on
another stack. A probe on the first instruction would count such a call twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from usdtkit.elf.constants import PF_W, PT_LOAD, PT_NOTE
from usdtkit.elf.flows import BRANCH, CALL, JUMP
from usdtkit.elf.godwarf import member_offset
from usdtkit.elf.image import Image, Section
from usdtkit.elf.relocations import Relocations
from usdtkit.errors import ElfError, UsdtkitError
from usdtkit.records import NamedTuple

ASSEMBLER = ".abi0"
"""What the linker appends to the name of a function with the older calling convention, if it has two of one name."""
TABLE_FORMATS = {0xFFFFFFFB: 2, 0xFFFFFFFA: 16, 0xFFFFFFF0: 18, 0xFFFFFFF1: 20}
"""The first four bytes of the table of functions → the minor version of Go that introduced the format."""
TABLE_HEAD = 8
"""Bytes: the number above, two of zero, the smallest size of an instruction, and the size of a pointer."""

_TABLES = (".gopclntab", ".data.rel.ro.gopclntab")
_SECTIONS = frozenset((".go.buildinfo", ".note.go.buildid", *_TABLES))
_NOTE_OWNER = b"Go"
_MAGIC = b"\xff Go buildinf:"
_FLAGS_AT, _HEAD = 15, 32  # bytes
_INLINE = 2  # a flag: the texts follow the head
_MARK = 16  # bytes around the lines about modules
_LONGEST, _LONGEST_WORD = 1 << 20, 256
_NEWEST = 27  # the minor version up to which the descriptor of a goroutine is known
# The minor version since which arguments, and the goroutine, are in registers.
_FIRST_WITH_REGISTERS = {"x86_64": 17}
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


def convention(image: Image) -> str:
    """How the functions of a file are called, as `Function.convention` has it; "" if it is not a Go program.

    It depends on the version; if that is not stated, on the format of the table of functions, which says it roughly.
    """
    if not is_go(image):
        return ""
    if image.bits == 32:
        return "go-i386"
    minor = minor_version(image)
    if not minor and (section := table_section(image)) is not None and section.size >= TABLE_HEAD:
        minor = table_format(image, image.read(section.offset, TABLE_HEAD))
    return "go" if minor >= _FIRST_WITH_REGISTERS.get(image.machine, 18) else "go-stack"


def refusal(convention: str, name: str) -> str:
    """Return why Go's own convention does not say where a function of a Go program returns; "" if it does."""
    if name.endswith(ASSEMBLER):
        return "it is assembler code of Go (ABI0), which does not keep the goroutine in a register"
    if convention != "go":
        return "it was built by Go before 1.17, or by an unknown version"
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


def table_section(image: Image) -> Section | None:
    """The section with Go's table of functions, which `usdtkit.elf.pclntab` reads."""
    return next((section for section in image.sections if section.name in _TABLES), None)


def table_format(image: Image, data: bytes) -> int:
    """The minor version of Go that introduced the format of a table; 0 if it is not known."""
    head = data[:TABLE_HEAD]
    if len(head) < TABLE_HEAD or head[4:6] != b"\0\0" or head[6] not in (1, 2, 4) or head[7] not in (4, 8):
        return 0
    return TABLE_FORMATS.get(int.from_bytes(head[:4], image.order), 0)


class Build(NamedTuple):
    """What a Go program says of its making: `version` of Go ("go1.19.8"), its main `module`, and that one's version.

    What is not known is "".
    """

    version: str
    module: str
    module_version: str

    def __str__(self) -> str:
        module = f", module {self.module} {self.module_version}".rstrip() if self.module else ""
        return (self.version or "an unknown version of Go") + module


def build(image: Image) -> Build | None:
    """What the file says of its making; None if it is not a Go program."""
    if not is_go(image):
        return None
    version = text = b""
    with suppress(ElfError, IndexError):  # damaged: then it is not known
        version, text = _build_texts(image)
    if len(text) > 2 * _MARK and text[-_MARK - 1 :][:1] == b"\n":  # it lies between two marks
        text = text[_MARK:-_MARK]
    module = module_version = ""
    for line in text.decode("utf-8", "surrogateescape").splitlines():
        key, *values = line.split("\t")
        if values and (key == "mod" or (key == "path" and not module)):
            module, module_version = (value[:_LONGEST_WORD] for value in (*values, "")[:2])
    return Build(version[:_LONGEST_WORD].decode("utf-8", "surrogateescape"), module, module_version)


def build_of(path: str) -> Build | None:
    """What a file says of its making; None if it is not a Go program, or cannot be read by its path."""
    try:
        with Image.open(path) as image:
            return build(image)
    except UsdtkitError:
        return None


def minor_version(image: Image) -> int:
    """19 for Go 1.19.8, 0 if it is not known."""
    described = build(image)
    version = re.search(r"\bgo1\.(\d{1,4})", described.version) if described is not None else None
    return int(version[1]) if version else 0


def goid_offset(image: Image) -> int:
    """Bytes from the start of a goroutine's descriptor (the runtime's struct g) to its number; 0 if unknown.

    A member was added before it in Go 1.23, and another one was removed in Go 1.25. Of versions that have not been
    released yet, DWARF tells it, if the program has that.
    """
    described = build(image)
    if described is None:
        return 0
    minor = minor_version(image)
    if "devel" in described.version or not 17 <= minor <= _NEWEST:
        return member_offset(image, b"runtime.g", b"stack", b"goid")
    return 160 if minor in (23, 24) else 152


def _build_texts(image: Image) -> tuple[bytes, bytes]:
    """The version, and the lines about modules: behind the head since Go 1.18, before that where it says."""
    data = _build_data(image)
    if data[_FLAGS_AT] & _INLINE:
        version, at = _counted(data, _HEAD)
        return version, _counted(data, at)[0]
    word, relocations = image.bits // 8, Relocations(image)
    texts = []
    for at in (16, 16 + word):
        header = int.from_bytes(data[at : at + word], image.order)
        size = int.from_bytes(image.loaded(header + word, word), image.order)
        texts.append(image.loaded(relocations.pointer(header), min(size, _LONGEST)))
    return texts[0], texts[1]


def _build_data(image: Image) -> bytes:
    """What begins with the mark of the description: a section, or part of the data where there are no sections."""
    section = image.section(".go.buildinfo")
    if section is not None:
        return image.read(section.offset, min(section.size, _LONGEST))
    for segment in image.segments if not image.sections else ():
        if segment.type == PT_LOAD and segment.flags & PF_W:
            data = image.read(segment.offset, segment.file_size)
            if (at := data.find(_MAGIC)) >= 0:
                return data[at : at + _LONGEST]
    return b""


def _counted(data: bytes, at: int) -> tuple[bytes, int]:
    """A text after its size, and where it ends."""
    size, at = varint(data, at)
    return data[at : at + size], at + size


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends. IndexError beyond the end of the data."""
    number = data[at] & 0x7F
    shift = 0
    while data[at] & 0x80:
        at, shift = at + 1, shift + 7
        if shift > 28:
            raise IndexError
        number |= (data[at] & 0x7F) << shift
    return number, at + 1
