"""All languages that we know, and how the files that a process maps tell which one it runs.

Input: names of files. Output: a `Language` of the modules beside this one. What the process calls itself does not
matter.
"""

# Paths stay strings, as the model has them.
# ruff: noqa: PTH119

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

from usdtkit import targets
from usdtkit.errors import NotFoundError, PrivilegeError, UsageError, as_root, one_of
from usdtkit.providers.runtimes import c, java, node, perl, php, python, ruby, tcl
from usdtkit.providers.runtimes.language import Language

LANGUAGES: tuple[Language, ...] = tuple(module.LANGUAGE for module in (java, python, ruby, php, node, perl, tcl, c))
"""All languages that this package knows."""
BY_NAME = {language.name: language for language in LANGUAGES}
"""The languages by their names."""
RUNTIMES = tuple(language for language in LANGUAGES if language.programs)
"""The languages that have a runtime: all but C."""


def language_called(name: str) -> Language:
    """The language of this name. UsageError if it is not one of ours."""
    try:
        return BY_NAME[name]
    except KeyError:
        raise UsageError(f"no language is called {name!r} here", hint=one_of(name, BY_NAME)) from None


def language_of_files(names: Sequence[str]) -> Language:
    """The language whose files these are; C if they belong to no other one.

    A program says more than a library, which other programs may have embedded.
    """
    for kind in ("programs", "libraries"):
        for name in names:
            for language in LANGUAGES:
                if any(fnmatchcase(name, glob) for glob in getattr(language, kind)):
                    return language
    return BY_NAME["c"]


def language_of_process(pid: int) -> Language:
    """The language that a process runs. NotFoundError, PrivilegeError."""
    return language_of_files([os.path.basename(target.name) for target in targets.mapped_files(pid)])


def language_of_program(path: str) -> Language:
    """The language that a program will run, by its name and by the name of the file that this leads to."""
    return language_of_files([os.path.basename(path), os.path.basename(os.path.realpath(path))])


def speaking(name: str) -> list[int]:
    """The processes that run the language of this name now, without this process itself.

    NotFoundError if there is none, PrivilegeError if there is none among those that may be looked into.
    """
    language = language_called(name)
    files: dict[int, list[str]] = {}
    for target in targets.all_mapped():
        for pid in target.pids:
            files.setdefault(pid, []).append(os.path.basename(target.name))
    pids = [pid for pid, names in files.items() if pid != os.getpid() and language_of_files(names) is language]
    if pids:
        return sorted(pids)
    if os.geteuid() != 0:
        raise PrivilegeError(f"no {name} among the processes that you may inspect", hint=as_root())
    raise NotFoundError(f"no process here runs {name}", hint="start it first, or give a command that starts it")


def children_speaking(language: Language, pids: Iterable[int]) -> list[int]:
    """The processes below these that run the language too, such as a server's workers."""
    pids = set(pids)
    found = []
    for child in dict.fromkeys(child for pid in pids for child in targets.below(pid) if child not in pids):
        with suppress(NotFoundError, PrivilegeError):
            if language_of_process(child) is language:
                found.append(child)
    return found
