"""Python's frames as a program in the kernel has walked them → frames with names and lines.

Input: the ring of pythonframes.c, which has a record for each piece of Python's code, and the numbers by which stacks
refer to these. Output: `merging.PythonFrame`s for `trace.stacks`. And what the walk needs before it can begin: which
CPython a process runs, in the maps of pythonframes.c. `trace.unwinder` owns both.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Mapping

from usdtkit.bpf.walker import PYTHON_CODES, PYTHON_LAYOUTS, THREAD_POINTER
from usdtkit.errors import UnsupportedError, UsdtkitError
from usdtkit.kernel.maps import Map
from usdtkit.kernel.ring import RingBuffer
from usdtkit.kernel.taskmaps import THREAD_POINTER_MEMBERS, places_of
from usdtkit.signatures.cpython import Layout
from usdtkit.trace.memory import PYTHON, Frame
from usdtkit.trace.merging import PythonFrame, is_evaluation
from usdtkit.unwind.codeobjects import LONGEST_FILE, LONGEST_LINES, LONGEST_NAME, WIDTHS, CodeObject, text_of
from usdtkit.unwind.cpython import packed
from usdtkit.unwind.pythons import Python, Pythons

_CODE = struct.Struct(f"<QIIiIIIII{LONGEST_NAME + 1}s{LONGEST_FILE + 1}s")  # struct python_code
_FRAME = struct.Struct("<QQ")
_MOST_CODES, _MOST_FRAMES, _MOST_PROCESSES = 1 << 17, 1 << 17, 1 << 13


class PythonFrames:
    """The pieces of code that stacks of a session refer to, by their numbers."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._ring = RingBuffer(maps[PYTHON_CODES])
        self._codes: OrderedDict[int, CodeObject] = OrderedDict()
        self._frames: dict[tuple[int, int], Frame] = {}

    def frames(self, data: bytes) -> tuple[PythonFrame, ...]:
        """The frames of a stack, of its array of struct python_frame. A function whose names could not be read, or were
        lost, is called ""."""
        found: list[PythonFrame] = []
        for code, at in _FRAME.iter_unpack(data):
            frame = self._frame(code & ~1, at - (at >> 63 << 64))
            if frame is not None:
                found.append(PythonFrame(frame, bool(code & 1)))
            elif found and code & 1:
                found[-1] = found[-1]._replace(is_entry=True)
        return tuple(found)

    def close(self) -> None:
        """Free the ring buffer. Frames that have been made remain."""
        self._ring.close()

    def _frame(self, number: int, at: int) -> Frame | None:
        """The frame of an instruction; None if it is none of the program's."""
        known = self._frames.get((number, at))
        if known is not None:
            return known
        if number not in self._codes:
            self._collect()
        code = self._codes.get(number)
        if code is None:
            return Frame(PYTHON)
        if code.is_internal:
            return None
        if len(self._frames) >= _MOST_FRAMES:
            self._frames.clear()
        frame = self._frames[number, at] = Frame(PYTHON, code.name, file=code.file, line=code.line(at))
        return frame

    def _collect(self) -> None:
        for payload in self._ring.payloads():
            number, _, version, first_line, size, *texts, name, file = _CODE.unpack_from(payload)
            lines = payload[_CODE.size : _CODE.size + min(size, LONGEST_LINES)]
            self._codes[number] = CodeObject(
                (version >> 8, version & 0xFF), _text(name, *texts[:2]), _text(file, *texts[2:]), first_line, lines
            )
            if len(self._codes) > _MOST_CODES:
                self._codes.popitem(last=False)


class KnownPythons:
    """Tells the kernel which CPython processes run. `problems` says why not, by process."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._layouts = maps[PYTHON_LAYOUTS]
        self._numbers: dict[Layout, int] = {}
        self._pythons = Pythons()
        self._found: dict[int, Python] = {}
        self.problems: dict[int, str] = {}
        self._prevents = ""
        try:
            place = sum(places_of(THREAD_POINTER_MEMBERS).values())
            maps[THREAD_POINTER][bytes(4)] = place.to_bytes(8, "little")
        except UnsupportedError:
            self._prevents = f"it is not known here how a thread is found on {os.uname().machine}"

    def python(self, pid: int) -> tuple[int, int]:
        """The number of a process's layout, and the address of its runtime; zeros if it has no Python to walk."""
        self._found.pop(pid, None)
        self.problems.pop(pid, None)
        try:
            python = self._pythons.of(pid)
        except UnsupportedError as error:
            self._note(pid, error.message)
            return 0, 0
        except UsdtkitError:  # it has ended, or may not be looked into
            return 0, 0
        number = 0 if python is None or self._prevents else self._number(python.build.layout)
        if python is not None and self._prevents:
            self._note(pid, self._prevents)
        if python is None or not number:
            return 0, 0
        self._found[pid] = python
        if len(self._found) > _MOST_PROCESSES:
            del self._found[next(iter(self._found))]
        return number, python.runtime

    def is_evaluation(self, pid: int, frame: Frame) -> bool:
        """Whether a frame is a call of the evaluation function, or of a part that was moved away, which has no name."""
        python = self._found.get(pid)
        if python is None:
            return is_evaluation(frame)
        # The address is that of the next instruction. A hit at the very first one comes before the Python frame.
        return any(start < frame.address <= end for start, end in python.evaluation)

    def _note(self, pid: int, problem: str) -> None:
        if len(self.problems) < _MOST_PROCESSES:
            self.problems[pid] = problem

    def _number(self, layout: Layout) -> int:
        """1 and more; 0 if there is no room for another one."""
        if layout not in self._numbers:
            if len(self._numbers) == self._layouts.max_entries:
                return 0
            self._layouts[len(self._numbers).to_bytes(4, "little")] = packed(layout)
            self._numbers[layout] = len(self._numbers) + 1
        return self._numbers[layout]


def _text(data: bytes, size: int, width: int) -> str:
    return text_of(data[:size], width) if width in WIDTHS else ""
