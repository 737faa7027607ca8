"""Names that users type → files → probes and functions: path, command, library, process in; the model's nouns out.

Stands on `usdtkit.processes` (who maps what), `usdtkit.libraries` (names of libraries), `usdtkit.elf` (what is in a
file) and `usdtkit.signatures` (what its arguments are called). Used by `usdtkit.trace` and `usdtkit.cli`. Every path
that comes out can be opened from here, also where the file lives in a container.
"""

# Paths stay strings, as the model has them.
# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH118

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from usdtkit import libraries
from usdtkit.elf import symbols
from usdtkit.elf.image import Image
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError, UsageError
from usdtkit.model import Function, Probe, Target
from usdtkit.privatedirs import stranger
from usdtkit.processes import (
    Scan,
    all_mapped,
    below,
    file_key,
    mapped_files,
    named,
    open_target,
    running_pids,
    user_of,
)

if TYPE_CHECKING:
    from usdtkit.elf.walk import Progress

__all__ = [
    "all_mapped",
    "below",
    "defining",
    "everything",
    "find_functions",
    "find_probes",
    "functions_in",
    "mapped_by",
    "mapped_files",
    "no_probe",
    "open_target",
    "probes_in",
    "probes_of",
    "resolve",
    "running_pids",
]

_NEAR_FILES = 20  # in which names are compared when there is none of that name
# What a search for a bare name may spend on files of other users: a machine with hundreds of them takes a tenth of it.
_SEARCH_S, _BYTES_A_SECOND = 5.0, 100e6
_PROVIDER_FILE_LIMIT = 10_000  # files looked at in one directory, which others may be able to fill


def resolve(name: str, pids: Sequence[int] = (), *, progress: Progress | None = None) -> list[Target]:
    """The files that `name` means: a path or a glob of paths, a directory (every ELF file below it), a command, a
    library ("c", "ssl", "libpam.so.0"), or the program of a running process ("postgres").

    With `pids` these are the matching files that the processes map, each of them if there are several; a path or a
    command then also finds what the processes run by another name of the same file. Without, a name with a slash is a
    path, else it is looked for in PATH, then as a library where the loader looks, then among the programs that run, in
    containers too. NotFoundError says what there is instead. `progress` is called while a directory is searched.
    """
    return _mapped_as(name, pids) if pids else _installed_as(name, progress)


def probes_in(target: Target | str) -> tuple[Probe, ...]:
    """All probes of one file. ElfError where it is damaged, () where it has none."""
    images = _opened(Target(target, target) if isinstance(target, str) else target)
    return tuple(probe for image in images for probe in _read_probes(image))


def functions_in(target: Target, *names: symbols.Pattern) -> list[Function]:
    """The functions of one file that match (see `symbols.functions`), [] where there are none. As `probes_in`."""
    return [function for image in _opened(target) for function in symbols.functions(image, *names)]


def _opened(target: Target) -> Iterator[Image]:
    """The file of a target, or those of it on an overlay that processes may run."""
    for file in open_target(target):
        with Image(file.path, file) as image:
            yield image


def _read_probes(image: Image) -> tuple[Probe, ...]:
    from usdtkit.elf import notes  # functions are found without reading operands
    from usdtkit.signatures import known_arguments

    return notes.read_probes(image, known=known_arguments)


def probes_of(targets: Iterable[Target], *, seconds: float = 60.0, hold: bool = True) -> list[Probe]:
    """The probes of many files, of which most have none and some are no ELF files at all.

    What is damaged, or may not be read, costs one warning. Files of other users, who could have made them to keep us
    busy, are read until together they have taken so many seconds, or a hundred megabytes for each of these. Those that
    are left then cost a warning as well. Without `hold` the files are closed, for who only wants to show what is in
    them: of a directory there may be more than a process can have open.
    """
    from usdtkit.elf.constants import STAPSDT_SECTION

    probes: list[Probe] = []
    problems: list[str] = []
    left_seconds, left_bytes, passed = seconds, seconds * _BYTES_A_SECOND, 0
    for target in targets:
        foreign = stranger(target.path) is not None
        if foreign and (left_seconds <= 0 or left_bytes <= 0):
            passed += 1
            continue
        began = time.monotonic()
        try:
            for image in _opened(target):
                try:
                    if image.section(STAPSDT_SECTION):
                        probes += _read_probes(image)
                    if not hold:
                        image.file.close()
                finally:
                    left_bytes -= foreign * image.bytes_read
        except NotFoundError:
            continue  # no process has it any more: as if this had come a moment later
        except (ElfError, PrivilegeError) as error:
            if not error.message.endswith("not an ELF file"):
                problems.append(error.message)
        finally:
            left_seconds -= foreign * (time.monotonic() - began)
    _warn(problems)
    if passed:
        _log(
            f"the search ended early: {passed} files of other users were not read, because those before them took "
            f"{seconds - left_seconds:.1f} s and {(seconds * _BYTES_A_SECOND - left_bytes) / 1e6:.0f} MB"
        )
    return probes


