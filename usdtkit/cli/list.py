"""List the USDT probes, or the functions, of files and processes.

A TARGET is a path, a glob of paths, a directory (all files below it), a command, a library, or a program that runs. An
argument with a colon, or with a wildcard and no slash, is a GLOB, which selects by PROVIDER:PROBE, or by PROBE alone.

examples:
  usdtkit list /usr/lib/x86_64-linux-gnu/libstdc++.so.6
  usdtkit list -p 1234 -v          with arguments; -vv also with every site
  usdtkit list -p postgres 'query__*'
  usdtkit list mariadbd            a command on PATH, or a library by its short name: list c
  usdtkit list                     provider files and everything that runs
  usdtkit list /usr                every file below
  usdtkit list --functions 'v8::internal::Heap::*' node      as trace and other tools take them
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from fnmatch import translate
from itertools import groupby

from usdtkit import processes, targets
from usdtkit.cli import values
from usdtkit.cli.activity import ACTIVITY, Activities, title, wrapped_lines
from usdtkit.cli.messages import note
from usdtkit.cli.progress import Progress
from usdtkit.elf import golang, pclntab
from usdtkit.elf.image import Image
from usdtkit.elf.sites import cost
from usdtkit.elf.symbols import Pattern
from usdtkit.errors import NotFoundError, UsageError, UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.language.parser import parse_name
from usdtkit.model import Argument, Function, Probe, Site, Target
from usdtkit.naming import apart, exact, spelled, spelled_path
from usdtkit.output import demangled
from usdtkit.output.sink import Sink, open_sink
from usdtkit.output.text import printable
from usdtkit.privatedirs import stranger, user_name
from usdtkit.records import NamedTuple
from usdtkit.results.columns import Column, Schema

_SITE = (
    Column("address", type="count", meaning="the virtual address, corrected for prelinking"),
    Column("base", type="count", meaning="the address of .stapsdt.base as the note has it"),
    Column("semaphore", type="count", meaning="the virtual address of the semaphore, 0 if there is none"),
    Column("file_offset", type="count", meaning="where in the file"),
    Column("arguments_text", meaning="the arguments as the note describes them"),
)
PROBES = Schema(
    "list",
    (
        Column("path", meaning="the file"),
        Column("build_id", meaning="the build-id of the file"),
        Column("provider", meaning="the provider"),
        Column("name", meaning="the probe"),
        Column("doc", meaning="what the probe means, if its provider says so"),
        Column(
            "arguments",
            type="list",
            meaning="names and types of the arguments",
            fields=(Column("name"), Column("type")),
        ),
        Column("sites", type="list", meaning="where the probe is", fields=_SITE),
        Column("owner", type="integer", optional=True, meaning="the owner of the file, if neither root nor you"),
        Column(
            "processes",
            type="list",
            optional=True,
            meaning="the processes that map the file: the number of each here, and in its PID namespaces",
        ),
        Column("activity", type="list", optional=True, meaning="with -v, what happens there", fields=ACTIVITY),
    ),
)
FUNCTIONS = Schema(
    "functions",
    (
        Column("path", meaning="the file"),
        Column("name", meaning="the name of the symbol"),
        Column("demangled", meaning="the name in the source"),
        Column("spec", meaning="the function alone, as trace and other tools take it"),
        Column("version", meaning="the version of the symbol, such as GLIBC_2.34"),
        Column("aliases", type="list", meaning="the other names at this address"),
        Column("address", type="count", meaning="the virtual address"),
        Column("size", type="count", meaning="the size in bytes"),
        Column("file_offset", type="count", meaning="where in the file"),
        Column("indirect", type="boolean", meaning="whether it only chooses the real function at run time"),
        Column(
            "cost",
            meaning="what the kernel does with the first instruction when a probe there is hit",
            values=("emulated", "stepped", "refused", "mistaken", "held", "unknown"),
        ),
        Column("source", meaning="of a Go program, the file and line of the source"),
        Column("built_by", meaning="of a Go program, the version of Go, and its main module with its version"),
    ),
)
SCHEMAS = (PROBES, FUNCTIONS)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `usdtkit list`."""
    parser.add_argument("target", nargs="*", metavar="TARGET | GLOB", help="where to look; which probes")
    parser.add_argument(
        *("-p", "--pid"),
        type=values.processes,
        action="extend",
        default=[],
        help="search the files that this process maps: a PID or the name of a program (repeatable; also 12,postgres)",
    )
    parser.add_argument("-l", "--library", action="append", default=[], metavar="LIB", help="the same as a TARGET")
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="show arguments, documentation, and the processes: who traces there, what has fired; -vv also shows sites",
    )
    parser.add_argument("--functions", metavar="GLOB", help="list functions, by mangled or demangled (a::b) name")
    parser.add_argument("-r", "--regex", action="store_true", help="the GLOB of --functions is a regular expression")
    parser.add_argument("--json", action="store_true", help="JSON Lines, an object a probe or function")


