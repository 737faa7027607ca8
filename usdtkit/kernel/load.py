"""Bytecode → maps and programs in the kernel, linked with the values of this run.

Input: `Bytecode` from `usdtkit.bpf.compiler`. Output: `Loaded`, whose maps and programs `attach` and `trace` use.

The text of a program names its constants (thresholds, literals) by number only, so that one cached compilation serves
all values. PARAMETER_MAGIC in the upper half of a 64-bit constant marks such a number, and its value is put in its
place here, before the verifier looks. So does BY_TABLES_MAGIC, for whether the bytecode has the functions that walk
stacks by tables; CALLBACK_MAGIC marks those.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Mapping, Sequence

from usdtkit._ffi import TRANSIENT, check, describe, ffi, lib, privilege_hint
from usdtkit.bpf.bytecode import Bytecode
from usdtkit.bpf.uapi import (
    ATTACH_TYPE_ITERATOR,
    ATTACH_TYPE_NONE,
    ATTACH_TYPE_UPROBE_MULTI,
    ATTACH_TYPE_UPROBE_SESSION,
    BY_TABLES_MAGIC,
    CALL,
    CALLBACK_MAGIC,
    COPY_FROM_USER,
    EXIT,
    GET_ATTACH_COOKIE,
    INSTRUCTION,
    JUMP_IF_ZERO,
    LOAD_IMMEDIATE,
    MAP_ARRAY,
    MAP_ARRAY_OF_MAPS,
    MAP_HASH,
    MAP_LRU_HASH,
    MAP_PERCPU_ARRAY,
    MAP_PERCPU_HASH,
    MAP_RINGBUF,
    MOVE32_IMMEDIATE,
    MOVE_IMMEDIATE,
    PARAMETER_MAGIC,
    PROG_TYPE_KPROBE,
    PROG_TYPE_TRACING,
    PSEUDO_MAP_FD,
    SLEEPABLE,
    TAIL_CALL,
    assemble,
)
from usdtkit.bpf.walker import CALLBACKS
from usdtkit.errors import PrivilegeError, ProgramError, UnsupportedError, UsdtkitError
from usdtkit.kernel.callbacks import functions, with_callbacks
from usdtkit.kernel.dispatcher import dispatcher
from usdtkit.kernel.features import sleepable, try_map
from usdtkit.kernel.maps import Map

# Since Linux 6.13, a program whose stack has 64 bytes or more gets one that belongs to the processor, and no longer a
# part of the thread's. For uprobes this is a fault of the kernel: a thread can be preempted within a program, or wait
# for a page there, and the next one that runs it on the same processor then overwrites its stack. A pointer that was
# kept there leads anywhere, and the kernel ends the traced thread. Programs with a tail call get no such stack. So each
# begins with one that is never reached, which the verifier sees, and removes when it has decided about the stack.
ON_OWN_STACK = assemble(
    (MOVE_IMMEDIATE, 0, 0, 0),
    (JUMP_IF_ZERO, 0, 3, 0),
    (CALL, 0, 0, TAIL_CALL),
    (MOVE_IMMEDIATE, 0, 0, 0),
    (EXIT, 0, 0, 0),
)
LOG_SIZE = (1 << 24) - 1  # the most that every kernel accepts; the reason is at the end, which a smaller log cuts off
SLEEPABLE_MAPS = {MAP_HASH, MAP_LRU_HASH, MAP_ARRAY, MAP_PERCPU_HASH, MAP_PERCPU_ARRAY, MAP_RINGBUF, MAP_ARRAY_OF_MAPS}

_NONE: Mapping[int, bytes] = {}
# Lines of the verifier's log that give no reason: statistics, instructions, and states of registers.
_NO_REASON = r"processed |verification |(old|cur) state:|from \d+|\d+: |mark_precise|R\d+\w*=|[;(]"


class Loaded:
    """The maps of one compiled text, by name, and its programs, which are loaded when they are first asked for.

    Close it to free all of them.
    """

    def __init__(
        self, bytecode: Bytecode, parameters: Sequence[int] = (), max_entries: Mapping[str, int] | None = None
    ) -> None:
        """`parameters`: values by number, taken modulo 2**64. `max_entries`: sizes of maps that differ from the
        text's."""
        require_bpf()
        self._bytecode = bytecode
        self._callbacks = [name for name in CALLBACKS if name in bytecode.programs]
        self._parameters = parameters
        self._programs: dict[tuple[object, ...], int] = {}
        self.maps: dict[str, Map] = _Maps()
        # A sleepable program can bring in a page of the process that is not in memory, but not with every type of map.
        types = {description.type for description in bytecode.maps}
        self._sleepable = types <= SLEEPABLE_MAPS and sleepable().state == "found"
        try:
            for description in bytecode.maps:
                size = (max_entries or {}).get(description.name)
                self.maps[description.name] = Map(description, size)
        except BaseException:
            self.close()
            raise

    def program(
        self,
        name: str,
        attach_type: int = ATTACH_TYPE_NONE,
        cookie: int | None = None,
        *,
        type: int = PROG_TYPE_KPROBE,
    ) -> int:
        """Load a program, once for each way to attach it, and return its descriptor, which this object keeps.

        With `cookie` (32 bits), the program carries it as a constant, for links that cannot carry one.
        """
        key = (name, type, attach_type, cookie)
        if key not in self._programs:
            sleepable = self._sleepable and type == PROG_TYPE_KPROBE
            code = self._code(name, cookie, sleepable=sleepable)
            callbacks = self._linked_callbacks(sleepable)
            self._programs[key] = _load(type, name, code, SLEEPABLE if sleepable else 0, attach_type, 0, callbacks)
        return self._programs[key]

    def iterator(self, name: str, kernel_type: int) -> int:
        """Load a program that an iterator runs, and return its descriptor, which this object keeps.

        `kernel_type`: the number of the kernel's type that says over what it iterates.
        """
        code = self._code(name, sleepable=True)
        self._programs[(name, kernel_type)] = descriptor = _load(
            PROG_TYPE_TRACING, name, code, 0, ATTACH_TYPE_ITERATOR, kernel_type
        )
        return descriptor

    def joined(self, cookies: Mapping[str, set[int]], returns: Mapping[str, str] | None = None) -> int | None:
        """One program for a uprobe_multi link, which continues with the one whose `cookies` hold the site's.

        With `returns` it is for the link of a uprobe session: at a return it continues with the program that is named
        there for the entry's.

        Returns its descriptor, which this object keeps, or None where the programs cannot be joined: each must have a
        range of cookies to itself, and the verifier must accept the result.
        """
        ranges = tuple(sorted((min(values), max(values), name) for name, values in cookies.items()))
        key = (ranges, returns is not None)
        if key not in self._programs:
            try:
                names = [*cookies, *(returns or {}).values()]
                codes = {name: self._code(name, sleepable=self._sleepable) for name in names}
                code = dispatcher(ranges, codes, returns)
            except (LookupError, struct.error):
                return None
            flags = SLEEPABLE if self._sleepable else 0
            attach_type = ATTACH_TYPE_UPROBE_MULTI if returns is None else ATTACH_TYPE_UPROBE_SESSION
            callbacks = self._linked_callbacks(self._sleepable)
            descriptor = _try_load(PROG_TYPE_KPROBE, "hooks", code, flags, attach_type, 0, callbacks)
            if descriptor in TRANSIENT:  # which says nothing of whether they can be joined
                check(descriptor, "loading the program of several hooks")
            if descriptor < 0:
                return None
            self._programs[key] = descriptor
        return self._programs[key]

    def _code(self, name: str, cookie: int | None = None, *, sleepable: bool) -> bytes:
        try:
            return self._link(self._bytecode.programs[name], cookie, sleepable)
        except (LookupError, struct.error):
            raise _misfit(name) from None

    def _linked_callbacks(self, sleepable: bool) -> dict[int, bytes]:
        return {CALLBACKS.index(name): self._code(name, sleepable=sleepable) for name in self._callbacks}

    def close(self) -> None:
        """Free the programs and the maps, unless a link still holds them."""
        for descriptor in self._programs.values():
            os.close(descriptor)
        self._programs.clear()
        for map_ in self.maps.values():
            map_.close()

    def _link(self, code: bytes, cookie: int | None, sleepable: bool) -> bytes:
        maps = [self.maps[description.name] for description in self._bytecode.maps]
        linked = bytearray(code)
        # The second half of a 64-bit constant has the opcode 0.
        for index, (opcode, registers, _, immediate) in enumerate(INSTRUCTION.iter_unpack(code)):
            if opcode == LOAD_IMMEDIATE:
                at = index * 8
                if registers >> 4 == PSEUDO_MAP_FD:
                    struct.pack_into("<i", linked, at + 4, maps[immediate].fd)
                elif (value := self._filled(struct.unpack_from("<I", linked, at + 12)[0], immediate)) is not None:
                    struct.pack_into("<I", linked, at + 4, value & 0xFFFF_FFFF)
                    struct.pack_into("<I", linked, at + 12, value >> 32)
            elif opcode == CALL and registers == 0:
                if cookie is not None and immediate == GET_ATTACH_COOKIE:
                    struct.pack_into("<BBhI", linked, index * 8, MOVE32_IMMEDIATE, 0, 0, cookie)
                elif not sleepable and immediate == COPY_FROM_USER:  # it fails then, as for a page that is not there
                    INSTRUCTION.pack_into(linked, index * 8, MOVE_IMMEDIATE, 0, 0, -errno.EFAULT)
        return bytes(linked)

    def _filled(self, magic: int, number: int) -> int | None:
        """What comes in the place of a constant, None if that is the constant itself. Of a function that the program
        has, it is a distance, which `with_callbacks` knows."""
        if magic == PARAMETER_MAGIC:
            return self._parameters[number] & 0xFFFF_FFFF_FFFF_FFFF
        if magic == BY_TABLES_MAGIC:
            return int(bool(self._callbacks))
        return 0 if magic == CALLBACK_MAGIC and not self._callbacks else None


