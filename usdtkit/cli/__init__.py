"""The command `usdtkit`: finds the module of a command or tool, parses its options, runs it, turns errors into words.

A command is a module here, with a docstring (its first line is the summary), `configure(parser)` and `run(options)`. A
tool is a module of `usdtkit.tools`, which `tracing` runs. Only the one that is asked for is imported.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn, TextIO, cast

from usdtkit.errors import UsageError, UsdtkitError, one_of
from usdtkit.version import VERSION

COMMANDS = ("bundle", "cache", "completion", "doctor", "list", "man", "provider", "run", "schema")
ALIASES = {"tplist": "list"}  # bcc's name for it
# The headings of the list of tools; each tool names its heading as `TOPIC`.
TOPICS = (
    "any function or probe",
    "databases",
    "names, logins and secrets",
    "memory and locks",
    "languages",
)
# The tools for languages: their names begin with u, or with a language instead (pythoncalls, javagc).
LANGUAGE_TOOLS = ("calls", "flow", "gc", "objnew", "stat", "threads")
EPILOG = """\
`usdtkit NAME -h` describes each of them. Exit codes: 0 done, 1 failure, 2 usage, 3 not enough privilege,
4 no such target or probe, 5 the kernel or a program lacks a feature, 6 more events lost than --max-lost."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `usdtkit ARGUMENTS` and return its exit code."""
    # Not list(…): that name is the module of the command here, once it is imported.
    arguments = [*(sys.argv[1:] if arguments is None else arguments)]
    with _streams():
        try:
            if sys.stdout is None:
                raise UsdtkitError("standard output is closed", hint="redirect it to /dev/null if you do not need it")
            code = _dispatch(arguments)
            sys.stdout.flush()
            return code
        except UsdtkitError as error:
            return _report(error)
        except KeyboardInterrupt:
            return 130  # before anything was attached: a running trace ends with 0
        except OSError as error:
            return _failed(error)


def _failed(error: OSError) -> int:
    """Write a message about an unexpected error of the system, and return the exit code."""
    if isinstance(error, _OutputError):
        _discard_output()
        if error.errno == errno.EPIPE:
            return 0  # the reader (head, less) needs no more
        return _report(UsdtkitError(f"standard output: {error.strerror}"))
    what = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else _place(error)
    return _report(UsdtkitError(f"{what}: {error.strerror or error}"))


def _place(error: OSError) -> str:
    """The function of usdtkit that raised an error which names no file."""
    trace, place = error.__traceback__, "usdtkit"
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module.partition(".")[0] == "usdtkit":
            place = f"in {module}.{trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return place


def _report(error: UsdtkitError) -> int:
    from usdtkit.output.text import printable

    print(printable(f"usdtkit: {error.message}"), file=sys.stderr)
    for line in error.details:
        print(printable(line), file=sys.stderr)
    if error.hint:
        print(printable(f"  hint: {error.hint}"), file=sys.stderr)
    return error.exit_code


class _OutputError(OSError):
    """Standard output could not be written."""


class _Output(io.FileIO):
    """Standard output. Its errors become `_OutputError`, because an OSError would not say which file it is about.

    It writes all that it is given: a signal that comes while a pipe is full must not cost the rest of the lines.
    """

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        while left:
            try:
                written = super().write(left)
            except OSError as error:
                raise _OutputError(error.errno, error.strerror) from None
            if written is None:  # it does not wait for its reader
                raise _OutputError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            left = left[written:]
        return len(data)


class _Messages(io.TextIOBase):
    """Standard error. Messages quote names out of files and processes: what is not printable becomes an escape.

    If standard error cannot be written (closed, a full disk), messages are dropped. The data does not depend on them.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if self._stream is not None:
            if not text.isascii() or not text.isprintable():
                from usdtkit.output.text import printable

                text = "\n".join(printable(line) for line in text.split("\n"))
            with contextlib.suppress(OSError):
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.flush()


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Streams that take every message and every string, whatever the locale."""
    before = sys.stdout
    if isinstance(before, io.TextIOWrapper) and before is sys.__stdout__:
        raw = _Output(before.fileno(), "wb", closefd=False)
        # With python -u nothing is kept back.
        buffer: Any = raw if isinstance(before.buffer, io.RawIOBase) else io.BufferedWriter(raw)
        sys.stdout = io.TextIOWrapper(
            buffer,
            before.encoding,
            "backslashreplace",
            line_buffering=before.line_buffering,
            write_through=before.write_through,
        )
    elif isinstance(before, io.TextIOWrapper):
        before.reconfigure(errors="backslashreplace")
    with contextlib.redirect_stderr(cast(Any, _Messages(sys.stderr))):
        yield


def _discard_output() -> None:
    """Send buffered output to /dev/null, so that the interpreter does not fail on it again when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _untranslated(text: str) -> str:
    """The text as it is."""
    return text


# argparse would look for a translation of each of its titles, of which Python ships none, and import locale to do so:
# that takes a millisecond of every start.
argparse._ = _untranslated  # type: ignore[attr-defined]


class _Help(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal. argparse would ask shutil, and import for it what unpacks archives, at every start."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_terminal_width() - 2)


def _terminal_width() -> int:
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (ValueError, OSError):
        return 80


class _Parser(argparse.ArgumentParser):
    """Options, with errors like all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=self._hint)

    @property
    def _hint(self) -> str:
        return f"{self.prog} -h shows the options"

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        # Before argparse takes the value of an unknown option for an argument, about which the error would be.
        self._require_known([word for word in _before_rest(self, args) if not self._knows(word)])
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown and isinstance(process := getattr(parsed, "process", None), str):
            from usdtkit.cli.runtimeoptions import misplaced  # lazy: it knows all languages

            if mistake := misplaced(process):
                self.error(mistake)
        self._require_known(unknown)
        return parsed

    def _knows(self, word: str) -> bool:
        is_option = word.startswith("--") and " " not in word
        return not is_option or word.partition("=")[0] in self._option_string_actions

    def _require_known(self, unknown: Sequence[str]) -> None:
        if unknown:
            options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            hint = one_of(options[0], _flags(self), self._hint) if options else self._hint
            raise UsageError(f"unrecognized arguments: {' '.join(unknown)}", hint=hint)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = "/".join(action.option_strings) or action.metavar or action.dest
            raise UsageError(f"argument {what}: invalid choice: {value!r}", hint=one_of(value, action.choices))


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    """The options of a parser and of those below it."""
    below = [each for action in parser._actions if isinstance(action.choices, dict) for each in action.choices.values()]
    return [*parser._option_string_actions, *(flag for each in below for flag in _flags(each))]


