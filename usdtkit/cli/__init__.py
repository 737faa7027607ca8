"""The command `usdtkit`: finds the module of a command or tool, parses its options, runs it, turns errors into words.

A command is a module here, a tool a module of `usdtkit.tools`; both have a docstring (its first line is the summary),
`configure(parser)` and `run(options) -> int`. Only the one that is asked for is imported.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType

from usdtkit.errors import UsageError, UsdtkitError
from usdtkit.version import VERSION

COMMANDS = ("doctor", "list", "provider", "trace")
EPILOG = """\
usdtkit NAME -h tells more of each. Exit codes: 0 done, 1 failure, 2 usage, 3 not enough privilege,
4 no such target or probe, 5 the kernel or a program lacks a feature, 6 more events lost than --max-lost."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `usdtkit ARGUMENTS` and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except UsdtkitError as error:
        print(f"usdtkit: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130  # before anything was attached: a running trace ends with 0
    except BrokenPipeError:
        # The reader (head, less) has what it wanted. Nothing must be flushed to the pipe at exit.
        sys.stdout = None
        return 0


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"usdtkit {VERSION}")
        return 0
    name, *rest = arguments
    module = _module(name)
    summary, _, details = (module.__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog=f"usdtkit {name}",
        description=summary,
        epilog=details.strip("\n"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    try:
        options = parser.parse_args(rest)
    except SystemExit as done:  # argparse has said what was wrong, or shown its help
        return int(done.code or 0)
    code: int = module.run(options)
    return code


def tool_names() -> list[str]:
    """The tools that are installed, by name."""
    tools = importlib.import_module("usdtkit.tools")
    return sorted(module.name for module in pkgutil.iter_modules(tools.__path__))


def _module(name: str) -> ModuleType:
    if name in COMMANDS:
        return importlib.import_module(f"usdtkit.cli.{name}")
    if name in (names := tool_names()):
        return importlib.import_module(f"usdtkit.tools.{name}")
    import difflib

    near = difflib.get_close_matches(name, [*COMMANDS, *names], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "usdtkit -h lists them"
    raise UsageError(f"no command or tool is called {name!r}", hint=hint)


def _overview() -> str:
    lines = ["usage: usdtkit COMMAND [options]", "", "See inside running applications on Linux.", ""]
    for title, names in (("commands", COMMANDS), ("tools", tool_names())):
        lines.append(f"{title}:")
        for name in names:
            lines.append(f"  {name:<16} {(_module(name).__doc__ or '').partition(chr(10))[0]}")
        lines.append("")
    return "\n".join([*lines, EPILOG])
