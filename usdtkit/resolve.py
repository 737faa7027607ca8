"""Names that users type (of a path, directory, command, library or program) → the files that they mean, as `Target`s,
and names of processes → their numbers.

Used through `usdtkit.targets`. Uses `usdtkit.scan` (which files processes run) and `usdtkit.libraries` (what
libraries are called). Every path that comes out can be opened from here, also where the file lives in a container.
"""

# Paths stay strings, as the model has them.
# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH118

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from usdtkit import libraries
from usdtkit.errors import NotFoundError, UsageError
from usdtkit.model import Target
from usdtkit.privatedirs import stranger
from usdtkit.processes import called, named, names_of, running_pids, user_of
from usdtkit.scan import Scan, all_mapped, file_key

if TYPE_CHECKING:
    from usdtkit.elf.walk import Progress

_PROVIDER_FILE_LIMIT = 10_000  # files looked at in one directory, which others may be able to fill
_MOST_COMPARED = 5000  # names, in the search for near ones


def resolve(name: str, pids: Sequence[int] = (), *, progress: Progress | None = None) -> list[Target]:
    """Return the files that `name` means: a path or a glob of paths, a directory (every ELF file below it), a command,
    a library ("c", "ssl", "libpam.so.0"), or the program of a running process ("postgres").

    With `pids` these are the matching files that the processes map, all of them if there are several. A path or a
    command then also finds what the processes run by another name of the same file. Without `pids`, a name with a slash
    is a path: that of a file here, or else of the files that processes in containers map by this path. Any other name
    is looked for in PATH, then as a library where the loader looks, then among the programs that run, in containers
    too. NotFoundError says what there is instead. `progress` is called while a directory is searched.
    """
    return _mapped_as(name, pids) if pids else _installed_as(name, progress)


def mapped_by(pids: Sequence[int]) -> list[Target]:
    """Return the files that the processes map to execute, one for each inode. NotFoundError, PrivilegeError.

    If several processes are given, those that have ended cost one warning.
    """
    scan = Scan()
    ended: list[NotFoundError] = []
    for pid in dict.fromkeys(pids):
        try:
            scan.add(pid)
        except NotFoundError as error:
            ended.append(error)
    scan.warn()
    if targets := scan.targets():
        warn_left_out([error.message for error in ended], "processes")
        return targets
    if ended:
        raise ended[0]
    raise NotFoundError(
        f"{describe(pids)}: there is no program to search: it has ended, or it is a kernel thread",
        hint="pgrep -a NAME finds others",
    )


def everything(*, quiet: bool = False, idle: bool = False) -> list[Target]:
    """Return the provider files, even those that no process maps, then the files that any process maps.

    There is one for each inode. Files of root and ours come first.

    Anybody who can write to a directory of provider files could pass a file off as another application's. A provider
    file that belongs neither to root nor to us, or lies in a directory that does not, is therefore only returned if
    a process of its owner, of root or of ours maps it. With `idle` it is returned in any case; that is for callers that
    only show files.

    `quiet` suppresses the warning about what may not be read.
    """
    mapped = {target.key: target for target in all_mapped(quiet=quiet)}
    provider_files: dict[object, Target] = {}
    for path in _provider_files():
        key = file_key(path)
        if key is not None and key not in provider_files:
            running = mapped.pop(key, None)
            provider_files[key] = Target(path, path, running.pids, key) if running else Target(path, path)
    own: list[Target] = []
    foreign: list[Target] = []
    for target in provider_files.values():
        owner = stranger(target.path.rpartition("/")[0])
        owner = stranger(target.path) if owner is None else owner
        if owner is None:
            own.append(target)
        elif idle or any(user_of(pid) in (owner, 0, os.geteuid()) for pid in target.pids):
            foreign.append(target)
    for target in mapped.values():
        (own if stranger(target.path) is None else foreign).append(target)
    return own + foreign


def processes_of(word: int | str) -> list[int]:
    """Return the processes that a word means: the one of this number, or all that have this name (`names_of`).

    UsageError of a number that no process can have; NotFoundError, with the nearest names, if none is called so.
    """
    if isinstance(word, int) or word.isdecimal():
        number = int(str(word)[:20])
        if not 0 < number < 1 << 31:
            raise UsageError(f"{word!r} is not a process ID")
        return [number]
    if word and (pids := called(word)):
        return pids
    near = nearest(word, sorted({name for pid in running_pids() for name in names_of(pid)}))
    raise NotFoundError(f"no process runs a program {word!r}{near}", hint="pgrep -a NAME finds the ID of a process")