def find_probes(spec: str, *, pids: Sequence[int] = (), path: str | None = None) -> list[Probe]:
    """The probes that match PROVIDER:PROBE, globs allowed in both.

    They are looked for in the file that `path` names (see `resolve`), else in what the processes `pids` map, else in
    all provider files and everything that runs: then a probe that runs is preferred to files of other versions of it,
    and of files that nobody uses the newest is taken. A file that belongs neither to root nor to us is only taken where
    it runs (see `everything`), and never in place of one of root's or ours. NotFoundError names the nearest.
    """
    provider, _, name = spec.partition(":")
    if not provider or not name or ":" in name:
        raise UsageError(f"{spec!r} is not PROVIDER:PROBE", hint="usdtkit list shows probes; '*:*' means all")
    if path is not None:
        found_in = resolve(path, pids)
        where, probes = path, list(probes_in(found_in[0])) if len(found_in) == 1 else probes_of(found_in)
    elif pids:
        where, probes = _processes(pids), probes_of(mapped_by(pids))
    else:
        where = "provider files and running processes"
        probes = probes_of(candidates := everything(), seconds=_SEARCH_S)
    match = re.compile(fnmatch.translate(spec)).match
    if found := [probe for probe in probes if match(probe.spec)]:
        return found if path is not None or pids else _current(found, candidates)
    raise no_probe(spec, where, probes, path, pids)


def _current(probes: Sequence[Probe], candidates: Sequence[Target]) -> list[Probe]:
    """Of each probe the versions that run; where none of root's or ours is among them, of those the newest as well."""
    used = {target.path for target in candidates if target.pids}
    foreign = {target.path for target in candidates if _is_foreign(target.path)}
    versions: dict[str, list[Probe]] = {}
    for probe in probes:
        versions.setdefault(probe.spec, []).append(probe)
    chosen: list[Probe] = []
    for same in versions.values():
        own = [probe for probe in same if probe.path not in foreign]
        if own and not any(probe.path in used for probe in own):
            chosen.append(max(own, key=lambda probe: _modified(probe.path)))
        chosen += [probe for probe in same if probe.path in used]
    return chosen


def _is_foreign(path: str) -> bool:
    """Whether another user decides what file this is, or what is in it."""
    return stranger(path) is not None or stranger(path.rpartition("/")[0]) is not None


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime  # noqa: PTH116
    except OSError:  # removed since
        return 0.0


def find_functions(
    library: str,
    patterns: Sequence[symbols.Pattern],
    *,
    pids: Sequence[int] = (),
    aliases: bool = False,
    hold: bool = True,
) -> list[Function]:
    """The functions of `library` (see `resolve`) that match any of the patterns (see `symbols.Pattern`).

    A name of which there is no symbol means the copies that the compiler has made of that function in its place.
    NotFoundError where not one matches, with the nearest names; a caller to whom each name matters compares. `hold` as
    in `probes_of`.
    """
    if library in libraries.MERGED:
        with contextlib.suppress(NotFoundError):
            return _functions_of(library, patterns, pids, aliases, hold)
        library = "c"
    return _functions_of(library, patterns, pids, aliases, hold)


def _functions_of(
    library: str, patterns: Sequence[symbols.Pattern], pids: Sequence[int], aliases: bool, hold: bool
) -> list[Function]:
    targets = resolve(library, pids)
    found: list[Function] = []
    problems: list[str] = []
    for target in targets:
        try:
            for image in _opened(target):
                found += symbols.functions(image, *patterns, aliases=aliases, copies=True)
                if not hold:
                    image.file.close()
        except (ElfError, NotFoundError, PrivilegeError) as error:
            if len(targets) == 1:
                raise
            problems.append(error.message)
    _warn(problems)
    if found:
        return found
    raise _no_function(library, patterns, targets)


