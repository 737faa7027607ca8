"""Show PAM calls: who logs in to what, with which result, and how long each step takes.

Traces pam_start, pam_authenticate, pam_acct_mgmt, pam_setcred, pam_chauthtok, pam_open_session, pam_close_session and
pam_end in the system's libpam, or with -p in the one that the process maps. Service and user come from pam_start (and
from a later change of the user) and are shown with every call on the same handle; "?" where the handle is older than
the trace. Passwords and other text of the conversation are never read.

examples:
  usdtkit pamtrace
  usdtkit pamtrace -p 1234 --json
"""

import argparse

from usdtkit.cli.arguments import add_session_options
from usdtkit.cli.run import follow, new_session
from usdtkit.output.report import COMM, LATENCY_MS, PID, TIME, Column
from usdtkit.providers import pam

TOPIC = "names, logins and secrets"

COLUMNS = [
    *(TIME, PID, COMM, LATENCY_MS),
    *(Column("CALL", "call", 17), Column("RESULT", "result", 20), Column("SERVICE", "service", 12)),
    Column("USER", "user", 0),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit pamtrace`."""
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    with new_session(options) as session:
        pam.calls(session).emit()
        return follow(session, options, "pamtrace", COLUMNS, describe=pam.Handles().describe)
