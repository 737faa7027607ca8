"""Which program files a kind of server runs from: the names of its program → paths that a session can attach to.

Input: a session, and the file names that a server's program has. Output: paths that can be opened from here, one for
each file, and the entries of functions in these files and in those that come later. Servers in containers have files of
their own, often by the same name. Used by the modules of single servers, such as `mysql` and `postgresql`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from usdtkit import processes, targets
from usdtkit.errors import NotFoundError, PrivilegeError, as_root
from usdtkit.model import Function, Target
from usdtkit.records import replace
from usdtkit.trace import FunctionSpec, Resolved, Session, Sought


def running(*names: str) -> list[int]:
    """The processes whose program has one of these file names.

    NotFoundError if there is none; PrivilegeError if there may be one that only root can see.
    """
    if pids := processes.named(*names):
        return pids
    spelled = " or ".join(names[:2])
    if os.geteuid() != 0:
        raise PrivilegeError(f"no {spelled} among the processes that you may inspect", hint=as_root())
    raise NotFoundError(f"no {spelled} runs here", hint="--wait waits for it; -c CMD starts it")


def program_files(session: Session, names: Sequence[str], program: str | os.PathLike[str] | None = None) -> list[str]:
    """The program files of the server that a session traces, without duplicates.

    That is `program` (a path, or a command) if it is given, else the program of the session's command, else what the
    session's processes run, else what all processes run whose program has one of `names`. An offline session looks at
    nothing: its server is called what `program` or the command says, or by the first of the names. Raises the errors of
    `running`, and NotFoundError if the program is not there or all of the processes have ended.
    """
    if program is not None or session.command:
        name = session.command[0] if program is None else os.fspath(program)
        return [name if session.offline else targets.resolve(name)[0].path]
    if session.offline:
        return [names[0]]
    pids = session.pids or running(*names)
    # The path that a process reports is the one in its container: which file that is, its memory map says.
    mapped = [target.path for path in _programs(pids) for target in _mapped(path, pids)]
    return list(dict.fromkeys(mapped))


class Programs:
    """Functions of a kind of server, in the program files that run it now and in those that come later.

    `sought`: globs of the paths of programs that start later. `functions`: all names that will be asked for, so that
    each file is searched once. `files` are those that have any of them.
    """

    def __init__(
        self, session: Session, files: Iterable[str], *, sought: Sequence[str], functions: Sequence[str]
    ) -> None:
        self._sought = sought
        self._found: dict[str, list[Function]] = {}
        for path in files:
            with suppress(NotFoundError):
                found = session.find_functions(path, functions)
                self._found[path] = [] if session.offline else found

    @property
    def files(self) -> list[str]:
        """The files that have any of the functions."""
        return list(self._found)

    def functions(self, names: Sequence[str], path: str | None = None) -> list[Function]:
        """The functions of these names in all files, or in that of `path`, with the copies that a compiler has made."""
        files = self._found.values() if path is None else [self._found.get(path, [])]
        return [one for found in files for one in found if one.name.partition(".")[0] in names]

    def entries(self, names: tuple[str, ...], only: Callable[[Function], bool] | None = None) -> Resolved:
        """Their entries, none where no file has any; `only` is as `FunctionSpec` has it."""
        spec = FunctionSpec(self._sought[0], names, only=only)
        resolved = spec.of(self.functions(names))
        return replace(resolved, sought=Sought(replace(spec, library=path) for path in self._sought))


def parents(pids: Iterable[int]) -> set[int]:
    """The processes that have started these. Processes that have ended are left out."""
    return {processes.parent_of(pid) for pid in pids} - {0}


def _programs(pids: Sequence[int]) -> list[str]:
    """The paths of the programs that the processes run, without duplicates."""
    paths = set()
    for pid in pids:
        try:
            paths.add(processes.program_of(pid))
        except FileNotFoundError:  # it has ended: servers that fork end processes all the time
            continue
        except PermissionError as error:
            raise PrivilegeError(f"{error.filename} may not be read", hint=as_root()) from None
    if pids and not paths:
        raise NotFoundError(f"no process {pids[0]}", hint="pgrep -a NAME finds the ID of a process")
    return sorted(paths)


def _mapped(path: str, pids: Sequence[int]) -> list[Target]:
    """The files of this path that the processes run; none if the last process with such a file has just ended."""
    try:
        return targets.resolve(path, pids)
    except NotFoundError:
        if len(pids) == 1:
            raise
        return []
