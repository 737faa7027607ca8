"""Probes and functions in the files that users name: names, processes and patterns in, the model's nouns out.

Uses `usdtkit.resolve` (names → files), `usdtkit.scan` (processes → files), `usdtkit.elf` (what is in a file) and
`usdtkit.signatures` (what its arguments are called). Used by `usdtkit.trace` and `usdtkit.cli`, which find the public
functions of those two modules here as well.
"""

# ruff: noqa: PTH116 paths stay strings, as the model has them

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence

from usdtkit import libraries
from usdtkit.elf import symbols
from usdtkit.elf.constants import STAPSDT_SECTION
from usdtkit.elf.image import Image
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError, UsageError
from usdtkit.model import Function, Probe, Target
from usdtkit.naming import name_of, spelled
from usdtkit.privatedirs import stranger
from usdtkit.processes import below, running_pids
from usdtkit.resolve import describe, everything, log, mapped_by, nearest, processes_of, resolve, warn_left_out
from usdtkit.scan import all_mapped, mapped_files, open_target

__all__ = [
    "all_mapped",
    "below",
    "defining",
    "everything",
    "find_functions",
    "find_probes",
    "functions_in",
    "images",
    "mapped_by",
    "mapped_files",
    "no_probe",
    "open_target",
    "probes_in",
    "probes_of",
    "processes_of",
    "resolve",
    "running_pids",
]

_NEAR_FILES = 20  # in which near names are looked for if there is none of that name
# What a search for a bare name may spend on files of other users. A machine with hundreds of them takes a tenth of it.
_SEARCH_S, _BYTES_A_SECOND = 5.0, 100e6


def probes_in(target: Target | str) -> tuple[Probe, ...]:
    """Return all probes of one file, () if it has none. ElfError if it is damaged."""
    opened = images(Target(target, target) if isinstance(target, str) else target)
    return tuple(probe for image in opened for probe in _read_probes(image))


def functions_in(target: Target, *names: symbols.Pattern) -> list[Function]:
    """Return the functions of one file that match (see `symbols.functions`), [] if there are none. ElfError."""
    return [function for image in images(target) for function in symbols.functions(image, *names)]


def images(target: Target) -> Iterator[Image]:
    """Open the file of a target, or on an overlay the files that processes may run; each is closed after its turn."""
    for file in open_target(target):
        with Image(file.path, file) as image:
            yield image


def _read_probes(image: Image) -> tuple[Probe, ...]:
    from usdtkit.elf import notes  # lazy: finding functions needs no operands
    from usdtkit.signatures import known_arguments

    return notes.read_probes(image, known=known_arguments)


def probes_of(targets: Iterable[Target], *, seconds: float = 60.0, hold: bool = True) -> list[Probe]:
    """Return the probes of many files. Most files may have none, and some may not be ELF files.

    Files that are damaged or may not be read cost one warning. Other users could have made files in order to keep us
    busy. Their files are read until this has taken `seconds`, or until a hundred megabytes for each of these seconds
    have been read; then one warning covers those that are left. Without `hold` the files are closed again. That is for
    callers that only show probes: a directory may have more files than a process can have open.
    """
    probes: list[Probe] = []
    problems: list[str] = []
    left_seconds, left_bytes, passed_over = seconds, seconds * _BYTES_A_SECOND, 0
    for target in targets:
        is_foreign = stranger(target.path) is not None
        if is_foreign and (left_seconds <= 0 or left_bytes <= 0):
            passed_over += 1
            continue
        began = time.monotonic()
        try:
            for image in images(target):
                try:
                    if image.section(STAPSDT_SECTION):
                        probes += _read_probes(image)
                    if not hold:
                        image.file.close()
                finally:
                    left_bytes -= is_foreign * image.bytes_read
        except NotFoundError:
            continue  # no process has it any more, as if the search had begun a moment later
        except (ElfError, PrivilegeError) as error:
            if not error.message.endswith("not an ELF file"):
                problems.append(error.message)
        finally:
            left_seconds -= is_foreign * (time.monotonic() - began)
    warn_left_out(problems)
    if passed_over:
        log(
            f"the search ended early: {passed_over} files of other users were not read, because the files before them "
            f"took {seconds - left_seconds:.1f} s and {(seconds * _BYTES_A_SECOND - left_bytes) / 1e6:.0f} MB"
        )
    return probes


def find_probes(spec: str, *, pids: Sequence[int] = (), path: str | None = None) -> list[Probe]:
    """Return the probes that match PROVIDER:PROBE, in both of which globs are allowed.

    They are looked for in the file that `path` names (see `resolve`), else in what the processes `pids` map, else in
    all provider files and everything that runs. In the last case a probe that runs is preferred to files of other
    versions of it, and of files that no process uses the newest is taken. A file that belongs neither to root nor to us
    is only taken if it runs (see `everything`), and never in place of one of root's or ours. NotFoundError names the
    nearest probes.
    """
    provider, _, name = spec.partition(":")
    if not provider or not name or ":" in name:
        raise UsageError(f"{spec!r} is not PROVIDER:PROBE", hint="usdtkit list shows probes; '*:*' means all")
    if path is not None:
        targets = resolve(path, pids)
        where, probes = path, list(probes_in(targets[0])) if len(targets) == 1 else probes_of(targets)
    elif pids:
        where, probes = describe(pids), probes_of(mapped_by(pids))
    else:
        targets = everything()
        where, probes = "provider files and running processes", probes_of(targets, seconds=_SEARCH_S)
    match = re.compile(fnmatch.translate(spec)).match
    if matching := [probe for probe in probes if match(probe.spec)]:
        return matching if path is not None or pids else _current(matching, targets)
    raise no_probe(spec, where, probes, path, pids)


