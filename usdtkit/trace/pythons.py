"""Processes whose stacks were taken → why Python's functions are not in them, and what to do.

Input: what `trace.memory` knows of the processes. Output: lines for `Session.advice`. Python's functions are in a stack
where CPython runs each by machine code of its own (3.12, -X perf), and where the interpreter, whose frames lie between
these, keeps frame pointers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from usdtkit.signatures.languages import BY_NAME
from usdtkit.trace.memory import AddressSpace
from usdtkit.trace.symbols import MappedFile

NAMED = "py::"
"""How the name of a Python function begins in a perf map."""

_FIRST_NAMED = (3, 12)
_LOOP = "_PyEval_EvalFrameDefault"
_INSTEAD = "usdtkit run, and uflow or ucalls, show its calls"


def advice(memories: Iterable[AddressSpace]) -> list[str]:
    """Of processes in whose stacks is no Python function: a line for each interpreter that is among them."""
    lines: dict[str, int] = {}
    for memory in memories:
        interpreter = _interpreter(memory)
        reason = None if interpreter is None else _reason(interpreter, memory)
        if interpreter is not None and reason is not None:
            lines.setdefault(f"{_base(interpreter)} does not show Python's functions in stacks: {reason}", memory.pid)
    return [f"process {pid}: {line}" for line, pid in lines.items()]


def _interpreter(memory: AddressSpace) -> MappedFile | None:
    """The file with CPython's code: where there is a library, the program is a small one."""
    python = BY_NAME["python"]
    for globs in (python.libraries, python.programs):
        for file in memory.files:
            if any(fnmatchcase(_base(file), glob) for glob in globs):
                return file
    return None


def _reason(interpreter: MappedFile, memory: AddressSpace) -> str | None:
    version = re.search(r"python(\d+)\.(\d+)", _base(interpreter))
    framed = interpreter.keeps_frame_pointer(_LOOP)
    if version is None or framed is None:
        return None
    if (int(version[1]), int(version[2])) < _FIRST_NAMED:
        return f"from CPython 3.12 on, python -X perf does; {_INSTEAD}"
    if not framed:
        return f"it was compiled without frame pointers, as most are before CPython 3.15; {_INSTEAD}"
    if not memory.has_perf_map:
        return "start it as python -X perf, or with PYTHONPERFSUPPORT=1"
    return None


def _base(file: MappedFile) -> str:
    return file.name.rpartition("/")[2]
