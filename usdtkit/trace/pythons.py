"""Processes whose stacks were taken → why Python's functions are not in them, and what to do about it.

Input: what `trace.memory` knows of the processes, and what `trace.pythonframes` could not find. Output: lines for
`Session.advice`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from usdtkit.signatures import python
from usdtkit.trace.memory import AddressSpace

_TOO_OLD = "the kernel cannot walk along them, as Linux 5.17 and newer can"
_INSTEAD = "usdtkit run, and uflow or ucalls, show its calls"


def advice(memories: Iterable[AddressSpace], problems: Mapping[int, str] | None) -> list[str]:
    """Lines about processes in whose stacks no Python function was found: one for each reason.

    `problems` has the reasons by process; None where the kernel lets nobody look for Python's frames.
    """
    lines: dict[str, int] = {}
    for memory in memories:
        problem = (_TOO_OLD if _runs_python(memory) else None) if problems is None else problems.get(memory.pid)
        if problem is not None:
            lines.setdefault(problem, memory.pid)
    return [
        f"process {pid}: Python's functions are not in its stacks: {problem}; {_INSTEAD}"
        for problem, pid in lines.items()
    ]


def _runs_python(memory: AddressSpace) -> bool:
    names = {file.name.rpartition("/")[2] for file in memory.files}
    return any(fnmatchcase(name, glob) for name in names for glob in (*python.LIBRARIES, *python.PROGRAMS))
