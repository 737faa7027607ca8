"""Processes whose stacks were taken → why functions of their languages are not in them, and what to do about it.

Input: what `trace.memory` knows of the processes, and what `trace.pythonframes` could not find. Output: lines for
`Session.advice`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from usdtkit.signatures import python
from usdtkit.trace.memory import AddressSpace

_TOO_OLD = "the kernel cannot walk along them, as Linux 5.17 and newer can"
_FILES = {
    "Python": (*python.LIBRARIES, *python.PROGRAMS),
    "PHP": ("php", "php[0-9]*", "php-fpm*", "libphp*"),
    "Ruby": ("ruby*", "libruby*"),
}
_INSTEAD = {
    "Python": "usdtkit run, and uflow or ucalls, show its calls",
    "PHP": "uflow and ucalls show its calls",
    "Ruby": "uflow and ucalls show its calls",
}


def advice(memories: Iterable[AddressSpace], problems: Mapping[int, tuple[str, str]] | None) -> list[str]:
    """Lines about processes in whose stacks no function of their language was found: one for each reason.

    `problems` has the language and the reason by process; None where the kernel lets nobody look for such frames.
    """
    lines: dict[tuple[str, str], int] = {}
    for memory in memories:
        problem = problems.get(memory.pid) if problems is not None else _too_old(memory)
        if problem is not None:
            lines.setdefault(problem, memory.pid)
    return [
        f"process {pid}: {language}'s functions are not in its stacks: {problem}; {_INSTEAD[language]}"
        for (language, problem), pid in lines.items()
    ]


def _too_old(memory: AddressSpace) -> tuple[str, str] | None:
    names = {file.name.rpartition("/")[2] for file in memory.files}
    for language, globs in _FILES.items():
        if any(fnmatchcase(name, glob) for name in names for glob in globs):
            return language, _TOO_OLD
    return None
