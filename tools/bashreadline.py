"""Show the commands that are entered in bash or, with -s, in all programs that use GNU readline.

If bash contains its own copy of the library, its function readline is traced, which returns the line. If it uses
libreadline, the library is traced for threads called bash. In libreadline, the function behind both of its interfaces
is traced, so that psql and gdb are seen as well as Python's prompt. People also type secrets: treat the output
accordingly.

examples:
  usdtkit bashreadline
  usdtkit bashreadline -p 1234
  usdtkit bashreadline -s                       psql, gdb, python3 … with libreadline
  usdtkit bashreadline -s /opt/lib/libreadline.so.8
"""

from usdtkit.cli.arguments import Spelling
from usdtkit.cli.options import ToolOptions, option
from usdtkit.providers import readline
from usdtkit.records import replace
from usdtkit.results import COMM, PID, PROBE, TID, TIME, Column, Rows
from usdtkit.trace import Session

TOPIC = "names, logins and secrets"
VARIANTS = ("", "-s")
SPELLING = Spelling(filters={})
COMMAND = Column("command", "COMMAND", "text", meaning="the line as it was entered")
WITH_COMM = (TIME, PID, COMM, COMMAND, replace(TID, heading=""), PROBE)
COLUMNS = tuple(replace(column, heading="") if column is COMM else column for column in WITH_COMM)


class Options(ToolOptions):
    """Options of `usdtkit bashreadline`."""

    shared: str | None = option(
        *("-s", "--shared"),
        nargs="?",
        const="readline",
        default=None,
        metavar="LIB",
        help="trace the programs that use libreadline, or this file, instead of bash",
    )


def trace(session: Session, options: Options) -> Rows:
    """Trace the lines that people enter; a row for each."""
    readline.lines(session, options.shared).emit()
    return Rows(session, WITH_COMM if options.shared else COLUMNS)
