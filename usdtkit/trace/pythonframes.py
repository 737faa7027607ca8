"""Python's, PHP's and Ruby's frames as a program in the kernel has walked them → frames with names and lines.

Input: the ring of pythonframes.c, which has a record for each piece of code, and the numbers by which stacks refer to
these. Output: `merging.PythonFrame`s for `trace.stacks`. And what the walk needs before it can begin: which of the
three a process runs, in the maps of pythonframes.c and rubyframes.c. `trace.unwinder` owns both.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TypeVar

from usdtkit.bpf.walker import PYTHON_CODES, PYTHON_LAYOUTS, RUBY_LAYOUTS, THREAD_POINTER
from usdtkit.errors import UnsupportedError, UsdtkitError
from usdtkit.kernel.maps import Map
from usdtkit.kernel.ring import RingBuffer
from usdtkit.kernel.taskmaps import THREAD_POINTER_MEMBERS, places_of
from usdtkit.trace.memory import PHP, PYTHON, RUBY, Frame
from usdtkit.trace.merging import PythonFrame, is_evaluation
from usdtkit.unwind.codeobjects import LONGEST_FILE, LONGEST_LINES, LONGEST_NAME, WIDTHS, CodeObject, text_of, utf8_of
from usdtkit.unwind.cpython import packed
from usdtkit.unwind.iseqs import Iseq
from usdtkit.unwind.phps import Function, Php, Phps
from usdtkit.unwind.pythons import Python, Pythons
from usdtkit.unwind.rubies import LAYOUT, Rubies, Ruby

_T = TypeVar("_T")
_CODE = struct.Struct(f"<QIIiIIIII{LONGEST_NAME + 1}s{LONGEST_FILE + 1}s")  # struct python_code
_FRAME = struct.Struct("<QQ")
_LANGUAGE_SHIFT, _OF_PHP, _OF_RUBY = 24, 1, 2  # as in walk.h
_KINDS = {CodeObject: PYTHON, Function: PHP, Iseq: RUBY}
_MOST_CODES, _MOST_FRAMES, _MOST_PROCESSES = 1 << 17, 1 << 17, 1 << 13


class PythonFrames:
    """The pieces of code that stacks of a session refer to, by their numbers."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._ring = RingBuffer(maps[PYTHON_CODES])
        self._codes: OrderedDict[int, CodeObject | Function | Iseq] = OrderedDict()
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
        if isinstance(code, CodeObject) and code.is_internal:
            return None
        if len(self._frames) >= _MOST_FRAMES:
            self._frames.clear()
        frame = self._frames[number, at] = Frame(_KINDS[type(code)], code.name, file=code.file, line=code.line(at))
        return frame

    def _collect(self) -> None:
        for payload in self._ring.payloads():
            number = int.from_bytes(payload[:8], "little")
            self._codes[number] = _code(payload)
            if len(self._codes) > _MOST_CODES:
                self._codes.popitem(last=False)


class KnownPythons:
    """Tells the kernel which processes run CPython, PHP or Ruby. `problems` says of others by process why not, with the
    name of the language."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._layouts, self._ruby_layouts = _Layouts(maps[PYTHON_LAYOUTS]), _Layouts(maps[RUBY_LAYOUTS])
        self._pythons, self._phps, self._rubies = Pythons(), Phps(), Rubies()
        self._found: dict[int, Python | Php | Ruby] = {}
        self.problems: dict[int, tuple[str, str]] = {}
        self._prevents = ""
        try:
            place = sum(places_of(THREAD_POINTER_MEMBERS).values())
            maps[THREAD_POINTER][bytes(4)] = place.to_bytes(8, "little")
        except UnsupportedError:
            self._prevents = f"it is not known here how a thread is found on {os.uname().machine}"

    def python(self, pid: int) -> tuple[int, int]:
        """What the kernel is told of the language of a process, and where its variable is; zeros if it has none to
        walk. Of Python and Ruby it has the number of the layout, of PHP the offset of a function's file."""
        self._found.pop(pid, None)
        self.problems.pop(pid, None)
        if (python := self._tried("Python", self._pythons.of, pid)) is not None:
            number = self._layouts.number(packed(python.build.layout))
            return self._known(pid, python, 0, number, python.runtime)
        if (ruby := self._tried("Ruby", self._rubies.of, pid)) is not None:
            number = self._ruby_layouts.number(LAYOUT.pack(*ruby.build.layout))
            return self._known(pid, ruby, _OF_RUBY, number, ruby.machine)
        if (php := self._tried("PHP", self._phps.of, pid)) is not None:
            return self._known(pid, php, _OF_PHP, php.build.file, php.globals)
        return 0, 0

    def _known(self, pid: int, found: Python | Php | Ruby, language: int, detail: int, runtime: int) -> tuple[int, int]:
        if not detail:  # there is no room for another layout
            return 0, 0
        if self._prevents and not isinstance(found, Php):
            self._note(pid, "Ruby" if isinstance(found, Ruby) else "Python", self._prevents)
            return 0, 0
        self._found[pid] = found
        if len(self._found) > _MOST_PROCESSES:
            del self._found[next(iter(self._found))]
        return language << _LANGUAGE_SHIFT | detail, runtime

    def _tried(self, language: str, of: Callable[[int], _T | None], pid: int) -> _T | None:
        try:
            return of(pid)
        except UnsupportedError as error:
            self._note(pid, language, error.message)
        except UsdtkitError:  # it has ended, or may not be looked into
            pass
        return None

    def is_evaluation(self, pid: int, frame: Frame) -> bool:
        """Whether a frame is a call of the evaluation function, or of a part that was moved away, which has no name."""
        found = self._found.get(pid)
        if found is None:
            return is_evaluation(frame)
        # The address is that of the next instruction. A hit at the very first one comes before the Python frame.
        return any(start < frame.address <= end for start, end in found.evaluation)

    def _note(self, pid: int, language: str, problem: str) -> None:
        if len(self.problems) < _MOST_PROCESSES:
            self.problems[pid] = language, problem


class _Layouts:
    """The layouts that a map has, by their numbers, which begin with 1."""

    def __init__(self, map: Map) -> None:
        self._map = map
        self._numbers: dict[bytes, int] = {}

    def number(self, layout: bytes) -> int:
        """0 if there is no room for another one."""
        if layout not in self._numbers:
            if len(self._numbers) == self._map.max_entries:
                return 0
            self._map[len(self._numbers).to_bytes(4, "little")] = layout
            self._numbers[layout] = len(self._numbers) + 1
        return self._numbers[layout]


def _code(payload: bytes) -> CodeObject | Function | Iseq:
    """What a record of the ring has."""
    _, _, version, first_line, size, *texts, name, file = _CODE.unpack_from(payload)
    language, rest = version >> _LANGUAGE_SHIFT, payload[_CODE.size : _CODE.size + size]
    if language == _OF_PHP:
        return Function.of(name[: texts[0]], rest, file[: texts[2]])
    if language == _OF_RUBY:
        positions = max(first_line, 0)
        called, path = utf8_of(name[: texts[0]], LONGEST_NAME), utf8_of(file[: texts[2]], LONGEST_FILE)
        return Iseq(called, path, rest[:positions], rest[positions:], version & 0xFF)
    return CodeObject(
        (version >> 8, version & 0xFF),
        _text(name, *texts[:2]),
        _text(file, *texts[2:]),
        first_line,
        rest[:LONGEST_LINES],
    )


def _text(data: bytes, size: int, width: int) -> str:
    return text_of(data[:size], width, len(data) - 1) if width in WIDTHS else ""
