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
from collections.abc import Sequence

from usdtkit import targets
from usdtkit.cli.arguments import add_filter_options, add_session_options
from usdtkit.cli.run import filtered, follow, new_session
from usdtkit.errors import NotFoundError
from usdtkit.output.report import COMM, PID, TIME, Column
from usdtkit.signatures.readline import CALLBACK_TOO, READLINE
from usdtkit.trace import FunctionSpec, Session, comm, cstr, retval, uretprobe
from usdtkit.trace.specs import Resolved

TOPIC = "names, logins and secrets"
VARIANTS = ("", "-s")

LINE_SIZE = 1024
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
        for where in places(session, options):
            lines = session.source(where).where(retval != 0)
            filtered(lines, options).emit(comm=comm, command=cstr(retval, LINE_SIZE))
        return follow(session, options, "bashreadline", WITH_COMM if options.shared else COLUMNS)


def places(session: Session, options: argparse.Namespace) -> Sequence[FunctionSpec | Resolved]:
    """The returns of the function in each file that returns an entered line."""
    if options.pid and not options.shared:
        best = []
        for functions in targets.defining((READLINE, CALLBACK_TOO), pids=options.pid):
            path = functions[0].path
            wanted = CALLBACK_TOO if "libreadline" in path else READLINE
            if found := [function for function in functions if function.name == wanted]:
                best.append(uretprobe(path, wanted).of(found))
        if best:
            return best
        raise NotFoundError("these processes have no readline in them", hint="usdtkit list -p PID shows what they map")
    if options.shared:
        return [uretprobe(options.shared, CALLBACK_TOO)]
    try:
        session.find_functions("bash", (READLINE,))
    except NotFoundError:
        options.comm = options.comm or ["bash"]
        return [uretprobe("readline", CALLBACK_TOO)]
    return [uretprobe("bash", READLINE)]
