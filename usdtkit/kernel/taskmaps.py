"""What all processes have mapped to execute, read from the kernel's own structures by an iterator (Linux 5.12).

Input: the kernel's BTF, which says where its structures have what. Output: `TaskMapping`s: of all processes, of one, or
of each file only the first, and that only once. Reading those of 500 processes takes the kernel 12 ms, where
/proc/PID/maps takes 55. It needs CAP_BPF and CAP_PERFMON only, and it is the only way to learn which inode a process
really runs where an overlay shows another: that one is what probes are attached to.

`usdtkit.mappings` tells what processes map from now on. `usdtkit.trace` uses this for its first look, and after that
stream has lost something.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Sequence

from usdtkit._ffi import check, ffi, lib
from usdtkit.bpf.bytecode import Bytecode, MapDescription
from usdtkit.bpf.uapi import (
    ADD_IMMEDIATE,
    CALL,
    EXIT,
    JUMP,
    JUMP_IF_SET,
    JUMP_IF_UNEQUAL_0,
    JUMP_IF_ZERO,
    LOAD,
    LOAD32,
    LOAD_IMMEDIATE,
    MAP_HASH,
    MAP_LOOKUP,
    MAP_UPDATE,
    MOVE,
    MOVE_IMMEDIATE,
    NO_PREALLOC,
    PSEUDO_MAP_FD,
    SEQ_WRITE,
    STORE,
    STORE32,
    STORE_IMMEDIATE,
    assemble,
)
from usdtkit.errors import UnsupportedError
from usdtkit.kernel.load import Loaded
from usdtkit.records import NamedTuple

BTF = "/sys/kernel/btf/vmlinux"
ALL, FRESH = "all", "fresh"  # the two programs
MOST_FILES = 1 << 17
_PART = 1 << 20  # bytes of one read
_RECORD = struct.Struct("=2I4Q2I")
_NAMES = (
    "func:bpf_iter_task_vma",
    "task_struct.tgid",
    "vm_area_struct.vm_flags",
    "vm_area_struct.vm_file",
    "vm_area_struct.vm_start",
    "vm_area_struct.vm_end",
    "vm_area_struct.vm_pgoff",
    "file.f_inode",
    "inode.i_ino",
    "inode.i_sb",
    "inode.i_generation",
    "super_block.s_dev",
)
RETURN_INSTANCES = (
    "task_struct.utask",
    "uprobe_task.return_instances",
    "return_instance.stack",
    "return_instance.orig_ret_vaddr",
    "return_instance.next",
)
"""What leads from a thread to its pending return probes, and what these keep."""
THREAD_POINTER_MEMBERS = ("task_struct.thread", "thread_struct.fsbase")
"""Where the kernel keeps, with a thread's registers, the thread pointer. It is what pthread_self() returns. On aarch64
that lies below it, by the size of a structure of the C library, so no thread is found there."""
SIGNALS = ("task_struct.sighand", "sighand_struct.action", "task_struct.blocked")
"""What a process does when a signal comes, and those that it blocks."""
TASK_MEMBERS = ("task_struct.tgid", "task_struct.signal", "signal_struct.live")
"""The process of a thread, and how many of its threads have not ended."""
_known: dict[str, int] = {}
_EXECUTABLE = 4  # VM_EXEC
_MINOR_BITS = 20  # of the kernel's dev_t


class TaskMapping(NamedTuple):
    """One executable mapping of a file in the process `pid`: its addresses, and the page `offset` of `start` in bytes.

    `major`, `minor`, `inode` and `generation` are those of the inode that the kernel attaches to.
    """

    pid: int
    major: int
    minor: int
    inode: int
    generation: int
    start: int
    end: int
    offset: int

    @property
    def key(self) -> tuple[int, int, int, int]:
        """What tells the file from all others."""
        return self.major, self.minor, self.inode, self.generation


class TaskMappings:
    """The iterator, loaded. UnsupportedError where the kernel has none, or does not say where its structures have what;
    PrivilegeError."""

    def __init__(self) -> None:
        places = places_of(_NAMES)
        programs = {name: _program(places, fresh=name == FRESH) for name in (ALL, FRESH)}
        self._loaded = Loaded(
            Bytecode((MapDescription("seen", MAP_HASH, 16, 4, MOST_FILES, NO_PREALLOC),), programs, "")
        )
        try:
            self._programs = {name: self._loaded.iterator(name, places[_NAMES[0]]) for name in programs}
        except BaseException:
            self.close()
            raise

    def of(self, pid: int = 0) -> Iterator[TaskMapping]:
        """The executable mappings of files of a process, or with 0 of all processes."""
        return self._read(self._programs[ALL], pid)

    def fresh(self) -> Iterator[TaskMapping]:
        """A mapping of each file that no earlier call of this has given."""
        return self._read(self._programs[FRESH], 0)

    def close(self) -> None:
        """Free everything."""
        self._loaded.close()

    def _read(self, program: int, pid: int) -> Iterator[TaskMapping]:
        iterator = check(lib.usdtkit_iterator(program, pid), "reading what processes map")
        try:
            rest = b""
            while part := os.read(iterator, _PART):
                data = rest + part
                whole = len(data) // _RECORD.size * _RECORD.size
                for pid_, device, inode, start, end, page, generation, _ in _RECORD.iter_unpack(data[:whole]):
                    major, minor = device >> _MINOR_BITS, device & (1 << _MINOR_BITS) - 1
                    offset = page * os.sysconf("SC_PAGESIZE")
                    yield TaskMapping(pid_, major, minor, inode, generation, start, end, offset)
                rest = data[whole:]
        finally:
            os.close(iterator)


def places_of(members: Sequence[str]) -> dict[str, int]:
    """Where the kernel's structures have these members ("task_struct.tgid"), and the numbers of functions ("func:…").
    UnsupportedError."""
    if not _known.keys() >= set(members):  # reading the types takes long, so all that is usual is looked for at once
        _known.update(_find({*members, *RETURN_INSTANCES, *THREAD_POINTER_MEMBERS, *SIGNALS, *TASK_MEMBERS, *_NAMES}))
    places = {name: _known[name] for name in members}
    if missing := [name for name, place in places.items() if place < 0]:
        raise UnsupportedError(f"this kernel has no {missing[0]} to read", hint="Linux 5.12 or newer")
    return places


def _find(members: Iterable[str]) -> dict[str, int]:
    """The same, with negative numbers for what the kernel does not have."""
    try:
        with open(BTF, "rb", buffering=0) as file:  # noqa: PTH123 importing pathlib takes long
            try:  # since Linux 6.16, and quicker than to read it
                data: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
            except (OSError, ValueError):
                data = file.readall()
    except OSError as error:
        raise UnsupportedError(f"{BTF}: {error.strerror}", hint="a kernel with CONFIG_DEBUG_INFO_BTF") from None
    members = list(members)
    names, found = [ffi.new("char[]", name.encode()) for name in members], ffi.new("int32_t[]", len(members))
    check(lib.usdtkit_btf_find(ffi.from_buffer(data), len(data), names, len(names), found), f"reading {BTF}")
    return dict(zip(members, found, strict=True))


def _program(places: dict[str, int], *, fresh: bool) -> bytes:
    """The program, which writes a record for each mapping of a file to execute; with `fresh` only for a file that is
    not in the map yet."""
    at = {name.rpartition(".")[2]: place for name, place in places.items()}
    pid, device, inode, start, end, page, generation = (-_RECORD.size + place for place in (0, 4, 8, 16, 24, 32, 40))
    key = -_RECORD.size - 16  # the inode, the device and the generation
    value = key - 8
    end_of_program = None
    # r6 is the context, r7 the process, r8 its mapping, r9 the inode.
    code: list[tuple[int, int, int | None, int]] = [
        (MOVE, 0x16, 0, 0),
        (LOAD, 0x67, 8, 0),
        (JUMP_IF_ZERO, 0x07, end_of_program, 0),
        (LOAD, 0x68, 16, 0),
        (JUMP_IF_ZERO, 0x08, end_of_program, 0),
        (LOAD, 0x81, at["vm_flags"], 0),
        (JUMP_IF_SET, 0x01, 1, _EXECUTABLE),
        (JUMP, 0x00, end_of_program, 0),
        (LOAD, 0x89, at["vm_file"], 0),
        (JUMP_IF_ZERO, 0x09, end_of_program, 0),
        (LOAD, 0x99, at["f_inode"], 0),
        (LOAD32, 0x71, at["tgid"], 0),
        (STORE32, 0x1A, pid, 0),
        (LOAD, 0x91, at["i_sb"], 0),
        (LOAD32, 0x11, at["s_dev"], 0),
        (STORE32, 0x1A, device, 0),
        (STORE32, 0x1A, key + 8, 0),
        (LOAD, 0x91, at["i_ino"], 0),
        (STORE, 0x1A, inode, 0),
        (STORE, 0x1A, key, 0),
        (LOAD32, 0x91, at["i_generation"], 0),
        (STORE, 0x1A, generation, 0),  # with four bytes of zeros
        (STORE32, 0x1A, key + 12, 0),
    ]
    for member, place in (("vm_start", start), ("vm_end", end), ("vm_pgoff", page)):
        code += [(LOAD, 0x81, at[member], 0), (STORE, 0x1A, place, 0)]
    if fresh:
        the_map = ((LOAD_IMMEDIATE, PSEUDO_MAP_FD << 4 | 1, 0, 0), (0, 0, 0, 0))
        the_key = ((MOVE, 0xA2, 0, 0), (ADD_IMMEDIATE, 0x02, 0, key))
        code += [*the_map, *the_key, (CALL, 0x00, 0, MAP_LOOKUP), (JUMP_IF_UNEQUAL_0, 0x00, end_of_program, 0)]
        code += [(STORE_IMMEDIATE, 0x0A, value, 1), *the_map, *the_key, (MOVE, 0xA3, 0, 0)]
        code += [(ADD_IMMEDIATE, 0x03, 0, value), (MOVE_IMMEDIATE, 0x04, 0, 0), (CALL, 0x00, 0, MAP_UPDATE)]
    code += [
        (LOAD, 0x61, 0, 0),  # seq_write(context->meta->seq, record, size)
        (LOAD, 0x11, 0, 0),
        (MOVE, 0xA2, 0, 0),
        (ADD_IMMEDIATE, 0x02, 0, -_RECORD.size),
        (MOVE_IMMEDIATE, 0x03, 0, _RECORD.size),
        (CALL, 0x00, 0, SEQ_WRITE),
        (MOVE_IMMEDIATE, 0x00, 0, 0),  # return 0
        (EXIT, 0x00, 0, 0),
    ]
    last = len(code) - 2
    return assemble(
        *(
            (opcode, registers, last - index - 1 if offset is None else offset, immediate)
            for index, (opcode, registers, offset, immediate) in enumerate(code)
        )
    )
