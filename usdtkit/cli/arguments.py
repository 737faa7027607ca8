"""The options that several tools share: those of all tools, and those that only some tools have.

Input: an argparse parser, and how a tool spells the options. Output: options, which `usdtkit.cli.tracing` obeys.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from usdtkit.cli.messages import note
from usdtkit.cli.options import ToolOptions, option
from usdtkit.cli.values import count, milliseconds, positive, process, processes, seconds, tid, user, words
from usdtkit.model import RETURN_POLICIES, UNWIND_POLICIES
from usdtkit.records import dataclass, field
from usdtkit.results.columns import FrameKind

LOST_EVENTS = 6  # the exit code if more events were lost than are allowed


@dataclass(frozen=True)
class Spelling:
    """How a tool spells the options that all tools share, if that differs from the others.

    `command` are the flags of the option for a command. `capacity` is the help text of --capacity in a tool
    that has a table of its own: the option is about that table then, and the tool reads it from `dest="capacity"`.
    `verbose` says what -v does besides telling more; with `shows_program` it shows the program, as in bcc's tools.
    `chosen` says that the user names the functions or probes, and so decides what tracing costs. `filters` are
    additional flags of the options that narrow a trace, such as {"tid": "-t"}; None leaves these options out.
    `ignored` are options of bcc's tool that mean nothing here, each with the reason, and `ignored_with_value` those
    that take a value. `ring_size` is the number of bytes for events in the kernel, if the tool needs more than
    usual. With `timestamps`, a table has the time before each interval.
    """

    command: Sequence[str] = ("-c", "--command")
    capacity: str = ""
    verbose: str = ""
    shows_program: bool = False
    chosen: bool = False
    filters: Mapping[str, str] | None = None
    ignored: Mapping[str, str] = field(default_factory=dict)
    ignored_with_value: Mapping[str, str] = field(default_factory=dict)
    ring_size: int = 0
    timestamps: bool = False


def process_argument(text: str = "trace this process: a number, or a program's name") -> Any:
    """The field of a tool that takes PID, the process to trace, as an argument of its own."""
    return option(type=process, default=None, metavar="PID", session="pid", help=text)


def min_ms_option(text: str, *, default: float | None = 0.0, threshold: bool = False) -> Any:
    """The field of a tool that shows only what took so many milliseconds; with `threshold` it also has that flag."""
    flags = ("-m", "--min-ms", *(["--threshold"] if threshold else []))
    return option(*flags, type=milliseconds, default=default, metavar="MS", help=text)


class IntervalOptions(ToolOptions):
    """The options of tools that summarise: how often they show a summary, and how many times."""

    interval: float | None = option(
        *("-i", "--interval"),
        type=seconds,
        default=None,
        metavar="SEC",
        help="print and reset every SEC seconds; without it, print once at the end",
    )
    intervals: int | None = option(
        *("-n", "--intervals"),
        type=positive,
        default=None,
        metavar="N",
        help="stop after N intervals",
    )
    timestamp: bool = option("-T", "--timestamp", default=False, help="print the time before each interval")


class UnitOptions(ToolOptions):
    """The options of histograms of time that choose the unit of the buckets."""

    exclusive = (("microseconds", "milliseconds"),)
    microseconds: bool = option("-u", "--microseconds", dest="unit", const="us", default=None, help="buckets in us")
    milliseconds: bool = option("-m", "--milliseconds", dest="unit", const="ms", default=None, help="buckets in ms")

    @property
    def unit_ns(self) -> int:
        """The unit of the buckets, in nanoseconds."""
        return 1_000 if self.microseconds else 1_000_000 if self.milliseconds else 1

    @property
    def unit_name(self) -> str:
        """The name of the value that the buckets are of."""
        return "latency_us" if self.microseconds else "latency_ms" if self.milliseconds else "latency_ns"


class StackOptions(ToolOptions):
    """The options of tools that show stacks: which of their frames, and how these are found."""

    exclusive = (("native", "python"),)
    native: bool = option(
        "--native", dest="frames", const="native", default=None, help="of stacks, show the machine code alone"
    )
    python: bool = option(
        "--python",
        dest="frames",
        const="python",
        default=None,
        help="of stacks, show those of Python, PHP or Ruby alone",
    )

    unwind: str | None = option(
        "--unwind",
        choices=UNWIND_POLICIES,
        default=None,
        session="unwind",
        help="how callers are found: by the tables of call frames that files have, where the kernel can use them "
        "(auto), or by frame pointers alone",
    )
    unwind_memory: int | None = option(
        "--unwind-memory",
        type=positive,
        default=None,
        metavar="MB",
        session="unwind_memory",
        help="memory for these tables; 32 without it",
    )

    @property
    def frames(self) -> FrameKind:
        """The frames that are shown, as a column of stacks has it."""
        return "native" if self.native else "python" if self.python else ""


class CallerOptions(ToolOptions):
    """The option of tools for functions that programs in Python call."""

    pycaller: bool = option("--pycaller", default=False, help="show which function of Python called, and its line")


class StatementOptions(ToolOptions):
    """The options of tools that show statements of database servers: where the servers are, and what is shown."""

    exe: str | None = option(
        *("-x", "--exe"),
        default=None,
        metavar="PATH",
        help="the server's program, if it has another name than usual",
    )
    raw_text: bool = option(
        "--raw-text", default=False, help="show statements as they were sent, with the data in them"
    )


def add_tool_options(parser: argparse.ArgumentParser, options: type[ToolOptions], spelling: Spelling) -> None:
    """All options of a tool: its own, then those that all tools share."""
    options.add_to(parser)
    if spelling.timestamps:
        parser.set_defaults(timestamp=True)
    add_ignored_options(parser, spelling.ignored)
    add_ignored_options(parser, spelling.ignored_with_value, takes_value=True)
    if spelling.filters is not None:
        add_filter_options(parser, spelling.filters)
    add_session_options(parser, spelling)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """--json, --csv and --format."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", dest="format", action="store_const", const="json", help="write JSON Lines")
    group.add_argument("--csv", dest="format", action="store_const", const="csv", help="write CSV with a heading")
    group.add_argument("--format", metavar="NAME", help="write the format NAME, such as folded, chrome or markdown")
    parser.add_argument("--output", metavar="FILE", help="write to FILE instead of standard output")
    parser.set_defaults(format="table")


