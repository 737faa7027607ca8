"""Print every hit of a probe or function, with its arguments by name or in a format, where a condition holds.

A SPEC is  TARGET[(SIGNATURE)] [(CONDITION)] ["FORMAT", VALUE, …]  in the language of bcc's trace. A TARGET is
  PROVIDER:PROBE           a USDT probe, in provider files and running processes (or those of -p); globs are allowed
  u:LIBRARY:PROVIDER:PROBE a USDT probe in this file, command or library; PROVIDER may be left out
  LIBRARY:FUNCTION         a function's entry; LIBRARY is a path, a command or a short name such as c
  r:LIBRARY:FUNCTION       a function's return, with its return value
docs/language.md describes the whole language.

examples:
  usdtkit trace shop:order__start
  usdtkit trace 'shop:*' -p 1234 --json
  usdtkit trace 'shop:*' --tree
  usdtkit trace 'r:bash:readline "%s", retval'
  usdtkit trace 'p:c:open(char *path, int flags) (flags & 1) "%s", path' -U
  usdtkit trace 'r:c:read(int fd) ((int)retval < 0) "read %d: %d after %u ns", $entry(fd), retval, $latency'
"""

import os

from usdtkit.cli.arguments import Spelling, StackOptions
from usdtkit.cli.options import option
from usdtkit.cli.values import pages, positive
from usdtkit.errors import UsageError
from usdtkit.language import trees
from usdtkit.language.hooks import Messages, Setup
from usdtkit.language.rows import MessageRows
from usdtkit.records import replace
from usdtkit.results import COMM, PID, TID, TIME, Column, Rows
from usdtkit.results.columns import seconds_column
from usdtkit.trace import Expression, Session, comm, cpu, pid, ustack

TOPIC = "any function or probe"
SCHEMA_VERSION = 2
SPELLING = Spelling(
    chosen=True,
    shows_program=True,
    filters={"tid": "-L", "cgroup": "--cgroup-path"},
    ignored={"-K --kernel-stack": "kernel functions are not traced here"},
    ignored_with_value={
        "-s --sym_file_list": "symbols are found without it",
        "-I --include": "types are known, or not needed",
    },
)
CPU = Column("cpu", "CPU", "count", 3, "the processor, with -C", optional=True)
STACK = Column("stack", "", "stack", 0, "the frames, innermost first, with -U", offsets="table", optional=True)
PROBE = Column("probe", "PROBE", "string", 24, "PROVIDER:PROBE, or the function", role="name")
ARGUMENTS = Column("arguments", type="object", meaning="the values by name; with a format, by their expressions")
TEXT = Column("text", "ARGUMENTS", show=str, table_only=True, meaning="the message, or the arguments by name")
MESSAGE = Column("message", meaning="the format with its values, where the spec has one", optional=True)
THREAD = replace(TID, heading="")
HITS = (
    *(TIME, CPU, PID, THREAD, COMM, PROBE),
    *(TEXT, STACK, ARGUMENTS),
    MESSAGE,
    Column("count", type="count", meaning="with -A: how many events were equal", optional=True),
)
SPANS = (TIME, PID, COMM, *trees.COLUMNS, replace(TEXT, heading="SPAN"), replace(PROBE, heading=""), THREAD, ARGUMENTS)
COLUMNS = (*HITS, *trees.COLUMNS)


class Options(StackOptions):
    """Options of `usdtkit trace`."""

    specs: tuple[str, ...] = option(dest="spec", nargs="+", metavar="SPEC", help="what to trace")
    string_size: int = option(
        *("-Z", "--string-size"),
        type=int,
        default=128,
        metavar="N",
        help="read N bytes of a string (128)",
        session="string_size",
    )
    max_events: int | None = option(
        "-M", "--max-events", type=positive, default=None, metavar="N", help="stop after N events"
    )
    timestamp: bool = option(
        *("-t", "--timestamp"), default=False, help="show the seconds since the start in place of the time"
    )
    unix: bool = option("-u", "--unix-timestamp", default=False, help="with -t, show the seconds since 1970")
    time: bool = option("-T", "--time", default=False, help="show the time of day (the default)")
    cpu: bool = option("-C", "--print_cpu", default=False, help="show the processor")
    name: str | None = option(
        "-n", "--name", default=None, metavar="NAME", help="only threads whose name contains NAME"
    )
    containing: str = option("-f", "--msg-filter", default="", metavar="TEXT", help="only messages that contain TEXT")
    compare_bytes: bool = option("-B", "--bin_cmp", default=False, help='STRCMP("{0x6c, 0}", x) compares bytes')
    user_stack: bool = option("-U", "--user-stack", default=False, help="show the calls that led there")
    addresses: bool = option("-a", "--address", default=False, help="with -U, show addresses")
    aggregate: bool = option(
        "-A", "--aggregate", default=False, help="with -M, show equal events once, with their count"
    )
    tree: bool = option(
        "--tree", default=False, help="show spans, with their latencies, as trees, each as soon as it is complete"
    )
    include_self: bool = option("-S", "--include-self", default=False, help="also show what this tracer itself does")
    ring_size: int | None = option(
        *("-b", "--buffer-pages"),
        type=pages,
        default=None,
        metavar="N",
        help="use N pages for the ring buffer",
        session="ring_size",
    )


def trace(session: Session, options: Options) -> Rows:
    """A row for each hit for which the condition of its spec holds."""
    if options.aggregate and not options.max_events:
        raise UsageError("-A needs a number of events", hint="-A -M 1000")
    if options.tree and (options.aggregate or options.user_stack):
        raise UsageError(f"--tree shows spans, which {'-A' if options.aggregate else '-U'} does not go with")
    if options.name is not None:
        session.narrow(comm.contains(options.name))
    if not options.include_self:
        session.narrow(pid != os.getpid())
    extra: dict[str, Expression] = {"cpu": cpu} if options.cpu else {}
    extra |= {"stack": ustack} if options.user_stack else {}
    messages = Messages(Setup(session, options.string_size, options.compare_bytes), extra)
    for spec in options.specs:
        messages.add(spec)
    rows = MessageRows(messages, options.containing, options.max_events, options.aggregate, options.frames)
    if options.tree and not messages.carry(trees.START):
        raise UsageError("--tree needs the starts of spans", hint="usdtkit trace --tree 'PROVIDER:*', without a format")
    time = seconds_column(unix=options.unix) if options.timestamp else TIME
    if options.tree:
        return trees.TreeRows(Rows(session, (), rows.describe), [time, *SPANS[1:]])
    left_out = {name for name, shown in (("cpu", options.cpu), ("stack", options.user_stack)) if not shown}
    made = {"text": messages.text, "arguments": messages.arguments, "message": messages.message}
    # Columns tell all where each hit has a row, and each row has the same values.
    is_plain = not (options.containing or options.max_events or messages.have_formats is None)
    if is_plain:
        left_out |= {"count"} if messages.have_formats else {"count", "message"}
    columns = [replace(column, of=made.get(column.name)) for column in (time, *HITS[1:]) if column.name not in left_out]
    if options.addresses:
        columns = [replace(column, addresses=True) if column.name == STACK.name else column for column in columns]
    return Rows(session, columns, None if is_plain else rows.describe, rest=rows.rest)