def defining(names: Sequence[str], *, pids: Sequence[int] = ()) -> list[list[Function]]:
    """Of each file that processes map (`pids`, else all) and that has any of these functions, those that it has.

    For functions that may be in a library or linked into a program. What is damaged or gone has none.
    """
    found = []
    for target in mapped_by(pids) if pids else all_mapped():
        try:
            own = functions_in(target, *names)
        except (ElfError, NotFoundError, PrivilegeError):
            continue
        if own:
            found.append(own)
    return found


def _installed_as(name: str, progress: Progress | None) -> list[Target]:
    if "/" in name:
        if os.path.isdir(name):
            return _below(name, progress)
        if os.path.exists(name):
            return [Target(name, os.path.abspath(name))]
        import glob  # seldom asked for

        if matching := _one_each(sorted(glob.glob(name))):  # noqa: PTH207
            return matching
        raise NotFoundError(f"{name!r}: no such file")
    if command := _command(name):
        return [Target(command, command)]
    if found := _one_each(libraries.installed(name)):
        return found
    if name and (pids := named(name)):
        return _mapped_as(name, pids)
    hint = f"./{name} names the file in this directory" if os.path.exists(name) else "give a path, or -p PID"
    raise NotFoundError(
        f"{name!r} is no command in PATH, no library that the loader knows, and no program that runs", hint=hint
    )


def _below(directory: str, progress: Progress | None) -> list[Target]:
    from usdtkit.elf.walk import elf_files

    found = [Target(path, path) for path in elf_files(os.path.abspath(directory), progress=progress)]
    if not found:
        raise NotFoundError(f"{directory}: no ELF file below this directory")
    return found


def _one_each(paths: Sequence[str]) -> list[Target]:
    """Regular files, each once whatever it is called."""
    files = {key: path for path in reversed(paths) if (key := file_key(path))}
    return [Target(path, os.path.abspath(path)) for path in reversed(files.values())]


def _mapped_as(name: str, pids: Sequence[int]) -> list[Target]:
    mapped = mapped_by(pids)
    here = file_key(name if "/" in name else _command(name))
    found = [
        target
        for target in mapped
        # A file that was replaced since is still what the process runs.
        if target.name.removesuffix(" (deleted)") == name
        or (here is not None and target.key == here)
        or ("/" not in name and libraries.is_called(target.name.removesuffix(" (deleted)"), name))
    ]
    if found:
        return found
    names = sorted({target.name for target in mapped})
    near = _nearest(name, [path.rpartition("/")[2] for path in names])
    raise NotFoundError(
        f"{_processes(pids)} maps no {name!r}{near}", hint=f"usdtkit list -p {pids[0]} shows what it maps"
    )


def mapped_by(pids: Sequence[int]) -> list[Target]:
    """What the processes map, each inode once. NotFoundError, PrivilegeError.

    Of several processes, those that have ended cost one warning.
    """
    scan = Scan()
    ended: list[NotFoundError] = []
    for pid in dict.fromkeys(pids):
        try:
            scan.add(pid)
        except NotFoundError as error:
            ended.append(error)
    scan.warn()
    if found := scan.targets():
        _warn([error.message for error in ended], "processes")
        return found
    if ended:
        raise ended[0]
    raise NotFoundError(
        f"{_processes(pids)}: no program to look into: has ended, or is the kernel's", hint="pgrep -a NAME finds others"
    )


def _command(name: str) -> str:
    """The path of a command, "" where there is none (importing shutil for this takes longer than the search)."""
    paths = (os.path.join(directory, name) for directory in os.get_exec_path())
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), "")


