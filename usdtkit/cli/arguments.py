"""What command lines have in common: the options of every tool that traces, and the types of values.

Input: an argparse parser, or a class derived from `ToolOptions`. Output: options, which `run` obeys.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from usdtkit.cli.messages import note
from usdtkit.cli.options import ToolOptions, option
from usdtkit.cli.values import count, pid, pids, positive, seconds, user, words
from usdtkit.model import RETURN_POLICIES
from usdtkit.records import dataclass, field

LOST_EVENTS = 6  # the exit code where more were lost than are allowed


@dataclass(frozen=True)
class Spelling:
    """How a tool spells the options that all tools share, where that differs from the others.

    `command` are the flags of the option for a command. `capacity` is the help text of the option of that name.
    `verbose` says what -v does besides telling more; with `shows_program` it shows the program, as in bcc's tools.
    `chosen` says that the user names the functions or probes, and so decides what tracing costs. `filters` are
    additional flags of the options that narrow a trace, such as {"tid": "-t"}; None leaves these options out.
    `ignored` are options of bcc's tool that mean nothing here, each with the reason, and `ignored_with_value` those
    that take a value. `ring_size` is the number of bytes for events in the kernel, where the tool needs more than
    usual.
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


class Intervals(ToolOptions):
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


class Units(ToolOptions):
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


class Statements(ToolOptions):
    """The options of tools that show statements of database servers: where the servers are, and what is shown."""

    exe: str | None = option(
        *("-x", "--exe"),
        default=None,
        metavar="PATH",
        help="the server's program, to trace servers that start later",
    )
    raw_text: bool = option(
        "--raw-text", default=False, help="show statements as they were sent, with the data in them"
    )


