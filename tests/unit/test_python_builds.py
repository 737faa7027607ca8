"""What is read of CPython in damaged files, and in the memory of processes that have overwritten their own."""

import os
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usdtkit.elf import constants, writer
from usdtkit.elf.image import Image
from usdtkit.elf.writer import Section, Segment
from usdtkit.errors import NotFoundError, UnsupportedError
from usdtkit.signatures.cpython import DEBUG_COOKIE, GROUPS, LAYOUTS, Layout
from usdtkit.unwind.codeobjects import CodeObject
from usdtkit.unwind.cpython import build_of, layout_of, packed
from usdtkit.unwind.pythons import MOST_FRAMES, Pythons, threads_of

PYTHON = "/usr/bin/python3"
PROGRAM = """
import os, sys, threading
lock = threading.Lock()
lock.acquire()
def inner():
    os.write(1, b"%d\\n" % threading.get_ident()), lock.acquire()
def outer():
    inner()
for _ in range(3):
    threading.Thread(target=outer, daemon=True).start()
sys.stdin.read()
"""


class Stopped:
    """A process of three threads that wait in `inner`, and a main thread."""

    def __init__(self, process):
        self.pid = process.pid
        self.threads = {int(process.stdout.readline()) for _ in range(3)}
        self.python = Pythons().of(process.pid)
        self.layout = self.python.build.layout

    def pointer(self, address):
        with Path(f"/proc/{self.pid}/mem").open("rb", buffering=0) as memory:
            return struct.unpack("<Q", os.pread(memory.fileno(), 8, address))[0]

    def write(self, address, value):
        with Path(f"/proc/{self.pid}/mem").open("r+b", buffering=0) as memory:
            os.pwrite(memory.fileno(), struct.pack("<Q", value), address)

    def state(self):
        """The newest thread's state."""
        return self.pointer(self.pointer(self.python.runtime + self.layout.interpreters) + self.layout.threads)

    def frame(self):
        frame = self.pointer(self.state() + self.layout.thread_frame)
        return self.pointer(frame + self.layout.indirect - 1) if self.layout.indirect else frame


@pytest.fixture
def stopped(spawn):
    return Stopped(spawn([PYTHON, "-c", PROGRAM]))


def names(thread):
    return [frame.name for frame in thread.frames]


def test_frames_of_threads(stopped):
    found = {thread.id: thread for thread in threads_of(stopped.python)}
    assert stopped.threads < set(found)
    for id in stopped.threads:
        assert names(found[id])[:3] == ["inner", "outer", "Thread.run"]
        assert [frame.line for frame in found[id].frames[:2]] == [6, 8]
        assert found[id].problem == ""
    assert {name for id in set(found) - stopped.threads for name in names(found[id])} == {"<module>"}


@pytest.mark.parametrize(
    ("member", "value", "problem"),
    [
        ("previous", None, f"there are more than {MOST_FRAMES} frames"),
        ("previous", 8, "bytes at 0x8 cannot be read"),
        ("code", 0xDEAD0000, "cannot be read"),
        ("code", (1 << 64) - 8, "cannot be read"),
    ],
)
def test_a_thread_with_damaged_frames(stopped, member, value, problem):
    """Its frames end there, and those of the others are whole."""
    frame = stopped.frame()
    stopped.write(frame + getattr(stopped.layout, member), frame if value is None else value)
    damaged, *others = threads_of(stopped.python)
    assert problem in damaged.problem
    assert all(thread.problem == "" and thread.frames for thread in others)
    assert Pythons().of(stopped.pid) == stopped.python


@pytest.mark.parametrize("member", ["thread_next", "thread_interpreter"])
def test_a_damaged_list_of_threads(stopped, member):
    state = stopped.state()
    stopped.write(state + getattr(stopped.layout, member), state)
    with pytest.raises(UnsupportedError, match=r"is not laid out as CPython 3\.\d+, or damaged: the "):
        Pythons().of(stopped.pid)


def test_one_damaged_process_says_nothing_of_others(spawn):
    first, second = Stopped(spawn([PYTHON, "-c", PROGRAM])), Stopped(spawn([PYTHON, "-c", PROGRAM]))
    first.write(first.python.runtime + first.layout.interpreters, 8)
    pythons = Pythons()
    with pytest.raises(UnsupportedError, match="bytes at 0x18 cannot be read"):
        pythons.of(first.pid)
    assert pythons.of(second.pid) == second.python
    # The layout is known to be right now, and a walk over the first one finds out what cannot be read.
    assert pythons.of(first.pid) == first.python


def test_processes_without_python(spawn):
    assert Pythons().of(spawn(["sleep", "60"]).pid) is None
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(NotFoundError, match="no process"):
        Pythons().of(ended.pid)


def test_a_layout_is_packed_for_the_kernel():
    for layout in LAYOUTS.values():
        assert len(packed(layout)) == 4 * len(Layout._fields) <= 128
        assert struct.unpack(f"<{len(layout)}I", packed(layout)) == layout


