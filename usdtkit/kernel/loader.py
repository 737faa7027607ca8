"""Bytecode → maps and programs in the kernel, linked with the values of this run.

A program's text names its constants (thresholds, literals) by number only, so that one cached compilation serves all
values: `PARAMETER_MAGIC` in the upper half of an `ld_imm64` marks the place, and the value is patched in here, before
the verifier looks. Output: `Loaded`, for `links` and `trace`.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise

from usdtkit._ffi import PRIVILEGE_HINT, TRANSIENT, check, describe, ffi, lib
from usdtkit.bpf.abi import MACHINES
from usdtkit.bpf.compiler import Bytecode
from usdtkit.errors import PrivilegeError, ProgramError, UnsupportedError, UsdtkitError
from usdtkit.kernel.features import (
    ATTACH_TYPE_UPROBE_MULTI,
    ATTACH_TYPE_UPROBE_SESSION,
    PROG_TYPE_KPROBE,
    SLEEPABLE,
    sleepable,
)
from usdtkit.kernel.maps import ARRAY, HASH, LRU_HASH, PERCPU_ARRAY, PERCPU_HASH, RINGBUF, Map

PARAMETER_MAGIC = 0x75736474
ATTACH_TYPE_NONE = 0
PROG_TYPE_RAW_TRACEPOINT = 17
LOG_SIZE = (1 << 24) - 1  # the most that every kernel takes; what a smaller one cuts off is the reason
SLEEPABLE_MAPS = {HASH, LRU_HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, RINGBUF}

LD_IMM64, CALL, MOV32_IMM, MOV64_IMM = 0x18, 0x85, 0xB4, 0xB7
MOV64, LOAD64, JUMP32_BEYOND, JUMP_UNEQUAL, EXIT = 0xBF, 0x79, 0x26, 0x5D, 0x95
_CODE = struct.Struct("<BBhi")
PSEUDO_MAP_FD, PSEUDO_CALL = 1, 1
GET_ATTACH_COOKIE, COPY_FROM_USER, GET_FUNC_IP = 174, 148, 173
# Of what the verifier says: statistics, instructions, and states of registers.
_NO_REASON = r"processed |verification |(old|cur) state:|from \d+|\d+: |mark_precise|R\d+\w*=|[;(]"


class Loaded:
    """The maps of one compiled text by name, and its programs, loaded as they are asked for. Close it to free all."""

    def __init__(
        self, bytecode: Bytecode, parameters: Sequence[int] = (), max_entries: Mapping[str, int] | None = None
    ) -> None:
        """`parameters`: values by number, taken modulo 2**64. `max_entries`: sizes that differ from the text's."""
        require_bpf()
        self._bytecode = bytecode
        self._parameters = parameters
        self._programs: dict[tuple[object, ...], int] = {}
        self.maps: dict[str, Map] = _Maps()
        # A sleepable program can bring in a page of the process that is not there yet. Not with every type of map.
        kinds = {description.type for description in bytecode.maps}
        self._sleepable = kinds <= SLEEPABLE_MAPS and sleepable().state == "found"
        try:
            for description in bytecode.maps:
                size = (max_entries or {}).get(description.name)
                self.maps[description.name] = Map(description, size)
        except BaseException:
            self.close()
            raise

    def program(self, name: str, attach_type: int, cookie: int | None = None) -> int:
        """Load a program (once for each way) and return its descriptor, which this object keeps.

        With `cookie` (32 bits), the program carries it as a constant, for links that cannot.
        """
        key = (name, attach_type, cookie)
        if key not in self._programs:
            flags = SLEEPABLE if self._sleepable else 0
            self._programs[key] = _load(PROG_TYPE_KPROBE, name, self._code(name, cookie), flags, attach_type)
        return self._programs[key]

    def joined(self, cookies: Mapping[str, set[int]], returns: Mapping[str, str] | None = None) -> int | None:
        """One program for a uprobe_multi link, which goes on with the one of those named whose cookie the site has.

        With `returns`, for the link of a session: at returns it goes on with the one that is named for the entry's.
        Its descriptor, which this object keeps; None where they cannot be joined: each needs a range of cookies for
        itself, and the verifier has to take it.
        """
        ranges = tuple(sorted((min(own), max(own), name) for name, own in cookies.items()))
        key = (ranges, returns is not None)
        if key not in self._programs:
            try:
                names = [*cookies, *(returns or {}).values()]
                code = _dispatcher(ranges, {name: self._code(name) for name in names}, returns)
            except (LookupError, struct.error):
                return None
            flags = SLEEPABLE if self._sleepable else 0
            type = ATTACH_TYPE_UPROBE_MULTI if returns is None else ATTACH_TYPE_UPROBE_SESSION
            descriptor = lib.usdtkit_prog_load(
                PROG_TYPE_KPROBE, code, len(code) // 8, flags, type, b"hooks", ffi.NULL, 0
            )
            if descriptor in TRANSIENT:  # which says nothing of whether they can be joined
                check(descriptor, "loading the program of several hooks")
            if descriptor < 0:
                return None
            self._programs[key] = descriptor
        return self._programs[key]

    def tracepoint_program(self, name: str) -> int:
        """Load a program for a tracepoint of the kernel, as `program`."""
        key = (name, ATTACH_TYPE_NONE, None)
        if key not in self._programs:
            code = self._code(name)
            self._programs[key] = _load(PROG_TYPE_RAW_TRACEPOINT, name, code, 0, ATTACH_TYPE_NONE)
        return self._programs[key]

    def _code(self, name: str, cookie: int | None = None) -> bytes:
        try:
            return self._link(self._bytecode.programs[name], cookie)
        except (LookupError, struct.error):
            raise _misfit(name) from None

    def close(self) -> None:
        for descriptor in self._programs.values():
            os.close(descriptor)
        self._programs.clear()
        for map_ in self.maps.values():
            map_.close()

    def _link(self, code: bytes, cookie: int | None) -> bytes:
        maps = [self.maps[description.name] for description in self._bytecode.maps]
        linked = bytearray(code)
        # The second half of an `ld_imm64` has no opcode.
        for index, (opcode, registers, _, immediate) in enumerate(_CODE.iter_unpack(code)):
            if opcode == LD_IMM64:
                at = index * 8
                if registers >> 4 == PSEUDO_MAP_FD:
                    struct.pack_into("<i", linked, at + 4, maps[immediate].fd)
                elif struct.unpack_from("<i", linked, at + 12)[0] == PARAMETER_MAGIC:
                    value = self._parameters[immediate] & 0xFFFF_FFFF_FFFF_FFFF
                    struct.pack_into("<I", linked, at + 4, value & 0xFFFF_FFFF)
                    struct.pack_into("<I", linked, at + 12, value >> 32)
            elif opcode == CALL and registers == 0:
                if cookie is not None and immediate == GET_ATTACH_COOKIE:
                    struct.pack_into("<BBhI", linked, index * 8, MOV32_IMM, 0, 0, cookie)
                elif not self._sleepable and immediate == COPY_FROM_USER:  # "it cannot be read"
                    struct.pack_into("<BBhi", linked, index * 8, MOV64_IMM, 0, 0, -errno.EFAULT)
        return bytes(linked)


