"""What the kernel and the machine offer, found by trying: a table for `usdtkit doctor`, and tests for the code that
chooses a method.

Nothing here compares version numbers; `since` only tells people what to expect. A test answers found, missing or, where
it cannot tell (most often because privilege is missing), unknown.
"""

# Every start imports this module, and importing pathlib takes long.
# ruff: noqa: PTH110

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import cache
from typing import Literal

from usdtkit._ffi import TRANSIENT, describe, ffi, lib
from usdtkit.bpf.uapi import (
    ATTACH_TYPE_UPROBE_MULTI,
    ATTACH_TYPE_UPROBE_SESSION,
    CALL,
    CALLBACK_MAGIC,
    EXIT,
    GET_ATTACH_COOKIE,
    LOAD_IMMEDIATE,
    LOOP,
    MAP_ARRAY,
    MAP_RINGBUF,
    MOVE_IMMEDIATE,
    PROG_TYPE_KPROBE,
    SLEEPABLE,
    assemble,
)
from usdtkit.errors import UsdtkitError
from usdtkit.kernel.callbacks import functions, with_callbacks
from usdtkit.records import dataclass

State = Literal["found", "missing", "unknown"]
UPROBE_PMU = "/sys/bus/event_source/devices/uprobe"
_RETURN_ZERO = ((MOVE_IMMEDIATE, 0, 0, 0), (EXIT, 0, 0, 0))
_INVALID_FD = 0x7FFF_FFFF


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one test."""

    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Feature:
    """One row: a feature, its purpose, the test for it, since which kernel it exists, and what to do without it."""

    name: str
    purpose: str
    test: Callable[[], Finding]
    since: str
    fix: str


NO_PRIVILEGE = Finding("missing", "not enough privilege")
NOT_ALLOWED = Finding("unknown", "not enough privilege to try")


@cache
def has_uprobe_multi() -> bool:
    """Whether the kernel knows uprobe_multi links, found by asking it for an impossible one."""
    # A kernel that knows them gets as far as the program's descriptor, which is invalid (EBADF). Another one sees
    # fields that it does not know (EINVAL).
    return _impossible_link(_INVALID_FD, ATTACH_TYPE_UPROBE_MULTI) == -errno.EBADF


@cache
def has_uprobe_session() -> bool:
    """Whether one uprobe_multi link can serve both the entries and the returns of functions."""
    program = _load_nothing(0, ATTACH_TYPE_UPROBE_SESSION)
    if program < 0:
        return False
    try:
        # A kernel that knows them gets as far as the path, which is no file (EBADF).
        return _impossible_link(program, ATTACH_TYPE_UPROBE_SESSION) == -errno.EBADF
    finally:
        os.close(program)


def try_map(type: int, key_size: int, value_size: int, max_entries: int) -> int:
    """Make a map and free it: 0, or the negative errno with which the kernel refuses."""
    descriptor = lib.usdtkit_map_create(type, key_size, value_size, max_entries, 0, 0, b"usdtkit_try")
    if descriptor < 0:
        return int(descriptor)
    os.close(descriptor)
    return 0


def lacks_privilege() -> bool:
    """Whether the kernel refuses us BPF because a capability is missing."""
    return _bpf() == NO_PRIVILEGE


@cache
def sleepable() -> Finding:
    """Whether a program may wait for a page of the process that is not in memory."""
    return _from_descriptor(_load_nothing(SLEEPABLE, 0))


def can_loop() -> bool:
    """Whether a program can have the kernel call one of its functions again and again (bpf_loop)."""
    return _loop().state == "found"


@cache
def _loop() -> Finding:
    loop = assemble(
        (MOVE_IMMEDIATE, 1, 0, 1),
        (LOAD_IMMEDIATE, 2, 0, 0),
        (0, 0, 0, CALLBACK_MAGIC),
        (MOVE_IMMEDIATE, 3, 0, 0),
        (MOVE_IMMEDIATE, 4, 0, 0),
        (CALL, 0, 0, LOOP),
        *_RETURN_ZERO,
    )
    code, firsts = with_callbacks(loop, {0: assemble(*_RETURN_ZERO)})
    try:
        with functions(firsts) as described:
            return _from_descriptor(_load(code, 0, 0, described))
    except UsdtkitError:  # the kernel takes no types, or not from us
        return Finding("missing") if _bpf().state == "found" else NOT_ALLOWED


def _impossible_link(program: int, attach_type: int) -> int:
    nothing = ffi.new("uint64_t[]", [0])
    return int(lib.usdtkit_link_uprobe_multi(program, attach_type, b"/", nothing, ffi.NULL, ffi.NULL, 1, False, 0))


def _load_nothing(flags: int, attach_type: int) -> int:
    return _load(assemble(*_RETURN_ZERO), flags, attach_type)


def _load(code: bytes, flags: int, attach_type: int, described: object = ffi.NULL) -> int:
    what = (PROG_TYPE_KPROBE, code, len(code) // 8, flags, attach_type, 0)
    return int(lib.usdtkit_prog_load(*what, described, b"usdtkit_try", ffi.NULL, 0))


def _from_descriptor(result: int) -> Finding:
    if result < 0:
        return _from_result(result)
    os.close(result)
    return Finding("found")


def _from_result(result: int) -> Finding:
    if result == 0:
        return Finding("found")
    if result in (-errno.EPERM, -errno.EACCES):
        return NOT_ALLOWED
    return Finding("unknown" if result in TRANSIENT else "missing", describe(-result))


def _bpf() -> Finding:
    finding = _from_result(try_map(MAP_ARRAY, 4, 8, 1))
    return NO_PRIVILEGE if finding == NOT_ALLOWED else finding


def _ring_buffer() -> Finding:
    return _from_result(try_map(MAP_RINGBUF, 0, 0, os.sysconf("SC_PAGESIZE")))


def _cookies() -> Finding:
    # The context, which the helper takes, is in r1 already.
    return _from_descriptor(_load(assemble((CALL, 0, 0, GET_ATTACH_COOKIE), (EXIT, 0, 0, 0)), 0, 0))


def _uprobes() -> Finding:
    return Finding("found") if os.path.exists(UPROBE_PMU) else Finding("missing", f"no {UPROBE_PMU}")


def _uprobe_multi() -> Finding:
    return _links(has_uprobe_multi)


def _uprobe_session() -> Finding:
    return _links(has_uprobe_session)


def _links(exist: Callable[[], bool]) -> Finding:
    if _bpf().state != "found":
        return NOT_ALLOWED
    return Finding("found" if exist() else "missing")


def _semaphores() -> Finding:
    return Finding("found" if os.path.exists(f"{UPROBE_PMU}/format/ref_ctr_offset") else "missing")


KERNEL = (
    Feature(
        "uprobes", "breakpoints in applications", _uprobes, "3.5",
        "a kernel with CONFIG_UPROBES and CONFIG_UPROBE_EVENTS",
    ),
    Feature(
        "semaphores", "probes that know whether a tracer is attached", _semaphores, "4.20", "a kernel of 4.20 or newer"
    ),
    Feature("bpf", "programs in the kernel", _bpf, "4.4", "a kernel with CONFIG_BPF_SYSCALL"),
    Feature("ring buffer", "events", _ring_buffer, "5.8", "a kernel of 5.8 or newer"),
    Feature("cookies", "one program at several sites", _cookies, "5.15", "nothing: usdtkit loads a copy for each site"),
    Feature(
        "bpf_loop", "whole stacks", _loop, "5.17",
        "nothing: stacks are walked by frame pointers",
    ),
    Feature("sleepable", "strings in untouched pages", sleepable, "6.0", "nothing: such strings arrive as unreadable"),
    Feature("uprobe_multi", "thousands of sites in one call", _uprobe_multi, "6.6", "nothing: attaching is slower"),
    Feature("uprobe session", "entry and return in one link", _uprobe_session, "6.13", "nothing: detaching is slower"),
)  # fmt: skip
