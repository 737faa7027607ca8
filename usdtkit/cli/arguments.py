"""What command lines have in common: the options of everything that traces, and kinds of values.

Input: an argparse parser. Output: its options, which `run` obeys.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from usdtkit.model import RETURN_POLICIES
from usdtkit.output.report import note

LOST_EVENTS = 6  # the exit code where more were lost than are allowed


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """--json and --csv."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", dest="format", action="store_const", const="json", help="JSON Lines")
    group.add_argument("--csv", dest="format", action="store_const", const="csv", help="CSV with a heading")
    parser.set_defaults(format="table")


def add_session_options(
    parser: argparse.ArgumentParser,
    *,
    command: Sequence[str] = ("-c", "--command"),
    room: str = "how many entries the tables in the kernel have room for (10,240)",
    verbose: str = "",
    shows_program: bool = False,
    chosen: bool = False,
) -> None:
    """-p, -d and the other options of everything that traces; `new_session` and `follow` obey them.

    `command`: what the option for a command is called. `room`: what the help says of --room.
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
    parser.add_argument("--room", type=positive, metavar="N", help=room)
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


def pid(text: str) -> int:
    """For argparse: a process's number."""
    return _whole(text, "the number of a process")


def pids(text: str) -> list[int]:
    """For argparse: numbers of processes, with commas between them."""
    return [pid(number) for number in text.split(",")]


def user(text: str) -> int:
    """For argparse: a user's number, by number or name."""
    if text.isdecimal() and int(text) < 2**32:
        return int(text)
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"there is no user {text!r}") from None


def count(text: str) -> int:
    """For argparse: a number of things, 0 included."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of events")
    return int(text)


def positive(text: str) -> int:
    """For argparse: a number of things, at least 1."""
    return _whole(text, "a number above 0")


def steps(text: str) -> tuple[int, int, int]:
    """For argparse: the bounds of a linear histogram, and its step."""
    try:
        low, high, step = (int(part, 0) for part in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW:HIGH:STEP, such as 0:4096:512") from None
    return low, high, step


def words(text: str) -> list[str]:
    """For argparse: a command as a shell would split it."""
    import shlex

    try:
        command = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    if not command:
        raise argparse.ArgumentTypeError("an empty command cannot be traced")
    return command


def seconds(text: str) -> float:
    """For argparse: a positive number of seconds."""
    return _amount(text, "seconds", zero=False)


def milliseconds(text: str) -> float:
    """For argparse: a threshold, 0 or more."""
    return _amount(text, "milliseconds", zero=True)


def days(text: str) -> float:
    """For argparse: an age, 0 or more."""
    return _amount(text, "days", zero=True)


def _whole(text: str, what: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return int(text)


def _amount(text: str, unit: str, *, zero: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9 or (value == 0 and not zero):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit}")
    return value
