"""List the USDT probes, or the functions, of files and processes.

A TARGET is a path, a glob of paths, a directory (all below it), a command, a library, or a program that runs. What has
a colon, or a wildcard and no slash, is a GLOB: it selects by PROVIDER:PROBE, or by PROBE alone.

examples:
  usdtkit list /usr/lib/x86_64-linux-gnu/libstdc++.so.6
  usdtkit list -p 1234 -v          with arguments; -vv also with every site
  usdtkit list -p postgres 'query__*'
  usdtkit list mariadbd            a command on PATH, or a library by its short name: list c
  usdtkit list                     provider files and everything that runs
  usdtkit list /usr                every file below
  usdtkit list --functions 'v8::internal::Heap::*' node
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import translate
from itertools import groupby

from usdtkit import processes, targets
from usdtkit.cli.progress import Progress
from usdtkit.elf.image import Image
from usdtkit.elf.sites import cost
from usdtkit.elf.symbols import Pattern
from usdtkit.errors import NotFoundError, UsageError, UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.model import Argument, Function, Probe, Site, Target
from usdtkit.output.text import printable
from usdtkit.privatedirs import stranger, user_name


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit list`."""
    parser.add_argument("target", nargs="*", metavar="TARGET | GLOB", help="where to look; which probes")
    parser.add_argument(
        "-p", "--pid", action="append", default=[], help="what this process maps, by number or program (repeatable)"
    )
    parser.add_argument("-l", "--library", action="append", default=[], metavar="LIB", help="as TARGET")
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="show arguments, processes, and what the probe means where its provider says so; twice: every site",
    )
    parser.add_argument("--functions", metavar="GLOB", help="list functions, by mangled or demangled (a::b) name")
    parser.add_argument("-r", "--regex", action="store_true", help="the GLOB of --functions is a regular expression")
    parser.add_argument("--json", action="store_true", help="JSON Lines, an object a probe or function")


def run(options: argparse.Namespace) -> int:
    """List what was asked for."""
    pids = [number for name in options.pid for number in _pids(name)]
    names = [*options.library, *(name for name in options.target if not _is_glob(name))]
    globs = [name for name in options.target if _is_glob(name)]
    if options.functions is not None:
        if globs or not names:
            raise UsageError("--functions needs a TARGET", hint="usdtkit list --functions 'get*' c")
        _list_functions(_pattern(options), names, pids, options)
        return 0
    with Progress() as progress:
        found = _targets(names, pids, progress)
        strict = len(names) == 1 == len(found)
        probes = targets.probes_in(found[0]) if strict else targets.probes_of(progress.over(found), hold=False)
    # On an overlay a file and what it was copied from may both be run; they differ in nothing that is shown.
    chosen = _choose(list(dict.fromkeys(probes)), globs, names, pids)
    users = {target.path: target.pids for target in found}
    owners = {path: stranger(path) for path in {probe.path for probe in chosen}}
    if options.json:
        print(json.dumps({"schema": "usdtkit.list/1"}))
        for probe in chosen:
            mapping = users.get(probe.path, ())
            of = {"processes": [processes.numbers(number) or (number,) for number in mapping]} if mapping else {}
            owner = owners[probe.path]
            print(json.dumps(probe.to_json() | of | ({} if owner is None else {"owner": owner})))
        return 0
    for probe in chosen:
        sites = f" ({len(probe.sites)} sites)" if len(probe.sites) > 1 else ""
        print(printable(f"{probe.spec} {probe.path}{sites}{_owner(owners[probe.path])}"))
        for line in _details(probe, users.get(probe.path, ()), options.verbose):
            print(printable(f"    {line}"))
    return 0


def _is_glob(name: str) -> bool:
    return not os.path.exists(name) and (":" in name or ("/" not in name and re.search(r"[*?\[]", name) is not None))  # noqa: PTH110


def _pids(name: str) -> list[int]:
    if name.isdecimal():
        if not 0 < int(name[:20]) < 2**31:
            raise UsageError(f"{name!r} is not the number of a process")
        return [int(name)]
    if found := processes.named(name):
        return found
    raise NotFoundError(f"no process runs a program {name!r}", hint="pgrep -a NAME finds the number of a process")


