"""An open ELF file with CPython in it → which CPython it is, and where a walk finds what it reads.

Input `usdtkit.elf.image.Image`; output `Build`. `usdtkit.unwind.pythons` says which build a process runs, and whether
what it finds there looks like it. Up to 3.12 the layout is one of a table by version. From 3.13 on the file says it, in
the variable _PyRuntime, whose numbers are checked: damaged ones must not lead anywhere.

The variable is found by its symbol, which every build exports that has not been linked into another program; there
by its section (3.10), or in a file without sections by its first bytes (3.13). The version is the value of another
symbol (3.11), or is part of the name of a directory, which every build has as a text.
"""

from __future__ import annotations

import re
import struct

from usdtkit.elf.constants import PF_W, PT_LOAD
from usdtkit.elf.image import Image, Segment, places
from usdtkit.elf.symbols import variables
from usdtkit.errors import ElfError, UnsupportedError
from usdtkit.records import dataclass
from usdtkit.signatures.cpython import BEFORE_SHIM, DEBUG_COOKIE, GROUPS, LAYOUTS, Layout
from usdtkit.unwind.runtimes import Evaluation, code_of

LAYOUT = struct.Struct(f"<{len(Layout._fields)}I")
"""struct python_layout of bpf/pythonframes.c."""

RUNTIME, SECTION = "_PyRuntime", ".PyRuntime"
EVALUATION = "_PyEval_EvalFrameDefault"
_VERSION = "Py_Version"
# A directory of modules, as in "lib/python3.9".
_DIRECTORY = re.compile(rb"\0(?:[a-z0-9_/]{0,40}/)?python3\.([0-9]{1,2})(?=\0)")
_MOST_SIZE = 1 << 24  # bytes of _PyRuntime, of an interpreter or of a thread state
_MOST_FRAME = 112  # bytes that the kernel reads of a frame
_OLDEST, _NEWEST = min(LAYOUTS), (3, max(GROUPS))
_HEADER = struct.Struct("<8sQQ")


@dataclass(frozen=True, slots=True)
class Build:
    """The CPython of one file: `version` as (3, 11), and the virtual addresses of _PyRuntime and of the evaluation
    function. `path` is the file's."""

    path: str
    version: tuple[int, int]
    runtime: int
    layout: Layout
    evaluation: Evaluation
    code: tuple[Segment, ...]


def packed(layout: Layout) -> bytes:
    """The layout as the kernel reads it."""
    return LAYOUT.pack(*layout)


def build_of(image: Image) -> Build | None:
    """Return the CPython that is in a file; None if there is none. UnsupportedError, with the reason, if there is one
    whose frames cannot be found. ElfError."""
    if image.machine not in ("x86_64", "aarch64"):
        return None
    runtime = variables(image, RUNTIME).get(RUNTIME)
    if runtime is None:
        section = image.section(SECTION)
        runtime = section.address if section is not None else _by_cookie(image)
    if runtime is None:
        return None
    header = _bytes(image, runtime, _HEADER.size)
    cookie, number, free_threaded = _HEADER.unpack(header) if header else (b"", 0, 0)
    free_threaded = free_threaded and cookie == DEBUG_COOKIE
    version: tuple[int, int] | None
    if cookie == DEBUG_COOKIE:
        version = _minor_version(number)
    elif (at := variables(image, _VERSION).get(_VERSION)) is not None:
        version = _minor_version(int.from_bytes(_bytes(image, at, 8), "little"))
    else:
        version = _version_by_directory(image)
    version = _supported(image, version, cookie == DEBUG_COOKIE)
    if free_threaded:
        raise UnsupportedError(
            f"{image.path}: CPython {_text(version)} was built without a GIL, which is not supported"
        )
    layout = LAYOUTS.get(version)
    if cookie == DEBUG_COOKIE:
        layout = layout_of(version, _bytes(image, runtime, _size_of_offsets(version)))
    if layout is None:
        raise UnsupportedError(f"{image.path}: what CPython {_text(version)} says of its own layout is not plausible")
    return Build(image.path, version, runtime, layout, Evaluation(image, EVALUATION), code_of(image))