class _Maps(dict[str, Map]):
    """Maps by name. One that is missing means that the bytecode is not that of the session's text."""

    def __missing__(self, name: str) -> Map:
        raise _misfit(name)


def _misfit(name: str) -> UsdtkitError:
    """The error for bytecode that was copied from elsewhere, or damaged on the disk."""
    return UsdtkitError(
        f"the cached program does not match this session: its {name} is missing or broken",
        hint="run usdtkit cache --clear, so that it is compiled again",
    )


def require_bpf() -> None:
    """Raise PrivilegeError or UnsupportedError unless bpf(2) lets us make a map."""
    result = try_map(MAP_ARRAY, 4, 8, 1)
    if result == 0:
        return
    if result in (-errno.EPERM, -errno.EACCES):
        raise PrivilegeError(
            "the kernel does not let us load BPF programs: not enough privilege", hint=privilege_hint()
        )
    if result in (-errno.ENOSYS, -errno.EINVAL):
        raise UnsupportedError(
            "this kernel has no bpf(2)", hint="usdtkit doctor lists what the kernel needs: CONFIG_BPF_SYSCALL first"
        )
    raise UsdtkitError(f"the kernel refuses to create a BPF map: {describe(-result)}")


def _try_load(
    type: int,
    name: str,
    code: bytes,
    flags: int,
    attach_type: int,
    kernel_type: int = 0,
    callbacks: Mapping[int, bytes] = _NONE,
    log: object = ffi.NULL,
) -> int:
    """A program's descriptor, or a negative errno; with `log`, the verifier writes to its LOG_SIZE bytes."""
    if type == PROG_TYPE_KPROBE:
        code = ON_OWN_STACK + code
    code, firsts = with_callbacks(code, callbacks)
    what = (type, code, len(code) // 8, flags, attach_type, kernel_type)
    with functions(firsts) as described:
        return int(lib.usdtkit_prog_load(*what, described, name.encode(), log, LOG_SIZE if log else 0))


def _load(
    type: int,
    name: str,
    code: bytes,
    flags: int,
    attach_type: int,
    kernel_type: int = 0,
    callbacks: Mapping[int, bytes] = _NONE,
) -> int:
    descriptor = _try_load(type, name, code, flags, attach_type, kernel_type, callbacks)
    if descriptor >= 0:
        return descriptor
    # A second time for the verifier's words, which cost time and memory and are needed only now.
    log = ffi.new("char[]", LOG_SIZE)
    again = _try_load(type, name, code, flags, attach_type, kernel_type, callbacks, log)
    if again >= 0:
        return again
    if again in TRANSIENT:
        check(again, f"loading the program {name}")
    if descriptor in (-errno.EPERM, -errno.EACCES) and not ffi.string(log):
        raise PrivilegeError(f"the kernel does not let us load the program {name}", hint=privilege_hint())
    words = ffi.string(log).decode(errors="backslashreplace").strip().splitlines()
    reason = next((line for line in reversed(words) if line and not re.match(_NO_REASON, line)), "")
    raise ProgramError(f"the kernel's verifier rejects the program: {reason or describe(-again)}", name)