def _dispatcher(
    ranges: Sequence[tuple[int, int, str]], codes: Mapping[str, bytes], returns: Mapping[str, str] | None
) -> bytes:
    """One program that calls that of these whose range of cookies the site's is in, or at a return its `returns`.

    Calls, because the verifier's time grows faster than a function's length. LookupError where ranges overlap, or on
    a machine that is not known here.
    """
    if any(before[1] >= after[0] for before, after in pairwise(ranges)):
        raise LookupError("no cookie is of two programs")
    names = [name for *_, name in ranges]
    code = [_CODE.pack(MOV64, 0x16, 0, 0)]  # r6 = r1
    if returns is not None:
        # At an entry the instruction is the function's first: r7 = bpf_get_func_ip(), r8 = the instruction.
        code += [_CODE.pack(CALL, 0, 0, GET_FUNC_IP), _CODE.pack(MOV64, 0x07, 0, 0)]
        code += [
            _CODE.pack(LOAD64, 0x68, MACHINES[os.uname().machine].instruction_offset, 0),
            _CODE.pack(MOV64, 0x61, 0, 0),
        ]
    code.append(_CODE.pack(CALL, 0, 0, GET_ATTACH_COOKIE))
    if returns is not None:
        code.append(_CODE.pack(JUMP_UNEQUAL, 0x87, len(ranges) * 4 - 1, 0))
    called = [names] if returns is None else [names, [returns[name] for name in names]]
    start = {}
    end = len(code) + len(called) * (len(ranges) * 4 - 1)
    for name in chain.from_iterable(called):
        start[name] = end
        end += len(codes[name]) // 8
    for those in called:
        for (_, last, _), name in zip(ranges, those, strict=True):
            if name is not those[-1]:
                code.append(_CODE.pack(JUMP32_BEYOND, 0, 3, (last + 2**31) % 2**32 - 2**31))
            code.append(_CODE.pack(MOV64, 0x61, 0, 0))  # r1 = r6
            code.append(_CODE.pack(CALL, PSEUDO_CALL << 4, 0, start[name] - len(code) - 1))
            code.append(_CODE.pack(EXIT, 0, 0, 0))
    return b"".join([*code, *(codes[name] for name in start)])


