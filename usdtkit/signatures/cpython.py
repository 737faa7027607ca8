"""Where CPython's structures have what a walk over Python's frames reads, by version.

`usdtkit.unwind.cpython` chooses one of these layouts for a file, and bpf/pythonframes.c walks by it. Before 3.13 the
layouts are those of CPython's own headers, which stay the same within a minor version. From 3.13 on the interpreter
says them itself (`_Py_DebugOffsets`, at the start of `_PyRuntime`), and only the order in which it does is here.
All offsets are in bytes, of builds for 64-bit machines that have a GIL.
"""

from __future__ import annotations

from usdtkit.records import NamedTuple

EVERY, MARKED, BEFORE_SHIM = range(3)
"""Which frames are the outermost one that a call of the evaluation function runs: each of them; one whose byte at
`entry` is not 0; or one whose caller is a shim, which is a frame without Python code and has 3 or more in that byte."""

FIRST_SHIM = 3


class Layout(NamedTuple):
    """The members in the order of struct python_layout (bpf/pythonframes.c), each a u32."""

    version: int
    """Major version << 8 | minor version."""
    interpreters: int
    """In _PyRuntime, a pointer to the newest interpreter, and behind it one to the main interpreter."""
    interpreter_next: int
    """In PyInterpreterState: a pointer to the next older one."""
    threads: int
    """A pointer to the interpreter's newest thread state."""
    thread_next: int
    """In PyThreadState: a pointer to the next older one."""
    thread_interpreter: int
    thread_id: int
    """What pthread_self() returns in the thread."""
    thread_frame: int
    """A pointer to the innermost frame, or to what has one."""
    indirect: int
    """1 more than where that is in what `thread_frame` points to; 0 where that is the frame itself."""
    frame_size: int
    """How many bytes of a frame are read."""
    previous: int
    """In the frame: a pointer to the caller's."""
    code: int
    tag: int
    """The bits of the pointer `code` that are no part of it."""
    at: int
    """The instruction: its address, or its number."""
    at_is_number: int
    """1 where it is a number of 4 bytes."""
    entry: int
    entries: int
    """EVERY, MARKED or BEFORE_SHIM."""
    file: int
    """In PyCodeObject: a pointer to a str."""
    name: int
    """The qualified name, before 3.11 the plain one."""
    first_line: int
    """An int of 4 bytes."""
    lines: int
    """A pointer to the bytes that say the line of each instruction."""
    instructions: int
    """Where the instructions begin; 0 where `at` is a number."""
    ascii: int
    """In a str: the characters, where all are ASCII."""
    text: int
    """The characters of others."""


_COMMON = {"thread_next": 8, "thread_interpreter": 16, "interpreter_next": 0}
_OF_3_8 = {
    **{"interpreters": 32, "threads": 8, "thread_id": 176, "thread_frame": 24, "indirect": 0},
    **{
        "frame_size": 112,
        "previous": 24,
        "code": 32,
        "tag": 0,
        "at": 104,
        "at_is_number": 1,
        "entry": 0,
        "entries": EVERY,
    },
    **{"file": 104, "name": 112, "first_line": 40, "lines": 120, "instructions": 0, "ascii": 48, "text": 72},
}
_OF_3_11 = {
    **{"interpreters": 40, "threads": 16, "thread_id": 152, "thread_frame": 56, "indirect": 9},
    **{
        "frame_size": 72,
        "previous": 48,
        "code": 32,
        "tag": 0,
        "at": 56,
        "at_is_number": 0,
        "entry": 68,
        "entries": MARKED,
    },
    **{"file": 112, "name": 128, "first_line": 72, "lines": 136, "instructions": 184, "ascii": 48, "text": 72},
}
_OF_3_12 = {
    **{"threads": 72, "thread_id": 136, "indirect": 1, "previous": 8, "code": 0, "entry": 70, "entries": BEFORE_SHIM},
    **{"first_line": 68, "instructions": 192, "ascii": 40, "text": 56},
}

LAYOUTS = {
    (3, 8): Layout(0x308, **_COMMON, **_OF_3_8),
    (3, 9): Layout(0x309, **_COMMON, **_OF_3_8),
    (3, 10): Layout(0x30A, **_COMMON, **_OF_3_8 | {"frame_size": 104, "at": 96}),
    (3, 11): Layout(0x30B, **_COMMON, **_OF_3_11),
    (3, 12): Layout(0x30C, **_COMMON, **_OF_3_11 | _OF_3_12),
}


class Groups(NamedTuple):
    """The groups of u64 in `_Py_DebugOffsets` that are read, which follow one another: how many members each has.

    The first member of each is the size of the structure that it describes; `thread_id` is the number of a member.
    """

    interpreter: int
    thread: int
    frame: int
    code: int
    thread_id: int


DEBUG_COOKIE = b"xdebugpy"
GROUPS = {13: Groups(13, 9, 6, 10, 5), 14: Groups(16, 9, 8, 11, 5), 15: Groups(16, 17, 8, 11, 8)}
"""By minor version."""
