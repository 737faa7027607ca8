"""A program keeps its stack in that of the thread, where no other thread can overwrite it."""

import ctypes
import os
import platform
import struct

import pytest

from usdtkit import trace

PROG_INFO = 15  # of bpf(2): BPF_OBJ_GET_INFO_BY_FD
CALL_NUMBER = 321
# add %gs:ADDRESS, %r9: how the x86-64 kernel finds a stack that belongs to the processor.
OF_THE_PROCESSOR = bytes.fromhex("654c030c25")


def machine_code(descriptor):
    """The machine code that the kernel has made of a program."""
    code, info = ctypes.create_string_buffer(1 << 20), ctypes.create_string_buffer(256)
    struct.pack_into("<I4xQ", info, 16, len(code), ctypes.addressof(code))
    attributes = ctypes.create_string_buffer(struct.pack("<IIQ", descriptor, len(info), ctypes.addressof(info)), 16)
    assert ctypes.CDLL(None).syscall(CALL_NUMBER, PROG_INFO, attributes, 16) == 0
    return code.raw[: struct.unpack_from("<I", info, 16)[0]]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the code of another processor")
@pytest.mark.parametrize("compiler", ["", "bcc"])
def test_no_program_has_a_stack_of_the_processor(declare, monkeypatch, compiler):
    monkeypatch.setenv("USDTKIT_COMPILER", compiler)
    probe = declare("own:stack", text="str", n="u64")
    with trace.Session(pid=os.getpid()) as session:
        source = session.usdt("own:stack", path=probe.path)
        source.count(stack=trace.ustack, text=trace.cstr("text", 100))
        source.emit("text", "n", "comm")
        session.pair(trace.usdt("own:stack", probe.path), trace.usdt("own:stack", probe.path), keep=["text"]).emit()
        session.start()
        codes = [machine_code(descriptor) for descriptor in session._running._loaded._programs.values()]
    assert max(map(len, codes)) > 1000
    assert not any(OF_THE_PROCESSOR in code for code in codes)
