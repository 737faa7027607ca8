"""Processes whose stacks were taken → why Python's functions are not in them, and what to do about it.

Input: what `trace.memory` knows of the processes. Output: lines for `Session.advice`. A native stack shows Python
functions under two conditions. CPython must run each function through its own piece of machine code (3.12 and later,
with -X perf), and the interpreter, whose frames lie between those, must keep frame pointers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from usdtkit.signatures import python
from usdtkit.trace.memory import AddressSpace
from usdtkit.trace.symbols import MappedFile

_FIRST_WITH_NAMES = (3, 12)
_EVALUATION_LOOP = "_PyEval_EvalFrameDefault"
_INSTEAD = "usdtkit run, and uflow or ucalls, show its calls"


def advice(memories: Iterable[AddressSpace]) -> list[str]:
    """Lines about processes in whose stacks no Python function was found: one for each interpreter among them."""
    lines: dict[str, int] = {}
    for memory in memories:
        interpreter = _interpreter(memory)
        reason = None if interpreter is None else _reason(interpreter, memory)
        if interpreter is not None and reason is not None:
            lines.setdefault(f"{_base(interpreter)} does not show Python's functions in stacks: {reason}", memory.pid)
    return [f"process {pid}: {line}" for line, pid in lines.items()]


def _interpreter(memory: AddressSpace) -> MappedFile | None:
    """The file with CPython's code. If there is a library, it is that one, and the program only starts it."""
    for globs in (python.LIBRARIES, python.PROGRAMS):
        for file in memory.files:
            if any(fnmatchcase(_base(file), glob) for glob in globs):
                return file
    return None


def _reason(interpreter: MappedFile, memory: AddressSpace) -> str | None:
    version = re.search(r"python(\d+)\.(\d+)", _base(interpreter))
    has_frames = interpreter.keeps_frame_pointer(_EVALUATION_LOOP)
    if version is None or has_frames is None:
        return None
    if (int(version[1]), int(version[2])) < _FIRST_WITH_NAMES:
        return f"from CPython 3.12 on, python -X perf does; {_INSTEAD}"
    if not has_frames:
        return f"it was compiled without frame pointers, as most are before CPython 3.15; {_INSTEAD}"
    if not memory.has_perf_map:
        return "start it as python -X perf, or with PYTHONPERFSUPPORT=1"
    return None


def _base(file: MappedFile) -> str:
    return file.name.rpartition("/")[2]
