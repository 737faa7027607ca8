"""List the USDT probes of files and processes.

examples:
  usdtkit list /usr/lib/x86_64-linux-gnu/libstdc++.so.6
  usdtkit list -p 1234 -v          with arguments
  usdtkit list mariadbd            a command on PATH, or a library by its short name: list c
  usdtkit list                     provider files and everything that runs
"""

from __future__ import annotations

import argparse
import json

from usdtkit import targets
from usdtkit.cli.run import pid
from usdtkit.errors import NotFoundError
from usdtkit.model import Argument, Probe
from usdtkit.output.text import jsonable, printable


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit list`."""
    parser.add_argument("target", nargs="*", metavar="TARGET", help="path, command or library")
    parser.add_argument(
        "-p", "--pid", type=pid, action="append", default=[], help="what this process maps (repeatable)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show arguments")
    parser.add_argument("--json", action="store_true", help="JSON Lines, an object a probe")


def run(options: argparse.Namespace) -> int:
    """List what was asked for."""
    probes = _find(options.target, options.pid)
    if options.json:
        print(json.dumps({"schema": "usdtkit.list/1"}))
        for probe in probes:
            print(json.dumps(describe(probe)))
        return 0
    for probe in probes:
        line = f"{probe.spec} {probe.path}"
        if len(probe.sites) > 1:
            line += f" ({len(probe.sites)} sites)"
        print(printable(line))
        if options.verbose:
            for text in filter(None, (probe.doc, probe.stability)):
                print(printable(f"    {text}"))
            for argument in probe.arguments:
                print(printable(f"    {_explain(argument)}"))
    return 0


def _explain(argument: Argument) -> str:
    """`latency: u64 ns, how long it took`, `state: enum (0 new, 1 paid)`."""
    text = f"{argument.name}: {argument.type}"
    if argument.names:
        text += f" ({', '.join(f'{number} {name}' for name, number in argument.names)})"
    if argument.unit:
        text += f" {argument.unit}"
    return f"{text}, {argument.doc}" if argument.doc else text


def _find(names: list[str], pids: list[int]) -> list[Probe]:
    if not names:
        return targets.find_probes("*:*", pids=pids)
    probes = [probe for name in names for target in targets.resolve(name, pids) for probe in targets.probes_in(target)]
    if not probes:
        raise NotFoundError(
            f"no USDT probes in {', '.join(names)}",
            hint=f"its functions can be traced: usdtkit trace p:{names[0]}:FUNCTION",
        )
    return probes


def describe(probe: Probe) -> dict[str, object]:
    """A probe as a JSON object: numbers as integers, names and types where they are known."""
    return {
        "path": jsonable(probe.path),
        "build_id": probe.build_id,
        "provider": jsonable(probe.provider),
        "name": jsonable(probe.name),
        "doc": jsonable(probe.doc),
        "stability": jsonable(probe.stability),
        "arguments": [_describe_argument(argument) for argument in probe.arguments],
        "sites": [
            {
                "address": site.address,
                "base": site.base,
                "semaphore": site.semaphore,
                "file_offset": site.file_offset,
                "arguments_text": jsonable(site.arguments_text),
            }
            for site in probe.sites
        ],
    }


def _describe_argument(argument: Argument) -> dict[str, object]:
    described: dict[str, object] = {"name": jsonable(argument.name), "type": argument.type}
    for key, text in (("unit", argument.unit), ("doc", argument.doc)):
        if text:
            described[key] = jsonable(text)
    if argument.names:
        described["names"] = {str(jsonable(name)): number for name, number in argument.names}
    return described