def _before_rest(parser: argparse.ArgumentParser, words: Sequence[str]) -> Sequence[str]:
    """The words that a parser reads itself, and none where a part of them is for another one."""
    if any(action.nargs in (argparse.REMAINDER, argparse.PARSER) for action in parser._actions):
        return ()
    return words[: words.index("--")] if "--" in words else words


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"usdtkit {VERSION}")
        return 0
    name, *rest = arguments
    module, parser = command(name)
    try:
        options = parser.parse_args(rest)
    except SystemExit:  # it has shown its help
        return 0
    gc.freeze()  # all that was imported
    gc.enable()
    with _telling(more=bool(getattr(options, "verbose", False))):
        if is_tool(module):
            from usdtkit.cli.tracing import run_tool

            return run_tool(module, options)
        code: int = module.run(options)
        return code


def is_tool(module: ModuleType) -> bool:
    """Whether a module is a tool, which `tracing` runs, and not a command."""
    return hasattr(module, "Options")


@contextlib.contextmanager
def _telling(*, more: bool) -> Iterator[None]:
    """Write what is logged to standard error. With `more`, which is -v, this includes informational messages, and the
    processes that may not be inspected."""
    from usdtkit.scan import Scan

    before, Scan.tells_unreadable = Scan.tells_unreadable, more
    try:
        with _log_of_information() if more else contextlib.nullcontext():
            yield
    finally:
        Scan.tells_unreadable = before


@contextlib.contextmanager
def _log_of_information() -> Iterator[None]:
    import logging

    logger, handler = logging.getLogger("usdtkit"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("usdtkit: %(message)s"))
    told: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        """Several looks at the processes find the same."""
        message, before = record.getMessage(), len(told)
        told.add(message)
        return len(told) > before

    handler.addFilter(is_new)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def command(name: str) -> tuple[ModuleType, argparse.ArgumentParser]:
    """A command or tool, and the parser of its options. UsageError if there is none of this name."""
    language = _language_of(name)
    module = _module(f"u{name.removeprefix(language)}" if language else name)
    summary, _, details = (module.__doc__ or "").partition("\n")
    parser = _Parser(
        prog=f"usdtkit {name}",
        description=summary,
        epilog=details.strip("\n"),
        formatter_class=_Help,
        allow_abbrev=False,
    )
    if is_tool(module):
        from usdtkit.cli import tracing

        tracing.configure(parser, module)
    else:
        module.configure(parser)
    if language:
        parser.set_defaults(language=language)
    return module, parser


def _language_of(name: str) -> str:
    """The language in the short form of a tool's name (`javagc` is `ugc -l java`), "" in any other name."""
    tool = next((tool for tool in LANGUAGE_TOOLS if name.endswith(tool) and not name.startswith("u")), None)
    if tool is None or name in tool_names():
        return ""
    from usdtkit.providers.runtimes.languages import BY_NAME

    language = name.removesuffix(tool)
    return language if language in BY_NAME else ""


def tool_names() -> list[str]:
    """The tools that are installed, by name."""
    import pkgutil  # imports what inspects source code

    tools = importlib.import_module("usdtkit.tools")
    return sorted(module.name for module in pkgutil.iter_modules(tools.__path__))


def _module(name: str) -> ModuleType:
    name = ALIASES.get(name, name)
    if name in COMMANDS:
        # `run` is a module of usdtkit itself, so that `python -m usdtkit.run` works too.
        return importlib.import_module("usdtkit.run" if name == "run" else f"usdtkit.cli.{name}")
    if name.isidentifier() and not name.startswith("_"):
        try:
            return importlib.import_module(f"usdtkit.tools.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"usdtkit.tools.{name}":
                raise
    from usdtkit.cli.elsewhere import unknown  # only where something has failed

    raise unknown(name, [*COMMANDS, *ALIASES, *tool_names()])


def _overview() -> str:
    import textwrap

    tools = {name: _module(name) for name in tool_names()}
    groups = {"commands": {name: _module(name) for name in COMMANDS}}
    for topic in [*TOPICS, *sorted({tool.TOPIC for tool in tools.values()} - {*TOPICS})]:
        groups[topic] = {name: tool for name, tool in tools.items() if topic == tool.TOPIC}
    width, indent = max(_terminal_width() - 2, 40), " " * 19
    lines = ["usage: usdtkit COMMAND [options]", "", "See inside running applications on Linux.", ""]
    for title, modules in groups.items():
        lines.append(f"{title}:")
        for name, module in modules.items():
            summary = (module.__doc__ or "").partition("\n")[0]
            lines.append(textwrap.fill(f"  {name:<16} {summary}", width, subsequent_indent=indent))
        lines.append("")
    return "\n".join([*lines, EPILOG])
