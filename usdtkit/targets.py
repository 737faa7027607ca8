"""Names that users type → files → probes and functions: path, command, library, pid, glob in; the model's nouns out.

Stands on `usdtkit.processes` (who maps what), `usdtkit.libraries` (names of libraries), `usdtkit.elf` (what is in a
file) and `usdtkit.providers` (what its arguments are called). Used by `usdtkit.trace` and `usdtkit.cli`. Every path
that comes out can be opened from here, also where the file lives in a container.
"""

# Paths stay strings, as the model has them.
# ruff: noqa: PTH100, PTH110, PTH113, PTH118

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence

from usdtkit import libraries
from usdtkit.directories import provider_directories
from usdtkit.elf import notes, symbols
from usdtkit.elf.image import Image
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError, UsageError
from usdtkit.model import Function, Probe, Target
from usdtkit.processes import Scan, all_mapped, file_key, mapped_files, running_pids
from usdtkit.providers import known_arguments

__all__ = [
    "all_mapped",
    "find_functions",
    "find_probes",
    "mapped_files",
    "probes_in",
    "provider_directories",
    "resolve",
    "running_pids",
]

_PROVIDER_FILE_LIMIT = 10_000  # files looked at in one directory, which others may be able to fill


def resolve(name: str, pids: Sequence[int] = ()) -> list[Target]:
    """The files that `name` means: a path, a command, or a library ("c", "ssl", "libpam.so.0").

    With `pids` these are the matching files that the processes map, each of them if there are several; a path or a
    command then also finds what the processes run by another name of the same file. Without, a name with a slash is a
    path, else it is looked for in PATH, then as a library where the loader looks. Files of that name which only some
    running process maps (in a container, say) are not found so: give its pid. NotFoundError says what there is instead.
    """
    return _mapped_as(name, pids) if pids else _installed_as(name)


def probes_in(target: Target | str) -> tuple[Probe, ...]:
    """All probes of one file. ElfError where it is damaged, () where it has none."""
    path = target if isinstance(target, str) else target.path
    with Image.open(path) as image:
        return notes.read_probes(image, known=known_arguments)


def find_probes(spec: str, *, pids: Sequence[int] = (), path: str | None = None) -> list[Probe]:
    """The probes that match PROVIDER:PROBE, globs allowed in both.

    They are looked for in the file that `path` names (see `resolve`), else in what the processes `pids` map, else in
    all provider files and everything that runs. NotFoundError names the nearest.
    """
    provider, _, name = spec.partition(":")
    if not provider or not name or ":" in name:
        raise UsageError(f"{spec!r} is not PROVIDER:PROBE", hint="usdtkit list shows probes; '*:*' means all")
    if path is not None:
        where, probes = path, [probe for target in resolve(path, pids) for probe in probes_in(target)]
    elif pids:
        where, probes = _processes(pids), _probes_of(_mapped_by(pids))
    else:
        where, probes = "provider files and running processes", _probes_of(_everything())
    match = re.compile(fnmatch.translate(spec)).match
    if found := [probe for probe in probes if match(probe.spec)]:
        return found
    raise _no_probe(spec, where, probes, path, pids)


def find_functions(library: str, patterns: Sequence[str], *, pids: Sequence[int] = ()) -> list[Function]:
    """The functions of `library` (see `resolve`) that match any of the names or globs.

    NotFoundError where not one matches, with the nearest names; a caller to whom each name matters compares.
    """
    targets = resolve(library, pids)
    found: list[Function] = []
    for target in targets:
        with Image.open(target.path) as image:
            found += symbols.functions(image, *patterns)
    if found:
        return found
    raise _no_function(library, patterns, targets)


def _installed_as(name: str) -> list[Target]:
    if "/" in name:
        if not os.path.exists(name):
            raise NotFoundError(f"{name!r}: no such file")
        return [Target(name, os.path.abspath(name))]
    if command := _command(name):
        return [Target(command, command)]
    files = {file_key(path) or path: path for path in reversed(libraries.installed(name))}
    if files:
        return [Target(path, path) for path in reversed(files.values())]
    hint = f"./{name} names the file in this directory" if os.path.exists(name) else "give a path, or -p PID"
    raise NotFoundError(f"{name!r} is no command in PATH and no library that the loader knows", hint=hint)


