"""An open ELF file → the reason why its code may leave a function without returning from it, or may switch stacks.

Input `usdtkit.elf.image.Image`; used by `usdtkit.trace`, which asks this of every file that a process maps before it
puts a return probe of the kernel into the process. Such a probe replaces the return address on the stack during the
call. Code that reads the address there during that time crashes the program. A false alarm costs a few microseconds a
call, because then the instructions by which the function leaves are probed instead. A missed reason can end the
program.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from usdtkit.elf.constants import DT_SONAME, PF_X, PT_LOAD, SHT_DYNAMIC, SHT_NOBITS
from usdtkit.elf.golang import is_go
from usdtkit.elf.image import Image
from usdtkit.elf.tables import Table, tables
from usdtkit.errors import ElfError

RETURNS_TWICE = frozenset(
    ("setjmp", "_setjmp", "__setjmp", "sigsetjmp", "__sigsetjmp", "getcontext", "__getcontext", "savectx")
)
"""Functions of C libraries that return a second time when something jumps back to them.

The second return goes to the address that lay on the stack at the first return, which with a return probe is that of
the probe. vfork does not count: its second return happens in another process, for which the kernel copies its records.
"""

_MOST_ENTRIES = 4096
# Other files use what these offer, and are recognised by their imports.
_EXEMPT = frozenset(
    (
        *("libc.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"),
        *("libc.so", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"),
    )
)
# After these calls the process runs another program, whose files have not been examined.
_BECOMES_ANOTHER = ("execve", "execv", "execvp", "execvpe", "execl", "execlp", "execle", "fexecve", "execveat")
_NAMES = (
    *("__gxx_personality_v0", "__gcc_personality_v0", "__cxa_throw", "__cxa_rethrow", "__cxa_begin_catch"),
    *("pthread_cancel", "pthread_exit", "thrd_exit", "__pthread_unwind_next", "__pthread_register_cancel"),
    *("swapcontext", "setcontext", "makecontext", "jump_fcontext", "make_fcontext", "ontop_fcontext"),
    *("longjmp", "_longjmp", "siglongjmp", "__longjmp_chk", "backtrace", "dlopen", "dlmopen", "__libc_dlopen_mode"),
    *_BECOMES_ANOTHER,
)
_HANDLES_SIGNALS = ("sigaction", "signal", "bsd_signal", "__sysv_signal", "sigset", "sigvec")
_CANCELS_ANYWHERE = "pthread_setcanceltype"
_MOST_CODE = 256 << 20  # bytes
# Instructions that set the stack pointer from another register or from memory, as code that switches stacks does: on
# x86-64 `mov` and `xchg`, except from %rbp and from what is saved below it, with which functions end; on aarch64
# `mov sp, x` except from the frame pointer. Other code can look like this, such as the end of an array of variable
# length or the middle of longer instructions. It only makes the probes in that file dearer.
_SETS_STACK_POINTER = {
    "x86_64": rb"\x48(?:\x89[\xc4\xcc\xd4\xdc\xf4\xfc]"
    rb"|\x8b[\x20-\x27\x60-\x64\x66\x67\xa0-\xa4\xa6\xa7\xe0-\xe3\xe6\xe7]"
    rb"|\x87[\x20-\x27\x60-\x67\xa0-\xa7\xe0-\xe3\xe5-\xe7\xc4\xcc\xd4\xdc\xec\xf4\xfc])"
    rb"|\x49[\x8b\x87][\x20-\x27\x60-\x67\xa0-\xa7\xe0-\xe7]"
    rb"|\x4c[\x89\x87][\xc4\xcc\xd4\xdc\xe4\xec\xf4\xfc]",
    "aarch64": rb"(?!\xbf\x03|\xff\x03)[\x1f\x3f\x5f\x7f\x9f\xbf\xdf\xff][\x00-\x03]\x00\x91",
}
_PREFIX = b"_Unwind_"
_GREENLET = "PyInit__greenlet"


def may_leave(image: Image) -> str:
    """Return why code of this file can leave a function, or switch stacks, unseen by a return probe; "" without reason.

    libc and the loader are exempt by their soname, because they do it only for the files that use them. A damaged file
    is a reason.
    """
    try:
        soname = _soname(image)
        if soname in _EXEMPT:
            return ""
        if soname.startswith("libgcc_s.so"):
            return "is libgcc_s, which unwinds stacks"
        if is_go(image):
            return "is a Go program"
        if any(section.name.startswith(".gcc_except_table") and section.size for section in image.sections):
            return "handles exceptions (.gcc_except_table)"
        if not image.sections:
            return "has no section headers, so that what it uses is not known"
        return _by_symbols(image) or _by_code(image)
    except (ElfError, struct.error) as error:
        return f"cannot be read: {error}"


def may_end_anywhere(images: Iterable[Image]) -> str:
    """Return why a signal may end a function of a process that maps these files at any of its instructions; "" if
    there is no reason. A function that calls nothing can end early in no other way.

    A signal handler may throw an exception through the function that it has interrupted, and a thread may be cancelled
    wherever it is. longjmp is no reason, because it does not look for a return address.
    """
    handles = unwinds = ""
    for image in images:
        try:
            if _soname(image) in _EXEMPT:
                continue
            for table in tables(image):
                if _symbol(table, _CANCELS_ANYWHERE) is not None:
                    return f"{image.path} uses {_CANCELS_ANYWHERE}"
                if not handles and any(_symbol(table, name) is not None for name in _HANDLES_SIGNALS):
                    handles = image.path
            why = may_leave(image)
            if why and not any(name in why for name in ("longjmp", "dlopen", *_BECOMES_ANOTHER)):
                unwinds = unwinds or f"{image.path} {why}"
        except (ElfError, struct.error) as error:
            return f"{image.path} cannot be read: {error}"
    return f"{handles} handles signals, and {unwinds}" if handles and unwinds else ""


def _by_code(image: Image) -> str:
    """The reason that the instructions give, for x86-64 and aarch64."""
    pattern = _SETS_STACK_POINTER.get(image.machine)
    if pattern is None:
        return ""
    import re  # lazy: most files are decided by a name

    sets_stack_pointer, left = re.compile(pattern), _MOST_CODE
    for segment in image.segments:
        if segment.type == PT_LOAD and segment.flags & PF_X:
            left -= segment.file_size
            if left < 0:
                return "has too much code to look through"
            if found := sets_stack_pointer.search(image.read(segment.offset, segment.file_size)):
                return f"sets the stack pointer at {segment.address + found.start():#x}"
    return ""


def _by_symbols(image: Image) -> str:
    """The reason that the names give which the file imports or defines."""
    for table in tables(image):
        if _symbol(table, _GREENLET) is not None:
            return "is greenlet, which switches stacks"
        for name in (*sorted(_prefixed(table)), *_NAMES):
            if (index := _symbol(table, name)) is not None:
                return f"{'defines' if table[index].is_defined else 'imports'} {name}"
    return ""


def _symbol(table: Table, name: str) -> int | None:
    """The index of a symbol of this name. The name can begin inside a longer one, because linkers share their ends."""
    name_bytes = name.encode() + b"\0"
    at = table.strings.find(name_bytes)
    while at >= 0:
        try:
            return table.names.index(at)
        except ValueError:  # the end of another name
            at = table.strings.find(name_bytes, at + 1)
    return None


def _prefixed(table: Table) -> set[str]:
    """The first names in the string table that begin like those of the unwinder."""
    found: set[str] = set()
    at = table.strings.find(b"\0" + _PREFIX)
    while at >= 0 and len(found) < 16:
        found.add(table.name(at + 1))
        at = table.strings.find(b"\0" + _PREFIX, at + 1)
    return found


def _soname(image: Image) -> str:
    """The name by which other files ask the loader for this one, "" if it has none."""
    section = next((section for section in image.sections if section.type == SHT_DYNAMIC), None)
    if section is None or section.link >= len(image.sections):
        return ""
    entry = struct.Struct(image.byte_order + ("QQ" if image.bits == 64 else "II"))
    strings = image.sections[section.link]
    data = image.read(section.offset, min(section.size, _MOST_ENTRIES * entry.size))
    for tag, value in entry.iter_unpack(data[: len(data) // entry.size * entry.size]):
        if tag == DT_SONAME and strings.type != SHT_NOBITS and value < strings.size:
            name = image.read(strings.offset + value, min(256, strings.size - value))
            return name.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return ""