class _Maps(dict[str, Map]):
    """A session asks for the maps that its text declares."""

    def __missing__(self, name: str) -> Map:
        raise _misfit(name)


def _misfit(name: str) -> UsdtkitError:
    """For what was taken from somewhere else, or damaged on the disk."""
    return UsdtkitError(
        f"the compiled program that is kept is not that of this session: its {name} is missing or broken",
        hint="usdtkit cache --clear, and it is compiled again",
    )


def require_bpf() -> None:
    """Raise PrivilegeError or UnsupportedError unless bpf(2) lets us make a map."""
    descriptor = lib.usdtkit_map_create(2, 4, 8, 1, 0, b"usdtkit_try")
    if descriptor >= 0:
        os.close(descriptor)
        return
    if descriptor in (-errno.EPERM, -errno.EACCES):
        raise PrivilegeError("the kernel does not let us load BPF programs: not enough privilege", hint=PRIVILEGE_HINT)
    if descriptor in (-errno.ENOSYS, -errno.EINVAL):
        raise UnsupportedError(
            "this kernel has no bpf(2)", hint="usdtkit doctor lists what the kernel needs: CONFIG_BPF_SYSCALL first"
        )
    raise UsdtkitError(f"the kernel refuses to make a BPF map: {describe(-descriptor)}")


def _load(type: int, name: str, code: bytes, flags: int, attach_type: int) -> int:
    count = len(code) // 8
    descriptor = lib.usdtkit_prog_load(type, code, count, flags, attach_type, name.encode(), ffi.NULL, 0)
    if descriptor >= 0:
        return int(descriptor)
    # Once more for the verifier's words, which cost time and memory and are worth it only now.
    log = ffi.new("char[]", LOG_SIZE)
    again = lib.usdtkit_prog_load(type, code, count, flags, attach_type, name.encode(), log, LOG_SIZE)
    if again >= 0:
        return int(again)
    if again in TRANSIENT:
        check(again, f"loading the program {name}")
    if descriptor in (-errno.EPERM, -errno.EACCES) and not ffi.string(log):
        raise PrivilegeError(f"the kernel does not let us load the program {name}", hint=PRIVILEGE_HINT)
    words = ffi.string(log).decode(errors="backslashreplace").strip().splitlines()
    reason = next((line for line in reversed(words) if line and not re.match(_NO_REASON, line)), "")
    raise ProgramError(f"the kernel's verifier refuses the program: {reason or describe(-again)}", name)
