"""Arm a probe without a tracer: a jump over its stub to a Python function, which gets the operands as tracers would."""

import contextlib
import ctypes
import mmap
import struct
from weakref import WeakValueDictionary

from usdtkit.probes import registry

CALLBACK = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * 12)
libc = ctypes.CDLL(None, use_errno=True)


def forget_providers(monkeypatch):
    """Let a test declare its providers as in a new process, whatever other tests have declared."""
    monkeypatch.setattr(registry, "providers", WeakValueDictionary())


def site_of(probe):
    """Address of the probe's site in this process."""
    library = ctypes.CDLL(probe.path)
    return ctypes.cast(getattr(library, f"{probe.provider}_{probe.name}"), ctypes.c_void_p).value


def poke(address, code):
    page = address & -mmap.PAGESIZE
    everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    assert libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), everything) == 0
    ctypes.memmove(address, code, len(code))


@contextlib.contextmanager
def recorded(probe, read=lambda *operands: operands):
    """The list of what `read` makes of the twelve operands of each call, made while the strings are still there."""
    assert not probe.enabled
    seen = []
    callback = CALLBACK(lambda *operands: seen.append(read(*operands)))
    site = site_of(probe)
    pristine = ctypes.string_at(site, 16)
    # movabs r11, callback; jmp r11
    poke(site, b"\x49\xbb" + struct.pack("<Q", ctypes.cast(callback, ctypes.c_void_p).value) + b"\x41\xff\xe3")
    try:
        yield seen
    finally:
        poke(site, pristine)
