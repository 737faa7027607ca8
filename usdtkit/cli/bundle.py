"""Pack the compiled programs of tools into a file, for machines without a compiler.

usdtkit makes the programs of its tools without a compiler. With USDTKIT_COMPILER=bcc on both machines, bcc makes them
here, and the other machine needs neither bcc nor LLVM after `usdtkit cache --add FILE`. A TOOL by its name alone packs
every program that it is known to load. A command line, in quotes or after --line, packs the one program that it would
load here; nothing is attached. Thresholds and texts to compare with are not part of a program.

examples:
  usdtkit bundle gethostlatency pamtrace -o tools.bundle
  usdtkit bundle 'funcslower c:malloc c:free' 'stackcount c:read' -o tools.bundle
  usdtkit bundle -o shop.bundle --line trace 'u:/usr/bin/shop:shop:order__start (arg1 > 3) "%s", arg2'
"""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from usdtkit.bpf import bundle
from usdtkit.bpf.compiler import cache_entry
from usdtkit.cli import command, is_tool, tool_names, tracing
from usdtkit.cli.messages import note
from usdtkit.errors import NotFoundError, UnsupportedError, UsageError, UsdtkitError

# A tool that looks for probes, then for one function, then for another, has at most this many programs.
MOST_ALTERNATIVES = 8

Programs = dict[str, dict[str, None]]
"""By the text of a program, the command lines that load it, in the order in which they were named."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit bundle`."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("tool", nargs="*", default=[], metavar="TOOL", help="a tool, or a command line in quotes")
    which.add_argument("--all", action="store_true", help="pack every tool whose programs do not depend on a target")
    which.add_argument(
        "--line", nargs=argparse.REMAINDER, metavar="TOOL …", help="read everything that follows as one command line"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write")


def run(options: argparse.Namespace) -> int:
    """Compile, and write the file."""
    if options.output.exists() and not options.output.is_file():
        # The new file is renamed to this name, so that readers see either the old file or the whole new one.
        raise UsdtkitError(
            f"{options.output} is not a regular file, and would be replaced by one", hint="choose another -o FILE"
        )
    used_by = programs_of_tools() if options.all else _programs_of_lines(options)
    entries = compile_all(used_by) if options.all else dict(zip(used_by, map(cache_entry, used_by), strict=True))
    packed = bundle.Bundle(
        os.uname().machine,
        dict(entries.values()),
        {key: list(used_by[text]) for text, (key, _) in entries.items()},
    )
    bundle.write(options.output, packed)
    size = options.output.stat().st_size
    print(f"{options.output}: {len(packed.entries)} programs, {size / 1024:.0f} KiB")
    return 0


def _programs_of_lines(options: argparse.Namespace) -> Programs:
    lines = options.tool if options.line is None else [shlex.join(options.line)]
    used_by: Programs = {}
    for line in lines:
        for variant, text in programs_of(line):
            used_by.setdefault(text, {})[variant] = None
    return used_by


def programs_of_tools() -> Programs:
    """The programs of all tools; those whose programs depend on a target are named on standard error."""
    used_by: Programs = {}
    for name in tool_names():
        try:
            for variant, text in programs_of(name):
                used_by.setdefault(text, {})[variant] = None
        except UsdtkitError as error:
            note(f"usdtkit: left out: {name}: {error.message}")
    return used_by


def compile_all(used_by: Programs) -> dict[str, tuple[str, bytes]]:
    """By text, the key and the entry of the cache of each program, which is compiled if it is in no cache.

    Each is named on standard error as soon as it is there. A program that does not compile is named with the reason and
    left out. Raises UnsupportedError where there is no compiler, and UsdtkitError where no program compiles.
    """
    entries: dict[str, tuple[str, bytes]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as compilers:  # processes, which the threads wait for
        pending = {compilers.submit(_timed_entry, text): text for text in used_by}
        for number, done in enumerate(as_completed(pending), 1):
            text = pending[done]
            progress = f"[{number}/{len(pending)}] {', '.join(used_by[text])}"
            try:
                entries[text], took_s = done.result()
                note(f"{progress}: {took_s:.1f} s")
            except UnsupportedError:
                compilers.shutdown(cancel_futures=True)
                raise
            except UsdtkitError as error:
                note(f"{progress}: left out: {error.message}")
    if not entries:
        raise UsdtkitError("no program compiles", hint="usdtkit doctor says whether the compiler works")
    return entries


def _timed_entry(text: str) -> tuple[tuple[str, bytes], float]:
    started = time.monotonic()
    return cache_entry(text), time.monotonic() - started


def programs_of(line: str) -> Iterator[tuple[str, str]]:
    """Pairs of a command line and the text of the program it would load. The name of a tool alone stands for all of
    its VARIANTS.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{line!r} is not a command line: {error}", hint="give a TOOL, or 'TOOL OPTIONS'") from None
    if not words:
        raise UsageError("the command line is empty", hint="give a TOOL, or 'TOOL OPTIONS'")
    name, *rest = words
    if rest or name not in tool_names():
        yield line, _text(name, rest)
        return
    for options in getattr(command(name)[0], "VARIANTS", ("",)):
        seen = set()
        for lacking in range(MOST_ALTERNATIVES):
            try:
                text = _text(name, shlex.split(options), lacking=lacking)
            except NotFoundError:
                if not lacking:
                    raise
                break  # there is nothing to do instead
            if text not in seen:
                yield f"{name} {options}".strip(), text
            seen.add(text)


def _text(name: str, arguments: list[str], *, lacking: int | None = None) -> str:
    """The text of the program that a command line loads.

    With `lacking` the text is the same on any machine. It is that of a tool that does not find the first `lacking`
    things that it looks for.
    """
    module, parser = command(name)
    if not is_tool(module):
        raise UsageError(f"{shlex.join([name, *arguments])!r} loads no program", hint="usdtkit -h lists the tools")
    parsed = parser.parse_args(arguments)
    if parsed.explain:
        raise UsageError(f"{shlex.join([name, *arguments])!r} loads no program", hint="leave --explain out")
    options = module.Options.of(parsed)
    offline = {} if lacking is None else {"offline": True, "lacking": lacking}
    with tracing.open_session(module, options, parsed, **offline) as session:
        module.trace(session, options)
        return session.program().text
