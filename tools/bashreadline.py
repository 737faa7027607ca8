"""Show the commands that are entered in bash, and with -s in all programs that use GNU readline.

Traces what returns the entered line: readline in bash, which has its own copy of the library, and in libreadline the
function behind both of its interfaces, so that psql and gdb are seen as well as Python's prompt. Where bash uses the
library, that is traced for it. People type secrets too: treat the output accordingly.

examples:
  usdtkit bashreadline
  usdtkit bashreadline -p 1234
  usdtkit bashreadline -s                       psql, gdb, python3 … with libreadline
  usdtkit bashreadline -s /opt/lib/libreadline.so.8
"""

import argparse

from usdtkit.cli.arguments import add_filter_options, add_session_options
from usdtkit.cli.run import follow, narrow, new_session
from usdtkit.output.report import COMM, PID, TIME, Column
from usdtkit.providers import readline

TOPIC = "names, logins and secrets"
VARIANTS = ("", "-s")

COLUMNS = [TIME, PID, Column("COMMAND", "command", 0)]
WITH_COMM = [TIME, PID, COMM, Column("COMMAND", "command", 0)]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit bashreadline`."""
    parser.add_argument(
        *("-s", "--shared"),
        nargs="?",
        const="readline",
        metavar="LIB",
        help="programs that use libreadline, or this file, instead of bash",
    )
    add_filter_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    with new_session(options) as session:
        narrow(session, options)
        readline.lines(session, options.shared).emit()
        return follow(session, options, "bashreadline", WITH_COMM if options.shared else COLUMNS)
