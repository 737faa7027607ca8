"""Where Ruby's own interpreter has what a walk over Ruby's frames reads, by version.

`usdtkit.unwind.rubies` chooses one of these layouts for a file. They are those of Ruby's own headers, which stay the
same within a minor version, of builds for x86-64 with glibc: the structures of threads contain locks of the C library.
All offsets are in bytes.
"""

from __future__ import annotations

from usdtkit.records import NamedTuple


class Layout(NamedTuple):
    """Where things are that have moved between versions."""

    ractors: int
    """In the virtual machine: the list of its ractors; -1 where it has a list of threads instead (before 3.0)."""
    ractor_next: int
    """In a ractor: its node of that list."""
    threads: int
    """In a ractor or in the machine: the list of its threads."""
    context: int
    """In a thread: a pointer to what it executes, which is that of its fiber."""
    context_thread: int
    """In what is executed: a pointer to the thread."""
    native: int
    """A pointer to the thread of the system; -1 where that is part of the thread (before 3.2)."""
    thread_id: int
    """In either: what pthread_self() returns in the thread."""
    frame_size: int
    lines: int
    """In the body of a piece of code: a pointer to the lines of its instructions, or the only one of these itself."""
    line_count: int
    """A u32."""
    positions: int
    """A pointer to what says how many of the lines begin at or before an instruction."""
    line_size: int
    """Of each entry in `lines`, whose first 4 bytes are the number of the line."""
    embedded: int
    """In a String: its characters, where they are in the object itself."""
    has_length: bool
    """Whether such a String has its length where others have it. If not, it is in the flags (before 3.2)."""


LAYOUTS = {
    (2, 7): Layout(-1, 0, 312, 32, 56, -1, 72, 56, 120, 136, 144, 8, 16, False),
    (3, 1): Layout(8, 568, 304, 40, 48, -1, 80, 64, 120, 136, 144, 12, 16, False),
    (3, 3): Layout(8, 432, 256, 48, 48, 40, 16, 56, 112, 128, 136, 12, 24, True),
}

THREAD_NODE = 0
"""In a thread: its node of the list of threads."""
STACK, STACK_SIZE, FRAME = 0, 8, 16
"""In what is executed: the lower end of its stack, the size of that in words, and the innermost frame. Frames lie from
the upper end downwards, the outermost one first."""
PC, ISEQ, ENVIRONMENT = 0, 16, 32
"""In a frame: the next instruction, the piece of code, and the environment, whose first word are flags."""
BODY = 16
"""In a piece of code: a pointer to its body."""
CODE_SIZE, CODE, PATH, NAME = 4, 8, 64, 80
"""In the body: how many words of instructions there are, a pointer to them, and its file and name."""
BODY_SIZE = 152
"""How many bytes of a body are read."""

FINISHES, IS_C = 0x20, 0x80
"""Flags of a frame: the interpreter's function returns when it ends; it is one of a function in C."""
KIND, BELOW_ALL = 0x7FFF0001, 0x79990001
"""The bits of the flags that say the kind of a frame, and the kind of the one that is below the outermost frame."""

STRING, ARRAY, TYPE = 0x05, 0x07, 0x1F
"""The types of objects, and the bits of an object's flags that have them."""
OUTSIDE = 1 << 13
"""A flag of a String: its characters are not in the object itself. Of an Array: its elements are."""
LENGTH, OUTER = 16, 24
"""In a String: its length, and a pointer to its characters."""
ELEMENTS, OUTER_ELEMENTS = 16, 32
"""In an Array: its elements, or a pointer to them."""