def _current(probes: Sequence[Probe], targets: Sequence[Target]) -> list[Probe]:
    """The versions of each probe that run. If none of root's or ours is among these, also the newest of those."""
    used = {target.path for target in targets if target.pids}
    foreign = {target.path for target in targets if _is_foreign(target.path)}
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
    """Whether another user decides which file this is, or what is in it."""
    return stranger(path) is not None or stranger(path.rpartition("/")[0]) is not None


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:  # it has been removed since
        return 0.0


def no_probe(spec: str, where: str, probes: Sequence[Probe], path: str | None, pids: Sequence[int]) -> NotFoundError:
    """Return the error for a search in `where` that found only `probes`. It names the nearest of them."""
    look = "usdtkit list " + (path if path is not None else f"-p {pids[0]}" if pids else "PATH")
    hint = f"{look} shows all"
    if path is None and not pids:  # a provider file is made when its service starts for the first time
        hint += "; if its service never ran here, `usdtkit provider build` makes its file, and --wait waits for it"
    if not probes:
        hint = "functions can be traced without probes" if path or pids else hint
        return NotFoundError(f"no probe {spec}: there are no USDT probes in {where}", hint=hint)
    near = nearest(spec, sorted({probe.spec for probe in probes}))
    return NotFoundError(f"no probe {spec} in {where}{near}", hint=hint)


def find_functions(
    library: str,
    patterns: Sequence[symbols.Pattern],
    *,
    pids: Sequence[int] = (),
    aliases: bool = False,
    hold: bool = True,
) -> list[Function]:
    """Return the functions of `library` (see `resolve`) that match any of the patterns (see `symbols.Pattern`).

    A name without a symbol means the copies that the compiler has made of that function in its place. NotFoundError is
    raised if not one pattern matches, with the nearest names; a caller to whom each name matters compares. `hold` is
    as in `probes_of`.
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
    functions: list[Function] = []
    problems: list[str] = []
    for target in targets:
        try:
            for image in images(target):
                functions += symbols.functions(image, *patterns, aliases=aliases, in_source=True)
                if not hold:
                    image.file.close()
        except (ElfError, NotFoundError, PrivilegeError) as error:
            if len(targets) == 1:
                raise
            problems.append(error.message)
    warn_left_out(problems)
    if functions:
        return functions
    raise _no_function(library, patterns, targets)


def _no_function(library: str, patterns: Sequence[symbols.Pattern], targets: list[Target]) -> NotFoundError:
    opened: list[Image] = []
    with contextlib.ExitStack() as stack:
        for target in targets[:_NEAR_FILES]:
            with contextlib.suppress(ElfError, NotFoundError, PrivilegeError):
                opened += [stack.enter_context(Image(file.path, file)) for file in open_target(target)]
        return _why_not(library, patterns, targets[0].path, opened)


def _why_not(library: str, patterns: Sequence[symbols.Pattern], path: str, opened: Sequence[Image]) -> NotFoundError:
    """The error for patterns that no function of the files matches."""
    for image in opened:
        if indirect := symbols.indirect_functions(image, *patterns):
            return NotFoundError(
                f"{indirect[0].name} in {image.path} is an indirect function: its symbol is only called at start",
                hint="trace one of its implementations, or its callers",
            )
    wanted = ", ".join(spelled(pattern) if isinstance(pattern, str) else pattern.pattern for pattern in patterns)
    where = f"{library} ({path})"
    functions: set[str] = set()
    for image in opened:
        functions |= symbols.function_names(image)
    if not functions:
        return NotFoundError(f"no function {wanted}: {path} has no function symbols (stripped)")
    first = name_of(patterns[0]) if patterns else None
    if first and (cold := [name for image in opened for name in symbols.cold_parts(image, first)]):
        return NotFoundError(
            f"no function {wanted} in {where}: the compiler has left only {cold[0]}, to which other code jumps",
            hint="the rest of it is a part of its callers now, which can be traced",
        )
    near: list[str] = []
    if patterns and isinstance(patterns[0], str):
        from usdtkit.elf import suggestions  # lazy: it is only needed to word an error

        with contextlib.suppress(ElfError):
            near = suggestions.near(first or patterns[0], opened, functions)
    also = f"; near: {', '.join(near)}" if near else ""
    return NotFoundError(f"no function {wanted} in {where}{also}", hint="globs work: 'get*'")


def defining(names: Sequence[str], *, pids: Sequence[int] = ()) -> list[list[Function]]:
    """Return the functions of these names in each file that processes map (`pids`, else all) and that has any of them.

    This is for functions that may be in a library or linked into a program. A file that is damaged or gone has none.
    """
    functions_by_file = []
    for target in mapped_by(pids) if pids else all_mapped():
        try:
            functions = functions_in(target, *names)
        except (ElfError, NotFoundError, PrivilegeError):
            continue
        if functions:
            functions_by_file.append(functions)
    return functions_by_file
