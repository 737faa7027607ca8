"""Run a Python program with ready-made probes: of the language, and of the libraries that it uses.

  usdtkit run app.py --port 80              the language's: function__entry, line, gc__start, exception__raise, …
  usdtkit run --with wsgi,dbapi -m shop     those of its web server and database as well
  usdtkit run --only '*/shop/*' app.py      functions, lines and exceptions of these files only
  PYTHONPATH=$(usdtkit run --print-site) USDTKIT_INSTRUMENT=python gunicorn shop:app
                                            the same for a program that something else starts

The program replaces this process, and runs under this interpreter as it would with plain `python`. Processes that it
forks and Python programs that it starts have the probes too. While nobody traces them, the probes only make the start
slower. `python -m usdtkit.run` does the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from usdtkit import instrument
from usdtkit.errors import UsageError
from usdtkit.instrument import redaction
from usdtkit.instrument.engagement import VERBOSE

SITE = Path(instrument.__file__).parent / "site"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options. Those after the program belong to the program."""
    names = ", ".join(name for name in instrument.NAMES if name != "python")
    parser.usage = "usdtkit run [options] (program.py | -m module | -c code) [its arguments]"
    parser.add_argument(
        "--with", dest="names", metavar="NAMES", default="", help=f"install the probes of these libraries too: {names}"
    )
    parser.add_argument(
        "--only", metavar="GLOB", action="append", help="trace only Python code of these files (repeatable)"
    )
    parser.add_argument(
        "--skip", metavar="GLOB", action="append", help="do not trace Python code of these files (repeatable)"
    )
    parser.add_argument("--objects", action="store_true", help="publish object__new and object__delete (Python 3.13)")
    parser.add_argument(
        "--unredacted", action="store_true", help="let probes show query strings of URLs and parameters of queries"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say what has probes, on standard error")
    parser.add_argument("-X", "-W", dest="passed", metavar="OPTION", action=_Passed, help="Python's own options")
    parser.add_argument("--print-site", action="store_true", help="print the directory to put on PYTHONPATH, and exit")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-m", dest="module", nargs=argparse.REMAINDER, help="run a module")
    group.add_argument("-c", dest="code", nargs=argparse.REMAINDER, help="run this code")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="run a file, a directory or a zip file")


class _Passed(argparse.Action):
    """Keeps an option as it was written, for the interpreter that is started."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        namespace.passed = [*(namespace.passed or ()), option, value]


def run(options: argparse.Namespace) -> int:
    """Replace this process by the program.

    Raises UsageError if no program is given or a name is unknown, and UnsupportedError.
    """
    if options.print_site:
        print(SITE)
        return 0
    command = _command(options)
    names = ["python", *filter(None, (name.strip() for name in options.names.split(",")))]
    instrument.check_names(names)
    if options.objects:
        instrument.check_objects()
    installed: dict[str, dict[str, object]] = {name: {} for name in names}
    installed["python"] = {
        name: value
        for name, value in (("only", options.only), ("skip", options.skip), ("objects", options.objects))
        if value
    }
    # Our directory comes first, so that no other sitecustomize hides ours, which runs the other one.
    paths = [str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "USDTKIT_INSTRUMENT": json.dumps(installed)}
    if options.verbose:
        environment[VERBOSE] = "1"
    if options.unredacted:
        environment[redaction.VARIABLE] = "1"
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *(options.passed or ()), *command], environment)


def _command(options: argparse.Namespace) -> list[str]:
    for flag, words in (("-m", options.module), ("-c", options.code)):
        if words:
            return [flag, *words]
    if not options.program:
        raise UsageError("there is no program to run", hint="usdtkit run app.py, or usdtkit run -m module")
    first: str = options.program[0]
    if first.startswith("-") and first != "-":
        raise UsageError(f"{first} is not an option of usdtkit run", hint="usdtkit run -h shows the options")
    return list(options.program)


if __name__ == "__main__":
    from usdtkit.cli import main

    sys.exit(main(["run", *sys.argv[1:]]))