def describe(pids: Sequence[int]) -> str:
    """Return the processes as they are named in messages."""
    return f"process {pids[0]}" if len(pids) == 1 else f"processes {', '.join(map(str, pids))}"


def nearest(unknown: str, names: list[str]) -> str:
    """Return the end of an error message that suggests the names nearest to the one that was not found, or ""."""
    import difflib  # lazy: it is only needed to word an error

    plain = re.sub(r"[*?\[\]]", "", unknown)
    if len(names) > _MOST_COMPARED:  # comparing is slow, and a wrong letter is seldom among the first two
        names = [name for name in names if name[:2].lower() == plain[:2].lower()][:_MOST_COMPARED]
    near = difflib.get_close_matches(plain, names, 3, 0.6)
    return f"; near: {', '.join(near)}" if near else ""


def warn_left_out(problems: list[str], what: str = "files") -> None:
    """Log the first of several problems, for each of which one of `what` was left out, and how many more there are."""
    if problems:
        more = f" (and {len(problems) - 1} more {what})" if len(problems) > 1 else ""
        log(f"left out: {problems[0]}{more}")


def log(text: str) -> None:
    """Log a warning."""
    import logging  # lazy: there is seldom something to say

    logging.getLogger(__name__).warning("%s", text)


def _installed_as(name: str, progress: Progress | None) -> list[Target]:
    if "/" in name:
        if os.path.isdir(name):
            return _below(name, progress)
        if os.path.exists(name):
            return [Target(name, os.path.abspath(name))]
        import fnmatch  # lazy: few names have wildcards, and few files are not here
        import glob

        if matching := _distinct(sorted(glob.glob(name))):  # noqa: PTH207
            return matching
        matches = re.compile(fnmatch.translate(os.path.abspath(name))).match
        if inside := [target for target in all_mapped(quiet=True) if matches(target.name.removesuffix(" (deleted)"))]:
            return inside
        raise NotFoundError(f"{name!r}: no such file, neither here nor in a container that runs it")
    if found := command(name):
        return [Target(found, found)]
    if matching := _distinct(libraries.installed(name)):
        return matching
    if name and (pids := named(name)):
        return _mapped_as(name, pids)
    hint = f"./{name} names the file in this directory" if os.path.exists(name) else "give a path, or -p PID"
    raise NotFoundError(
        f"{name!r} is neither a command in PATH, nor a library that the loader knows, nor a running program", hint=hint
    )


def _below(directory: str, progress: Progress | None) -> list[Target]:
    from usdtkit.elf.walk import elf_files  # lazy: few names are directories

    targets = [Target(path, path) for path in elf_files(os.path.abspath(directory), progress=progress)]
    if not targets:
        raise NotFoundError(f"{directory}: no ELF file below this directory")
    return targets


def _distinct(paths: Sequence[str]) -> list[Target]:
    """The regular files among the paths, one for each inode, by the first of its names."""
    path_of = {key: path for path in reversed(paths) if (key := file_key(path))}
    return [Target(path, os.path.abspath(path)) for path in reversed(path_of.values())]


def _mapped_as(name: str, pids: Sequence[int]) -> list[Target]:
    mapped = mapped_by(pids)
    key = file_key(name if "/" in name else command(name))
    matching = [
        target
        for target in mapped
        # A file that was replaced since it was mapped is still the one that the process runs.
        if target.name.removesuffix(" (deleted)") == name
        or (key is not None and target.key == key)
        or ("/" not in name and libraries.is_called(target.name.removesuffix(" (deleted)"), name))
    ]
    if matching:
        return matching
    near = nearest(name, [path.rpartition("/")[2] for path in sorted({target.name for target in mapped})])
    raise NotFoundError(
        f"{describe(pids)} maps no {name!r}{near}", hint=f"usdtkit list -p {pids[0]} shows what it maps"
    )


def command(name: str) -> str:
    """Return the path of a command, "" if there is none. Importing shutil for this takes longer than the search."""
    paths = (os.path.join(directory, name) for directory in os.get_exec_path())
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), "")


def _provider_files() -> list[str]:
    from usdtkit.directories import provider_directories  # lazy: it imports pathlib

    paths: list[str] = []
    for directory in provider_directories():
        # In another user's directory links are not followed: one may lead to a file of root's now, and to one of that
        # user's later.
        follows_links = stranger(str(directory)) is None
        try:
            with os.scandir(directory) as entries:
                paths += sorted(
                    entry.path
                    for _, entry in zip(range(_PROVIDER_FILE_LIMIT), entries, strict=False)
                    if entry.name.endswith(".so") and (follows_links or not entry.is_symlink())
                )
        except OSError:  # it does not exist, or is private to another user
            continue
    return paths