def layout_of(version: tuple[int, int], offsets: bytes) -> Layout | None:
    """The layout that an interpreter from 3.13 on says of itself, by the bytes of its _Py_DebugOffsets; None if they
    are not plausible."""
    groups = GROUPS[version[1]]
    if len(offsets) < _size_of_offsets(version):
        return None
    words = struct.unpack_from(f"<{_size_of_offsets(version) // 8}Q", offsets)
    at, parts = 3, []
    for size in (3, groups.interpreter, groups.thread, groups.frame, groups.code):
        parts.append(words[at : at + size])
        at += size
    runtime, interpreter, thread, frame, code = parts
    layout = Layout(
        version=version[0] << 8 | version[1],
        interpreters=runtime[2],
        interpreter_next=interpreter[2],
        threads=interpreter[3],
        thread_next=thread[2],
        thread_interpreter=thread[3],
        thread_id=thread[groups.thread_id],
        thread_frame=thread[4],
        indirect=0,
        frame_size=(frame[5] & ~7) + 8,
        previous=frame[1],
        code=frame[2],
        tag=0 if version < (3, 14) else 7,
        at=frame[3],
        at_is_number=0,
        entry=frame[5],
        entries=BEFORE_SHIM,
        file=code[1],
        name=code[3],
        first_line=code[5],
        lines=code[4],
        instructions=code[9],
        ascii=40,
        text=56,
    )
    of_frame = (layout.previous, layout.code, layout.at)
    plausible = (
        layout.interpreters + 16 <= runtime[0] <= _MOST_SIZE
        and max(layout.interpreter_next, layout.threads) + 8 <= interpreter[0] <= _MOST_SIZE
        and max(layout.thread_next, thread[3], layout.thread_id, layout.thread_frame) + 8 <= thread[0] <= _MOST_SIZE
        and max(of_frame) + 8 <= layout.frame_size <= min(frame[0], _MOST_FRAME)
        and max(layout.file, layout.name, layout.lines, layout.first_line) + 8 <= code[0] <= _MOST_SIZE
        and layout.instructions <= code[0]
        and not any(offset % 8 for offset in (*of_frame, *runtime[2:], layout.threads, layout.thread_id, *code[1:5]))
    )
    return layout if plausible else None


def _size_of_offsets(version: tuple[int, int]) -> int:
    """Bytes of _Py_DebugOffsets up to the end of what is read of it."""
    groups = GROUPS[version[1]]
    return _HEADER.size + 8 * (3 + groups.interpreter + groups.thread + groups.frame + groups.code)


def _supported(image: Image, version: tuple[int, int] | None, says_layout: bool) -> tuple[int, int]:
    """The version, if its layout is known. UnsupportedError."""
    if version is None:
        raise UnsupportedError(f"{image.path}: CPython of an unknown version")
    if version in LAYOUTS if not says_layout else version[0] == 3 and version[1] in GROUPS:
        return version
    problem = f"older than {_text(_OLDEST)}" if version < _OLDEST else f"newer than {_text(_NEWEST)}"
    if _OLDEST <= version <= _NEWEST:
        problem = "without what says its layout"
    raise UnsupportedError(f"{image.path}: CPython {_text(version)} is {problem}")


def _minor_version(number: int) -> tuple[int, int]:
    """Of PY_VERSION_HEX."""
    return number >> 24 & 0xFF, number >> 16 & 0xFF


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _by_cookie(image: Image) -> int | None:
    """The variable by its first bytes, in what is loaded to be written to, of a file without sections."""
    for segment in () if image.sections else image.segments:
        if segment.type == PT_LOAD and segment.flags & PF_W and segment.file_size <= _MOST_SIZE:
            for at in places(image.read(segment.offset, segment.file_size), DEBUG_COOKIE):
                header = _bytes(image, segment.address + at, _HEADER.size)
                if (segment.address + at) % 8 == 0 and header and _minor_version(_HEADER.unpack(header)[1])[0] == 3:
                    return segment.address + at
    return None


def _version_by_directory(image: Image) -> tuple[int, int] | None:
    section = image.section(".rodata")
    if section is None:
        return None
    found = {int(minor) for minor in _DIRECTORY.findall(image.data(section))}
    return (3, found.pop()) if len(found) == 1 else None


def _bytes(image: Image, address: int, size: int) -> bytes:
    """What the file has at a virtual address; b"" if it has not all of it."""
    try:
        return image.loaded(address, size)
    except ElfError:
        return b""