def run(options: argparse.Namespace) -> int:
    """List the probes or functions that the options select."""
    pids = [pid for word in options.pid for pid in targets.processes_of(word)]
    names = [*options.library, *(word for word in options.target if not _is_glob(word))]
    globs = [word for word in options.target if _is_glob(word)]
    if options.functions is not None:
        if globs or not names:
            raise UsageError("--functions needs a TARGET", hint="usdtkit list --functions 'get*' c")
        _list_functions(_pattern(options), names, pids, options)
        return 0
    with Progress() as progress:
        searched = _targets(names, pids, progress)
        if len(names) == 1 == len(searched):  # the user means this file: if it is damaged, that is the answer
            probes: Sequence[Probe] = targets.probes_in(searched[0])
        else:
            probes = targets.probes_of(progress.over(searched), hold=False)
    # On an overlay, a file and the one that it was copied from may both be run; nothing that is shown differs in them.
    selected = _select(list(dict.fromkeys(probes)), globs, names, pids)
    pids_by_path = {target.path: target.pids for target in searched}
    foreign_owners = {path: stranger(path) for path in {probe.path for probe in selected}}
    sink = _json_sink(PROBES) if options.json else None
    activities = Activities()
    for probe in selected:
        mapped_by, owner = pids_by_path.get(probe.path, ()), foreign_owners[probe.path]
        if sink is not None:
            row = _as_json(probe, mapped_by, owner)
            if options.verbose and mapped_by:
                row["activity"] = [activities.of(probe, pid).to_json() for pid in mapped_by]
            sink.row(row)
            continue
        site_count = f" ({len(probe.sites)} sites)" if len(probe.sites) > 1 else ""
        belongs = "" if owner is None else f" (belongs to {user_name(owner)})"
        print(printable(f"{probe.spec} {probe.path}{site_count}{belongs}"))
        for line in _details(probe, mapped_by, activities, options.verbose):
            print(printable(f"    {line}"))
    if options.verbose:
        for pid in [] if options.json else pids:
            engagements = activities.report(pid).engagements
            for integration in dict.fromkeys(each.integration for each in engagements):
                print(printable(f"{title(pid)} with {integration}"))
                for line in wrapped_lines([each for each in engagements if each.integration == integration]):
                    print(printable(f"    {line}"))
        for problem in activities.problems:
            note(problem)
    return 0


def _json_sink(schema: Schema) -> Sink:
    sink = open_sink("json", sys.stdout)
    sink.begin(schema)
    return sink


def _is_glob(word: str) -> bool:
    if os.path.exists(word):  # noqa: PTH110
        return False
    return ":" in word or ("/" not in word and re.search(r"[*?\[]", word) is not None)


def _targets(names: Sequence[str], pids: Sequence[int], progress: Progress) -> list[Target]:
    """The files to search, each path once."""
    if names:
        named = [target for name in names for target in targets.resolve(name, pids, progress=progress.count)]
        return list({target.path: target for target in named}.values())
    return targets.mapped_by(pids) if pids else targets.everything(idle=True)


def _select(
    probes: Sequence[Probe], globs: Sequence[str], names: Sequence[str], pids: Sequence[int]
) -> Sequence[Probe]:
    """The probes that the globs select, or all if there are no globs. NotFoundError if there is none."""
    match = re.compile("|".join(translate(glob) for glob in globs)).match
    selected = [probe for probe in probes if not globs or match(probe.spec) or match(probe.name)]
    if selected:
        return selected
    where = ", ".join(names) or (f"process {pids[0]}" if pids else "provider files and running processes")
    if globs or not names:
        raise targets.no_probe(globs[0] if globs else "*:*", where, probes, names[0] if names else None, pids)
    for target in targets.resolve(names[0], pids)[:1]:
        where += f", which was built by {build}" if (build := golang.build_of(target.path)) else ""
    raise NotFoundError(
        f"no USDT probes in {where}", hint=f"its functions can be traced: usdtkit trace p:{names[0]}:FUNCTION"
    )


def _as_json(probe: Probe, pids: Sequence[int], owner: int | None) -> dict[str, object]:
    """The JSON object of a probe. `owner` is the user who owns its file, if that is neither root nor the caller."""
    fields = probe.to_json()
    if pids:
        fields["processes"] = [processes.numbers(pid) or (pid,) for pid in pids]
    if owner is not None:
        fields["owner"] = owner
    return fields