def _mapped_as(name: str, pids: Sequence[int]) -> list[Target]:
    mapped = _mapped_by(pids)
    here = file_key(name if "/" in name else _command(name))
    found = [
        target
        for target in mapped
        if target.name == name
        or (here is not None and file_key(target.path) == here)
        or ("/" not in name and libraries.is_called(target.name.removesuffix(" (deleted)"), name))
    ]
    if found:
        return found
    names = sorted({target.name for target in mapped})
    near = _nearest(name, [path.rpartition("/")[2] for path in names])
    raise NotFoundError(
        f"{_processes(pids)} maps no {name!r}{near}", hint=f"usdtkit list -p {pids[0]} shows what it maps"
    )


def _mapped_by(pids: Sequence[int]) -> list[Target]:
    scan = Scan()
    for pid in dict.fromkeys(pids):
        scan.add(pid)
    scan.warn()
    return scan.targets()


def _command(name: str) -> str:
    """The path of a command, "" where there is none (importing shutil for this takes longer than the search)."""
    paths = (os.path.join(directory, name) for directory in os.get_exec_path())
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), "")


def _everything() -> list[Target]:
    """The provider files, also those that nobody maps, then what all processes map: each inode once."""
    mapped = {file_key(target.path): target for target in all_mapped()}
    found: dict[object, Target] = {}
    for path in _provider_files():
        key = file_key(path)
        if key is not None and key not in found:
            running = mapped.pop(key, None)
            found[key] = Target(path, path, running.pids if running else ())
    return [*found.values(), *mapped.values()]


def _provider_files() -> list[str]:
    paths: list[str] = []
    for directory in provider_directories():
        try:
            with os.scandir(directory) as entries:
                names = sorted(
                    entry.path
                    for _, entry in zip(range(_PROVIDER_FILE_LIMIT), entries, strict=False)
                    if entry.name.endswith(".so")
                )
        except OSError:  # absent, or private to another user
            continue
        paths += names
    return paths


def _probes_of(targets: Iterable[Target]) -> list[Probe]:
    """The probes of many files, of which most have none and some are no ELF files at all."""
    probes: list[Probe] = []
    problems: list[str] = []
    for target in targets:
        try:
            with Image.open(target.path) as image:
                if image.section(notes.SECTION):
                    probes += notes.read_probes(image, known=known_arguments)
        except NotFoundError:
            continue  # unmapped since, or its last process ended
        except (ElfError, PrivilegeError) as error:
            if not error.message.endswith("not an ELF file"):
                problems.append(error.message)
    if problems:
        import logging

        more = f" (and {len(problems) - 1} more files)" if len(problems) > 1 else ""
        logging.getLogger(__name__).warning("left out: %s%s", problems[0], more)
    return probes


def _processes(pids: Sequence[int]) -> str:
    return f"process {pids[0]}" if len(pids) == 1 else f"processes {', '.join(map(str, pids))}"


def _no_probe(spec: str, where: str, probes: list[Probe], path: str | None, pids: Sequence[int]) -> NotFoundError:
    look = "usdtkit list " + (path if path is not None else f"-p {pids[0]}" if pids else "PATH")
    if not probes:
        hint = "functions can be traced without probes" if path or pids else "give -p PID or a path"
        return NotFoundError(f"no probe {spec}: there are no USDT probes in {where}", hint=hint)
    near = _nearest(spec, sorted({probe.spec for probe in probes}))
    return NotFoundError(f"no probe {spec} in {where}{near}", hint=f"{look} shows all")


def _no_function(library: str, patterns: Sequence[str], targets: list[Target]) -> NotFoundError:
    names: set[str] = set()
    for target in targets:
        with Image.open(target.path) as image:
            if indirect := symbols.indirect_functions(image, *patterns):
                return NotFoundError(
                    f"{indirect[0].name} in {target.path} is an indirect function: its symbol is only called at start",
                    hint="trace one of its implementations, or its callers",
                )
            names |= symbols.function_names(image)
    wanted = ", ".join(patterns)
    if not names:
        return NotFoundError(f"no function {wanted}: {targets[0].path} has no function symbols (stripped)")
    near = _nearest(patterns[0], sorted(names)) if patterns else ""
    return NotFoundError(f"no function {wanted} in {library} ({targets[0].path}){near}", hint="globs work: 'get*'")


def _nearest(wanted: str, names: list[str]) -> str:
    import difflib  # only to word an error

    plain = re.sub(r"[*?\[\]]", "", wanted)
    if len(names) > 5000:  # comparing is slow, and a wrong letter is seldom among the first
        names = [name for name in names if name[:2].lower() == plain[:2].lower()][:5000]
    near = difflib.get_close_matches(plain, names, 3, 0.6)
    return f"; near: {', '.join(near)}" if near else ""