def everything(*, quiet: bool = False, idle: bool = False) -> list[Target]:
    """The provider files, also those that nobody maps, then what all processes map: each inode once.

    Whoever can put a file where provider files are looked for could pass it off as another application's. So of files
    that belong neither to root nor to us, or lie in a directory that does not, only those count that a process of their
    owner maps, or one of root's or ours; with `idle` all of them do, for who only shows them. The files of root and
    ours come first.

    `quiet`: without a warning of what may not be read, for who has looked before.
    """
    mapped = {target.key: target for target in all_mapped(quiet=quiet)}
    found: dict[object, Target] = {}
    for path in _provider_files():
        key = file_key(path)
        if key is not None and key not in found:
            running = mapped.pop(key, None)
            found[key] = Target(path, path, running.pids, key) if running else Target(path, path)
    own: list[Target] = []
    foreign: list[Target] = []
    for target in found.values():
        owner = stranger(target.path.rpartition("/")[0])
        owner = stranger(target.path) if owner is None else owner
        if owner is None:
            own.append(target)
        elif idle or any(user_of(pid) in (owner, 0, os.geteuid()) for pid in target.pids):
            foreign.append(target)
    for target in mapped.values():
        (own if stranger(target.path) is None else foreign).append(target)
    return own + foreign


def _provider_files() -> list[str]:
    from usdtkit.directories import provider_directories  # whose pathlib is dear; functions are found without

    paths: list[str] = []
    for directory in provider_directories():
        # A link in another user's directory may lead to a file of root's now, and to one of that user's later.
        linked = stranger(str(directory)) is None
        try:
            with os.scandir(directory) as entries:
                names = sorted(
                    entry.path
                    for _, entry in zip(range(_PROVIDER_FILE_LIMIT), entries, strict=False)
                    if entry.name.endswith(".so") and (linked or not entry.is_symlink())
                )
        except OSError:  # absent, or private to another user
            continue
        paths += names
    return paths


def _warn(problems: list[str], what: str = "files") -> None:
    if problems:
        _log(f"left out: {problems[0]}" + (f" (and {len(problems) - 1} more {what})" if len(problems) > 1 else ""))


def _log(text: str) -> None:
    import logging

    logging.getLogger(__name__).warning("%s", text)


def _processes(pids: Sequence[int]) -> str:
    return f"process {pids[0]}" if len(pids) == 1 else f"processes {', '.join(map(str, pids))}"


def no_probe(spec: str, where: str, probes: Sequence[Probe], path: str | None, pids: Sequence[int]) -> NotFoundError:
    """The error for a search in `where`, which found only `probes`: it names the nearest."""
    look = "usdtkit list " + (path if path is not None else f"-p {pids[0]}" if pids else "PATH")
    if not probes:
        hint = "functions can be traced without probes" if path or pids else "give -p PID or a path"
        return NotFoundError(f"no probe {spec}: there are no USDT probes in {where}", hint=hint)
    near = _nearest(spec, sorted({probe.spec for probe in probes}))
    return NotFoundError(f"no probe {spec} in {where}{near}", hint=f"{look} shows all")


def _no_function(library: str, patterns: Sequence[symbols.Pattern], targets: list[Target]) -> NotFoundError:
    names: set[str] = set()
    for target in targets[:_NEAR_FILES]:
        with contextlib.suppress(ElfError, NotFoundError, PrivilegeError):
            for image in _opened(target):
                if indirect := symbols.indirect_functions(image, *patterns):
                    return NotFoundError(
                        f"{indirect[0].name} in {target.path} is an indirect function: its symbol is only called at "
                        "start",
                        hint="trace one of its implementations, or its callers",
                    )
                names |= symbols.function_names(image)
    texts = [pattern if isinstance(pattern, str) else pattern.pattern for pattern in patterns]
    wanted = ", ".join(texts)
    if not names:
        return NotFoundError(f"no function {wanted}: {targets[0].path} has no function symbols (stripped)")
    near = _nearest(texts[0], sorted(names)) if texts else ""
    return NotFoundError(f"no function {wanted} in {library} ({targets[0].path}){near}", hint="globs work: 'get*'")


def _nearest(wanted: str, names: list[str]) -> str:
    import difflib  # only to word an error

    plain = re.sub(r"[*?\[\]]", "", wanted)
    if len(names) > 5000:  # comparing is slow, and a wrong letter is seldom among the first
        names = [name for name in names if name[:2].lower() == plain[:2].lower()][:5000]
    near = difflib.get_close_matches(plain, names, 3, 0.6)
    return f"; near: {', '.join(near)}" if near else ""