def _details(probe: Probe, pids: Sequence[int], activities: Activities, verbose: int) -> Iterator[str]:
    """The lines below a probe; `verbose` is how often -v was given."""
    if verbose:
        yield from filter(None, (probe.doc, probe.stability))
        for argument in probe.arguments:
            yield f"{_explain(argument)}{_problem(probe, argument)}"
        for pid in pids:
            known = activities.of(probe, pid).line
            yield f"in {title(pid)}" + (f": {known}" if known else "")
    if verbose > 1:
        for site in probe.sites:
            yield _describe(site)


def _explain(argument: Argument) -> str:
    """`latency: u64 ns, how long it took`, `state: enum (0 new, 1 paid)`."""
    text = f"{argument.name}: {argument.declared}"
    if argument.names:
        text += f" ({', '.join(f'{number} {name}' for name, number in argument.names)})"
    if argument.unit:
        text += f" {argument.unit}"
    return f"{text}, {argument.doc}" if argument.doc else text


def _problem(probe: Probe, argument: Argument) -> str:
    """Why the argument cannot be read at one of the sites, "" if it can be read at all of them."""
    for site in probe.sites:
        for operand in site.operands[argument.operand : argument.operand + argument.width]:
            if operand.kind == "unreadable":
                return f" (unreadable: {operand.text}: {operand.reason})"
    return ""


def _describe(site: Site) -> str:
    semaphore = f" semaphore {site.semaphore:#x}" if site.semaphore else ""
    return f"at {site.address:#x} offset {site.file_offset:#x}{semaphore} {site.arguments_text}".rstrip()


def _pattern(options: argparse.Namespace) -> Pattern:
    if not options.regex:
        return parse_name(options.functions)
    try:
        return re.compile(options.functions)
    except re.error as error:
        raise UsageError(f"{options.functions!r} is not a regular expression: {error}") from None


def _list_functions(pattern: Pattern, names: Sequence[str], pids: Sequence[int], options: argparse.Namespace) -> None:
    with_details = bool(options.verbose or options.json)
    functions = [
        function
        for name in names
        for function in targets.find_functions(name, [pattern], pids=pids, aliases=with_details, hold=False)
    ]
    demangled.learn(function.name for function in functions)
    sink = _json_sink(FUNCTIONS) if options.json else None
    known = _known(functions) if with_details else [_Known()] * len(functions)
    names_apart = apart(functions, [function.name for function in functions], [pattern])
    described = ""  # the file that was described last
    for function, name, more in zip(functions, names_apart, known, strict=True):
        spec = f"p:{spelled_path(function.path)}:{spelled(exact(name))}"
        plain = demangled.plain(function.name)
        if sink is not None:
            in_source = function.demangled or (plain if plain != function.name else "")
            row = {**function.to_json(), "demangled": in_source, "spec": spec}
            sink.row({**row, "cost": more.cost, "source": more.source, "built_by": more.built_by})
            continue
        if more.built_by and function.path != described:
            described = function.path
            print(printable(f"{function.path}: built by {more.built_by}"))
        print(spec if plain == function.name else f"{spec} {printable(plain)}")
        if with_details:
            version = f", version {function.version}" if function.version else ""
            source = f", {more.source}" if more.source else ""
            place = f"{function.size} bytes at {function.address:#x}"
            print(printable(f"    {place}, a probe is {more.cost}{version}{source}"))
            if function.aliases:
                print(printable(f"    also {', '.join(function.aliases)}"))


class _Known(NamedTuple):
    """What the file of a function says about it: what a probe there costs, and of a Go program where its source is and
    what built it."""

    cost: str = "unknown"
    source: str = ""
    built_by: str = ""


def _known(functions: Sequence[Function]) -> Iterator[_Known]:
    """What is known of each function.

    The file is opened again, because the search has closed it. Nothing is known if it has gone or been replaced since.
    """
    for file_read, group in groupby(functions, lambda function: function.file):
        same_file = list(group)
        try:
            file = OpenFile.open(same_file[0].path)
            if file_read is None or file.version != file_read.version:
                raise NotFoundError(f"{file.path} has been replaced")
            with Image(file.path, file) as image:
                lines, build = pclntab.find_lines(image), golang.build(image)
                built_by = "" if build is None else str(build)
                known = [
                    _Known(cost(image, at.file_offset), "" if lines is None else lines.source(at.address), built_by)
                    for at in same_file
                ]
        except UsdtkitError:
            known = [_Known()] * len(same_file)
        yield from known