def _targets(names: Sequence[str], pids: Sequence[int], progress: Progress) -> list[Target]:
    if names:
        found = [target for name in names for target in targets.resolve(name, pids, progress=progress.count)]
        return list({target.path: target for target in found}.values())
    return targets.mapped_by(pids) if pids else targets.everything(idle=True)


def _choose(
    probes: Sequence[Probe], globs: Sequence[str], names: Sequence[str], pids: Sequence[int]
) -> Sequence[Probe]:
    match = re.compile("|".join(translate(glob) for glob in globs)).match
    chosen = [probe for probe in probes if not globs or match(probe.spec) or match(probe.name)]
    if chosen:
        return chosen
    where = ", ".join(names) or (f"process {pids[0]}" if pids else "provider files and running processes")
    if globs or not names:
        raise targets.no_probe(globs[0] if globs else "*:*", where, probes, names[0] if names else None, pids)
    raise NotFoundError(
        f"no USDT probes in {where}", hint=f"its functions can be traced: usdtkit trace p:{names[0]}:FUNCTION"
    )


def _owner(uid: int | None) -> str:
    return "" if uid is None else f" (belongs to {user_name(uid)})"


def _details(probe: Probe, pids: Sequence[int], verbose: int) -> Iterator[str]:
    if verbose:
        yield from filter(None, (probe.doc, probe.stability))
        for argument in probe.arguments:
            yield f"{_explain(argument)}{_problem(probe, argument)}"
        for number in pids:
            inside = processes.numbers(number)[1:]
            yield f"in process {number}" + (f" ({inside[-1]} in its container)" if inside else "")
    if verbose > 1:
        for site in probe.sites:
            yield _site(site)


def _explain(argument: Argument) -> str:
    """`latency: u64 ns, how long it took`, `state: enum (0 new, 1 paid)`."""
    text = f"{argument.name}: {argument.type}"
    if argument.names:
        text += f" ({', '.join(f'{number} {name}' for name, number in argument.names)})"
    if argument.unit:
        text += f" {argument.unit}"
    return f"{text}, {argument.doc}" if argument.doc else text


def _problem(probe: Probe, argument: Argument) -> str:
    """Why no program can read the argument at one of the sites."""
    for site in probe.sites:
        for operand in site.operands[argument.operand : argument.operand + argument.width]:
            if operand.kind == "unreadable":
                return f" (unreadable: {operand.text}: {operand.reason})"
    return ""


def _site(site: Site) -> str:
    semaphore = f" semaphore {site.semaphore:#x}" if site.semaphore else ""
    return f"at {site.address:#x} offset {site.file_offset:#x}{semaphore} {site.arguments_text}".rstrip()


def _pattern(options: argparse.Namespace) -> Pattern:
    if not options.regex:
        return str(options.functions)
    try:
        return re.compile(options.functions)
    except re.error as error:
        raise UsageError(f"{options.functions!r} is no regular expression: {error}") from None


def _list_functions(pattern: Pattern, names: Sequence[str], pids: Sequence[int], options: argparse.Namespace) -> None:
    more = bool(options.verbose or options.json)
    functions = [
        f for name in names for f in targets.find_functions(name, [pattern], pids=pids, aliases=more, hold=False)
    ]
    if options.json:
        print(json.dumps({"schema": "usdtkit.functions/1"}))
    costs = _costs(functions) if more else [""] * len(functions)
    for function, each in zip(functions, costs, strict=True):
        if options.json:
            print(json.dumps({**function.to_json(), "cost": each}))
            continue
        print(printable(f"p:{function.path}:{function.name} {function.demangled}".rstrip()))
        if more:
            version = f", version {function.version}" if function.version else ""
            print(printable(f"    {function.size} bytes at {function.address:#x}, a probe is {each}{version}"))
            if function.aliases:
                print(printable(f"    also {', '.join(function.aliases)}"))


def _costs(functions: Sequence[Function]) -> Iterator[str]:
    """For each function, whether the kernel emulates or steps its first instruction; "unknown" where its file has gone
    or been replaced since it was read."""
    for read, same in groupby(functions, lambda function: function.file):
        ours = list(same)
        try:
            file = OpenFile.open(ours[0].path)
            if read is None or file.version != read.version:
                raise NotFoundError(f"{file.path} has been replaced")
            with Image(file.path, file) as image:
                yield from [cost(image, function.file_offset) for function in ours]
        except UsdtkitError:
            yield from ["unknown"] * len(ours)