def add_tool_options(parser: argparse.ArgumentParser, options: type[ToolOptions], spelling: Spelling) -> None:
    """All options of a tool: its own, then those that all tools share."""
    options.add_to(parser)
    add_ignored_options(parser, spelling.ignored)
    add_ignored_options(parser, spelling.ignored_with_value, takes_value=True)
    if spelling.filters is not None:
        add_filter_options(parser, **spelling.filters)
    capacity = {"capacity": spelling.capacity} if spelling.capacity else {}
    add_session_options(
        parser,
        command=spelling.command,
        verbose=spelling.verbose,
        shows_program=spelling.shows_program,
        chosen=spelling.chosen,
        **capacity,
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """--json, --csv and --format."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", dest="format", action="store_const", const="json", help="write JSON Lines")
    group.add_argument("--csv", dest="format", action="store_const", const="csv", help="write CSV with a heading")
    group.add_argument(
        "--format", metavar="NAME", help="write this format: table, json, csv, folded, chrome or another"
    )
    parser.set_defaults(format="table")


def add_session_options(
    parser: argparse.ArgumentParser,
    *,
    command: Sequence[str] = ("-c", "--command"),
    capacity: str = "how many entries each table in the kernel can hold (10,240)",
    verbose: str = "",
    shows_program: bool = False,
    chosen: bool = False,
) -> None:
    """-p, -d and the other options of everything that traces; `new_session` and `follow` obey them.

    `command`: what the option for a command is called. `capacity`: what the help says of --capacity.
    `verbose`: what -v does in this tool besides telling more; with `shows_program` it does what --program does, as in
    bcc's tools. `chosen`: whether the user says which functions or probes are traced, and so decides what they cost.
    """
    parser.add_argument(
        "-p", "--pid", type=pids, action="extend", help="trace this process only (repeatable, or several: 12,34)"
    )
    parser.add_argument(
        *command,
        dest="command",
        type=words,
        metavar="CMD",
        help="start this and trace it from its first instruction",
    )
    parser.add_argument("-d", "--duration", type=seconds, metavar="SEC", help="end after so many seconds")
    parser.add_argument(
        "--max-lost",
        type=count,
        metavar="N",
        help=f"end with exit code {LOST_EVENTS} when more than N events were lost",
    )
    parser.add_argument("--capacity", type=positive, metavar="N", help=capacity)
    parser.add_argument(
        "--drop", action="store_true", help="when attached, give up all privileges: become who called sudo, or nobody"
    )
    parser.add_argument("--drop-to", metavar="USER", help="the same, and become this user")
    parser.add_argument(
        "--returns",
        choices=RETURN_POLICIES,
        default="auto",
        help="how to see returns of functions: by probes where they leave (sites), or by the kernel's return probes, "
        "which kill a program that throws exceptions or switches stacks; auto takes those only where they cannot",
    )
    parser.add_argument("--explain", action="store_true", help="list what would be attached to, and attach nothing")
    parser.add_argument("--program", action="store_true", help="show the BPF program before it runs")
    more = "; as --program" if shows_program else f"; {verbose}" if verbose else ""
    parser.add_argument(
        *("-v", "--verbose"), action="store_true", help=f"say more: what is traced, what is left out, and why{more}"
    )
    # `usdtkit bundle` collects the texts of programs, and starts no session. With by_heart its sessions are offline.
    parser.set_defaults(texts=None, by_heart=False, lacking=0, chosen=chosen, shows_program=shows_program)
    add_output_options(parser)


def add_ignored_options(
    parser: argparse.ArgumentParser, flags: Mapping[str, str], *, takes_value: bool = False
) -> None:
    """Options of bcc's tool that mean nothing here, each with the reason: they are accepted, and noted."""
    for flag, reason in flags.items():
        parser.add_argument(
            *flag.split(), action=_Ignored, nargs=None if takes_value else 0, const=reason, help=argparse.SUPPRESS
        )


class _Ignored(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        note(f"usdtkit: {option_string} is ignored: {self.const}")


def add_interval_options(parser: argparse.ArgumentParser, *, interval: float | None = None) -> None:
    """-i, -T and -n of what summarises; `follow_intervals` obeys them. `interval`: the seconds without -i."""
    told = "SEC" if interval is None else f"SEC, else every {interval:g}"
    parser.add_argument(
        "-i", "--interval", type=seconds, default=interval, metavar="SEC", help=f"print and begin anew every {told}"
    )
    parser.add_argument("-n", "--intervals", type=positive, metavar="N", help="end after so many intervals")
    parser.add_argument("-T", "--timestamp", action="store_true", help="the time before what is printed")


def add_unit_options(parser: argparse.ArgumentParser, milliseconds: str = "-m") -> None:
    """-u and -m of histograms of time: `options.unit` in nanoseconds, `options.unit_name` what the value is called."""
    group = parser.add_mutually_exclusive_group()
    units = (("-u", "--microseconds", "us", 1_000), (milliseconds, "--milliseconds", "ms", 1_000_000))
    for letter, flag, name, size in units:
        group.add_argument(
            *([letter] if letter else []), flag, action=_Unit, nargs=0, const=(name, size), help=f"buckets in {name}"
        )
    parser.set_defaults(unit=1, unit_name="latency_ns")


class _Unit(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        name, namespace.unit = self.const
        namespace.unit_name = f"latency_{name}"


def add_filter_options(parser: argparse.ArgumentParser, **aliases: str) -> None:
    """--tid, --uid, --comm and --cgroup of what can be narrowed; `filtered` obeys them. `aliases`: tid="-t"."""
    group = parser.add_argument_group("only hits")
    for name, parse, metavar, of in (
        ("tid", pid, "TID", "of this thread"),
        ("uid", user, "USER", "of processes of this user, a number or a name"),
        ("comm", str, "NAME", "of threads of this name, or of names like it: 'java*'"),
        ("cgroup", str, "CGROUP", "in this cgroup and those below it: a path, a name, or a container's id"),
    ):
        flags = [f"--{name}", *([aliases[name]] if name in aliases else [])]
        group.add_argument(*flags, dest=name, type=parse, action="append", metavar=metavar, help=f"{of} (repeatable)")
