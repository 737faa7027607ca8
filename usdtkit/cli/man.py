"""Write manual pages of commands and tools, made from their own help.

Without a NAME, it writes the page of usdtkit itself. With --all, every page is written to a directory, as usdtkit.8 and
usdtkit-NAME.8, as a package installs them below share/man/man8.

examples:
  usdtkit man memleak | man -l -
  usdtkit man --all ~/.local/share/man/man8
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from types import ModuleType

from usdtkit.cli import COMMANDS, EPILOG, TOPICS, command, tool_names
from usdtkit.cli.pages import write_all
from usdtkit.errors import UsageError
from usdtkit.results.columns import Column
from usdtkit.version import VERSION

ABOUT = "see inside running applications on Linux"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit man`."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a command or a tool")
    parser.add_argument("--all", metavar="DIRECTORY", help="write every page to this directory")


def run(options: argparse.Namespace) -> int:
    """Print one page, or write all."""
    if options.all is None:
        print(page(options.name) if options.name else overview(), end="")
        return 0
    if options.name:
        raise UsageError("--all writes every page, including that of " + options.name)
    pages = {"usdtkit.8": overview()} | {f"usdtkit-{name}.8": page(name) for name in [*COMMANDS, *tool_names()]}
    write_all(options.all, pages)
    return 0


def page(name: str) -> str:
    """The page of a command or tool, as roff."""
    module, parser = command(name)
    before, _, examples = (parser.epilog or "").partition("examples:\n")
    lines = [*_title(f"usdtkit-{name}", parser.description or ""), ".SH SYNOPSIS", *_synopsis(parser)]
    lines += [".SH DESCRIPTION", *_text(f"{parser.description}\n\n{before}"), ".SH OPTIONS", *_options(parser)]
    if columns := getattr(module, "COLUMNS", ()):
        lines += [".SH COLUMNS", "The name of a column in JSON and CSV, and its heading in the table."]
        lines += [line for column in columns for line in _column(column)]
    if examples:
        lines += [".SH EXAMPLES", *_as_it_is(examples.rstrip().splitlines())]
    lines += [
        *_exit_status(),
        ".SH SEE ALSO",
        ", ".join(f"\\fB{_roff(related)}\\fR(8)" for related in _related(name, module)),
    ]
    return "\n".join(lines) + "\n"


def _column(column: Column) -> list[str]:
    heading = f" (\\fB{_roff(column.heading)}\\fR)" if column.heading else ""
    in_table = "in the table only: " if column.table_only else ""
    return [".TP", f"\\fB{_roff(column.name)}\\fR{heading}", in_table + _roff(column.meaning or column.type)]


def overview() -> str:
    """The page of usdtkit itself."""
    lines = [*_title("usdtkit", ABOUT), ".SH SYNOPSIS", "\\fBusdtkit\\fR \\fINAME\\fR [options]", ".SH DESCRIPTION"]
    lines += ["USDT probes and functions of running programs, traced with eBPF. Each NAME has a page: usdtkit\\-NAME."]
    groups: dict[str, list[str]] = {"commands": list(COMMANDS)} | {topic: [] for topic in TOPICS}
    for name in tool_names():
        groups.setdefault(command(name)[0].TOPIC, []).append(name)
    for title, names in groups.items():
        lines += [f".SH {_roff(title.upper())}"] if names else []
        for name in names:
            lines += [".TP", f"\\fB{_roff(name)}\\fR", _roff(command(name)[1].description or "")]
    return "\n".join([*lines, *_exit_status()]) + "\n"


def _title(name: str, summary: str) -> list[str]:
    heading = f'.TH {_roff(name.upper())} 8 "" "usdtkit {VERSION}" "usdtkit"'
    return [heading, ".SH NAME", f"{_roff(name)} \\- {_roff(summary.rstrip('.'))}"]


def _synopsis(parser: argparse.ArgumentParser) -> list[str]:
    words = [
        f"\\fI{_roff(str(action.metavar or action.dest))}\\fR"
        for action in parser._actions
        if not action.option_strings
    ]
    optional = [action.nargs in ("?", "*") for action in parser._actions if not action.option_strings]
    shown = [f"[{word}]" if leave else word for word, leave in zip(words, optional, strict=True)]
    return [" ".join([f"\\fB{_roff(parser.prog)}\\fR", "[options]", *shown])]


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for own in dict.fromkeys(action.choices.values()):
                yield from (f".SS {_roff(own.prog)}", *_options(own))
            continue
        value = str(action.metavar or "|".join(map(str, action.choices or ())) or action.dest.upper())
        if action.option_strings:
            tag = ", ".join(f"\\fB{_roff(one)}\\fR" for one in action.option_strings)
            tag += f" \\fI{_roff(value)}\\fR" if action.nargs != 0 else ""
        else:
            tag = f"\\fI{_roff(value)}\\fR"
        yield from (".TP", tag, _roff((action.help or "") % {**vars(action), "prog": parser.prog}))


def _text(text: str) -> Iterator[str]:
    """Paragraphs; lines that are indented stay as they are."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield ".PP"
        indented: list[str] = []
        for line in paragraph.splitlines():
            if line.startswith("  "):
                indented.append(line)
                continue
            yield from _as_it_is(indented)
            indented = []
            yield _roff(line)
        yield from _as_it_is(indented)


def _as_it_is(lines: Sequence[str]) -> list[str]:
    return [".nf", *map(_roff, lines), ".fi"] if lines else []


def _exit_status() -> list[str]:
    codes = " ".join(EPILOG.partition("Exit codes: ")[2].split()).rstrip(".").split(", ")
    lines = [".SH EXIT STATUS"]
    for code in codes:
        number, _, meaning = code.partition(" ")
        lines += [".TP", f"\\fB{number}\\fR", _roff(meaning)]
    return lines


def _related(name: str, module: ModuleType) -> list[str]:
    topic = getattr(module, "TOPIC", None)
    same = [other for other in tool_names() if other != name and topic == command(other)[0].TOPIC] if topic else []
    return ["usdtkit", *(f"usdtkit-{other}" for other in same)]


def _roff(text: str) -> str:
    """The text escaped for roff, so that nothing in it is taken for a request or an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith(".") else text