words = st.one_of(st.integers(0, 300), st.sampled_from([1 << 16, 1 << 32, 1 << 63, (1 << 64) - 8]))


@given(st.sampled_from(sorted(GROUPS)), st.lists(words, max_size=90))
def test_what_an_interpreter_says_of_itself_is_bounded(minor, numbers):
    layout = layout_of((3, minor), struct.pack(f"<{len(numbers)}Q", *numbers))
    if layout is not None:
        assert max(layout) < 1 << 24
        assert max(layout.previous, layout.code, layout.at) + 8 <= layout.frame_size <= 112
        assert layout.entry < layout.frame_size


@given(st.integers(8, 15), st.binary(max_size=300), st.integers(-10, 10_000))
def test_any_bytes_as_lines(minor, lines, at):
    line = CodeObject((3, minor), "f", "f.py", 1, lines).line(at)
    assert line is None or isinstance(line, int)


def embedding(tmp_path, name, data, strings=b"", has_sections=True):
    """A file with variables in a section of this name and texts, without any symbol."""
    alloc, progbits = constants.SHF_ALLOC, constants.SHT_PROGBITS
    sections = [
        Section(".rodata", progbits, strings.ljust(64, b"\0"), alloc, 16),
        Section(".text", progbits, b"\xc3" * 16, alloc | constants.SHF_EXECINSTR, 16),
        Section(name, progbits, data.ljust(1024, b"\0"), alloc | constants.SHF_WRITE, 16),
    ]
    segments = [
        Segment(constants.PT_LOAD, constants.PF_R, ".rodata", ".rodata", headers=True),
        Segment(constants.PT_LOAD, constants.PF_R | constants.PF_X, ".text", ".text"),
        Segment(constants.PT_LOAD, constants.PF_R | constants.PF_W, name, name),
    ]
    path = tmp_path / "embedding"
    file = bytearray(writer.write(sections, segments))
    if not has_sections:
        file[40:48], file[60:64] = bytes(8), bytes(4)
    path.write_bytes(file)
    with Image.open(path) as image:
        return build_of(image)


def offsets(minor, **members):
    """_Py_DebugOffsets that are plausible: those of the numbers of 3.13.0."""
    groups = GROUPS[minor]
    runtime, interpreter = [283320, 608, 632], [194968, 7272, 7264, 7344]
    thread, frame = [304, 0, 8, 16, 72, 152, 160, 232, 32], [80, 8, 0, 56, 72, 70]
    code = [208, 112, 120, 128, 136, 68, 52, 96, 104, 200]
    if minor == 15:
        thread = [888, 0, 8, 16, 72, 80, 88, 96, 176]
    parts = [(runtime, 3), (interpreter, groups.interpreter), (thread, groups.thread), (frame, groups.frame)]
    numbers = [n for part, size in (*parts, (code, groups.code)) for n in (*part, *[0] * (size - len(part)))]
    return struct.pack(
        f"<8sQQ{len(numbers)}Q", DEBUG_COOKIE, 0x030000F0 | minor << 16, members.get("free", 0), *numbers
    )


@pytest.mark.parametrize("minor", GROUPS)
@pytest.mark.parametrize("name", [".PyRuntime", ".data"])
def test_an_interpreter_without_symbols(tmp_path, minor, name):
    """As in a program that it was linked into: by its section, or without any by the first bytes of the variable."""
    if name == ".PyRuntime":
        build = embedding(tmp_path, name, offsets(minor))
    else:
        build = embedding(tmp_path, name, bytes(48) + offsets(minor), has_sections=False)
    assert build.version == (3, minor)
    assert build.layout.thread_frame == 72
    assert list(build.evaluation) == []


def test_the_version_of_an_interpreter_without_symbols(tmp_path):
    strings = b"\0lib/python3.10\0python3.10\0"
    assert embedding(tmp_path, ".PyRuntime", b"\1", strings).layout == LAYOUTS[3, 10]


@pytest.mark.parametrize(
    ("data", "strings", "problem"),
    [
        (offsets(13, free=1), b"", "CPython 3.13 was built without a GIL, which is not supported"),
        (offsets(14)[:120], b"", "what CPython 3.14 says of its own layout is not plausible"),
        (offsets(14).replace(b"\x0e\x03", b"\x10\x03"), b"", "CPython 3.16 is newer than 3.15"),
        (b"\1", b"\0python3.7\0", "CPython 3.7 is older than 3.8"),
        (b"\1", b"\0python3.10\0python3.11\0", "CPython of an unknown version"),
        (b"\1", b"\0lib/python3.13\0", "CPython 3.13 is without what says its layout"),
    ],
)
def test_interpreters_whose_frames_cannot_be_found(tmp_path, data, strings, problem):
    with pytest.raises(UnsupportedError, match=problem):
        embedding(tmp_path, ".PyRuntime", data, strings)


def test_a_file_without_python(tmp_path):
    assert embedding(tmp_path, ".data", b"") is None
    assert embedding(tmp_path, ".data", b"", has_sections=False) is None