def add_session_options(parser: argparse.ArgumentParser, spelling: Spelling) -> None:
    """-p, -d and the other options that all tools share. `usdtkit.cli.tracing` obeys them."""
    parser.add_argument(
        *("-p", "--pid"),
        type=processes,
        action="extend",
        help="trace only this process, or all that run a program of this name (repeatable; also 12,postgres)",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="with -p, trace also the processes that it has started, and those that it starts from now on",
    )
    parser.add_argument(
        *spelling.command,
        dest="command",
        type=words,
        metavar="CMD",
        help="start CMD and trace it from its beginning, and what it starts",
    )
    parser.add_argument(
        "--wait", action="store_true", help="if what is to be traced is not there yet, wait until it is mapped first"
    )
    parser.add_argument("-d", "--duration", type=seconds, metavar="SEC", help="stop after SEC seconds")
    parser.add_argument(
        "--max-lost", type=count, metavar="N", help=f"exit with code {LOST_EVENTS} if more than N events were lost"
    )
    capacity = spelling.capacity or "how many entries each table in the kernel can hold (10,240)"
    parser.add_argument("--capacity", type=positive, metavar="N", help=capacity)
    parser.add_argument(
        "--drop",
        action="store_true",
        help="give up all privileges once attached: become the user who called sudo, or nobody",
    )
    parser.add_argument("--drop-to", metavar="USER", help="give up all privileges once attached, and become USER")
    parser.add_argument(
        "--returns",
        choices=RETURN_POLICIES,
        default="auto",
        help="how to see that a function returns: by probes on its last instructions (sites), or by return probes of "
        "the kernel (probes), which kill programs that throw exceptions or switch stacks; auto chooses for each "
        "function",
    )
    parser.add_argument("--explain", action="store_true", help="list what would be attached to, and attach nothing")
    parser.add_argument("--program", action="store_true", help="show the BPF program before it runs")
    more = "; also show the program" if spelling.shows_program else f"; {spelling.verbose}" if spelling.verbose else ""
    parser.add_argument(
        *("-v", "--verbose"), action="store_true", help=f"say which files are traced, what is left out, and why{more}"
    )
    parser.set_defaults(chosen=spelling.chosen, shows_program=spelling.shows_program)
    add_output_options(parser)


def add_ignored_options(
    parser: argparse.ArgumentParser, flags: Mapping[str, str], *, takes_value: bool = False
) -> None:
    """Accept options of bcc's tool that have no effect here, and show the reason when they are used."""
    for flag, reason in flags.items():
        parser.add_argument(
            *flag.split(), action=_Ignored, nargs=None if takes_value else 0, const=reason, help=argparse.SUPPRESS
        )


class _Ignored(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        note(f"usdtkit: {option_string} is ignored: {self.const}")


def add_filter_options(parser: argparse.ArgumentParser, flags: Mapping[str, str]) -> None:
    """--tid, --uid, --comm and --cgroup, which narrow a trace. `flags` are additional ones, such as {"tid": "-t"}."""
    group = parser.add_argument_group("show only hits")
    for name, parse, metavar, text in (
        ("tid", tid, "TID", "of this thread"),
        ("uid", user, "USER", "of processes of this user, a number or a name"),
        ("comm", str, "NAME", "of threads with this name, or with names that match it: 'java*'"),
        ("cgroup", str, "CGROUP", "in this cgroup and those below it: a path, a name, or the id of a container"),
    ):
        all_flags = [f"--{name}", *([flags[name]] if name in flags else [])]
        group.add_argument(
            *all_flags, dest=name, type=parse, action="append", metavar=metavar, help=f"{text} (repeatable)"
        )
