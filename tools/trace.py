"""Print every hit of a probe or function, with its arguments by name or in a format, where a condition holds.

A SPEC is  TARGET[(SIGNATURE)] [(CONDITION)] ["FORMAT", VALUE, …]  in the language of bcc's trace; a TARGET is
  PROVIDER:PROBE           a USDT probe, in provider files and running processes (or those of -p); globs allowed
  u:LIBRARY:PROVIDER:PROBE in this file, command or library; without PROVIDER too
  LIBRARY:FUNCTION         a function's entry; LIBRARY is a path, a command or a short name such as c
  r:LIBRARY:FUNCTION       a function's return, with its return value
docs/language.md has the whole language.

examples:
  usdtkit trace shop:order__start
  usdtkit trace 'shop:*' -p 1234 --json
  usdtkit trace 'r:bash:readline "%s", retval'
  usdtkit trace 'p:c:open(char *path, int flags) (flags & 1) "%s", path' -U
  usdtkit trace 'r:c:read(int fd) ((int)retval < 0) "read %d: %d after %u ns", $entry(fd), retval, $latency'
"""

import argparse
import os

from usdtkit.cli import run as shared
from usdtkit.cli.arguments import add_filter_options, add_ignored_options, add_session_options
from usdtkit.cli.values import positive
from usdtkit.errors import UsageError
from usdtkit.language.hooks import Messages, Setup
from usdtkit.language.rows import Rows, columns, seconds_column
from usdtkit.output.report import TIME
from usdtkit.trace import Expression, Source, comm, cpu, pid, ustack

TOPIC = "any function or probe"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit trace`."""
    parser.add_argument("spec", nargs="+", metavar="SPEC", help="what to trace")
    parser.add_argument("-Z", "--string-size", type=int, default=128, metavar="N", help="bytes of a string (128)")
    parser.add_argument("-M", "--max-events", type=positive, metavar="N", help="end after so many events")
    parser.add_argument("-t", "--timestamp", action="store_true", help="seconds since the start in place of the time")
    parser.add_argument("-u", "--unix-timestamp", action="store_true", help="with -t: seconds since 1970")
    parser.add_argument("-T", "--time", action="store_true", help="the time of day (which is shown in any case)")
    parser.add_argument("-C", "--print_cpu", action="store_true", help="the processor")
    parser.add_argument("-n", "--name", metavar="NAME", help="only threads whose name contains this")
    parser.add_argument("-f", "--msg-filter", default="", metavar="TEXT", help="only messages that contain this")
    parser.add_argument("-B", "--bin_cmp", action="store_true", help='STRCMP("{0x6c, 0}", x) compares bytes')
    parser.add_argument("-U", "--user-stack", action="store_true", help="the calls that led there")
    parser.add_argument("-a", "--address", action="store_true", help="with -U: addresses")
    parser.add_argument("-A", "--aggregate", action="store_true", help="with -M: equal events once, with their count")
    parser.add_argument("-S", "--include-self", action="store_true", help="also what this tracer itself does")
    parser.add_argument("-b", "--buffer-pages", type=positive, metavar="N", help="pages of the ring buffer")
    add_ignored_options(parser, {"-K --kernel-stack": "kernel functions are not traced here"})
    ignored = {"-s --sym_file_list": "symbols are found without", "-I --include": "types are known, or not needed"}
    add_ignored_options(parser, ignored, takes_value=True)
    add_filter_options(parser, tid="-L", cgroup="--cgroup-path")
    add_session_options(parser, chosen=True, shows_program=True)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    if options.aggregate and not options.max_events:
        raise UsageError("-A counts a number of events", hint="-A -M 1000")
    size = {"ring_size": options.buffer_pages * 4096} if options.buffer_pages else {}
    with shared.new_session(options, string_size=options.string_size, **size) as session:
        extra: dict[str, Expression] = {"cpu": cpu} if options.print_cpu else {}
        extra |= {"stack": ustack} if options.user_stack else {}

        def narrow(source: Source) -> Source:
            source = shared.filtered(source, options)
            source = source if options.name is None else source.where(comm.contains(options.name))
            return source if options.include_self else source.where(pid != os.getpid())

        messages = Messages(Setup(session, narrow, options.string_size, options.bin_cmp), extra)
        for spec in options.spec:
            messages.add(spec)
        limits = {"containing": options.msg_filter, "limit": options.max_events, "aggregate": options.aggregate}
        rows = Rows(messages, options.format != "table", addresses=options.address, **limits)
        time = seconds_column(unix=options.unix_timestamp) if options.timestamp else TIME
        shown = columns(time, cpu=options.print_cpu)
        return shared.follow(session, options, "trace", shown, describe=rows.describe, finish=rows.finish)
