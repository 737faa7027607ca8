"""Records are found in a ring's memory as the kernel lays them out."""

import struct

from usdtkit.kernel.ring import _copied

BUSY, DISCARDED = 1 << 31, 1 << 30


def record(payload, flags=0):
    """A record of native/records.h: its header, and its payload rounded up to 8 bytes."""
    return struct.pack("<II", len(payload) | flags, 0) + payload.ljust(-(-len(payload) // 8) * 8, b"\0")


def test_payloads_are_copied_and_discarded_ones_left_out():
    memory = record(b"first") + record(b"never", DISCARDED) + record(b"second one")
    assert _copied(bytearray(memory), len(memory)) == ([b"first", b"second one"], len(memory))


def test_a_record_that_is_not_written_yet_holds_up_what_is_behind_it():
    before = record(b"done") + record(b"none", DISCARDED)
    memory = before + record(b"later", BUSY) + record(b"behind it")
    assert _copied(bytearray(memory), len(memory)) == ([b"done"], len(before))


def test_no_more_is_read_than_is_enough():
    memory = record(b"12345678") * 5
    payloads, consumed = _copied(bytearray(memory), 17)
    assert (len(payloads), consumed) == (2, 32)


def test_a_length_beyond_the_memory_is_not_followed():
    memory = record(b"whole") + struct.pack("<II", 4096, 0)
    assert _copied(bytearray(memory), len(memory)) == ([b"whole"], 16)
