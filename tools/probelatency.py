"""Show how long it takes from one probe to another, as a histogram or one by one.

START and END are LIBRARY:FUNCTION, r:LIBRARY:FUNCTION, PROVIDER:PROBE or u:LIBRARY:PROVIDER:PROBE, in any mix; after a
function's name its signature may follow, to name its parameters. They meet in the same thread, the innermost first, or
by the value of --key: an expression such as arg1, a connection's number, an object's address; in any thread then.

examples:
  usdtkit probelatency postgresql:query__start postgresql:query__done
  usdtkit probelatency shop:order__start shop:order__done --key order_id -m 10      each of 10 ms or more
  usdtkit probelatency 'p:app:submit(struct job *job)' 'p:app:finish(int code, struct job *job)' --key job
"""

import argparse

from usdtkit.cli import run as shared
from usdtkit.cli.arguments import add_filter_options, add_interval_options, add_session_options, add_unit_options
from usdtkit.cli.values import milliseconds
from usdtkit.language.lower import Lowering
from usdtkit.language.parser import parse_expression, parse_trace
from usdtkit.language.select import one
from usdtkit.output.report import COMM, LATENCY_MS, PID, TIME, Column, Report
from usdtkit.trace import Expression, Session, comm, ms
from usdtkit.trace.specs import Resolved

TOPIC = "any function or probe"
COLUMNS = [TIME, PID, COMM, LATENCY_MS, Column("END", "probe", 32)]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit probelatency`."""
    parser.add_argument("start", metavar="START", help="where the time begins")
    parser.add_argument("end", metavar="END", help="where it ends")
    parser.add_argument("-k", "--key", metavar="EXPR", help="they belong together where this is equal")
    parser.add_argument("--end-key", metavar="EXPR", help="the key at END, where it is spelled otherwise there")
    parser.add_argument("-m", "--min-ms", type=milliseconds, metavar="MS", help="show each that takes so long")
    add_unit_options(parser, milliseconds="")
    add_interval_options(parser)
    add_filter_options(parser)
    add_session_options(parser, chosen=True)


def run(options: argparse.Namespace) -> int:
    """Measure until told to stop."""
    with shared.new_session(options) as session:
        (start, start_key), (end, end_key) = (
            _side(session, text, key)
            for text, key in ((options.start, options.key), (options.end, options.end_key or options.key))
        )
        keys = None if start_key is None or end_key is None else (start_key, end_key)
        pair = shared.filtered(session.pair(start, end, key=keys), options)
        if options.min_ms is not None:
            pair.where(pair.latency >= ms(options.min_ms)).emit("latency", comm=comm)
            return shared.follow(session, options, "probelatency", COLUMNS)
        histogram = pair.hist(pair.latency // options.unit)

        def write(report: Report) -> None:
            for found in histogram.delta().values():
                report.distribution(found, options.unit_name)

        return shared.follow_intervals(session, options, "probelatency", (), write)


def _side(session: Session, text: str, key: str | None) -> tuple[Resolved, Expression | None]:
    """Where a side is, and the key there."""
    spec = parse_trace(text)
    found = one(session, spec)
    if key is None:
        return found, None
    lowering = Lowering(key, found.kind, found.arguments, spec.parameters)
    return found, lowering.number(parse_expression(key).value)
