"""Show PAM calls: who logs in to what, with which result, and how long each step takes.

Traces pam_start, pam_authenticate, pam_acct_mgmt, pam_setcred, pam_chauthtok, pam_open_session, pam_close_session and
pam_end in the system's libpam; with -p, in the libpam that the process maps. Service and user are known from pam_start
and from later changes of the user, and every call on the same handle shows them, also in forked processes. They are "?"
if the handle is older than the trace. Passwords, and everything else that PAM and the user say to each other, are never
read.

examples:
  usdtkit pamtrace
  usdtkit pamtrace -p 1234 --json
"""

from usdtkit.cli.options import ToolOptions
from usdtkit.providers import pam
from usdtkit.records import replace
from usdtkit.results import COMM, LATENCY_MS, PID, TID, TIME, Column, Rows
from usdtkit.trace import Session

TOPIC = "names, logins and secrets"
COLUMNS = (
    *(TIME, PID, COMM, LATENCY_MS, replace(TID, heading="")),
    Column("call", "CALL", width=17, meaning="the function that was called"),
    Column("result", "RESULT", width=20, meaning="the name of the value that it returned, such as PAM_AUTH_ERR"),
    Column("service", "SERVICE", "text", 12, "the file in /etc/pam.d, as the program named it to pam_start"),
    Column("user", "USER", "text", meaning="the user, as the program named it to PAM"),
    Column("returned", type="integer", meaning="the value that the function returned"),
)


class Options(ToolOptions):
    """Options of `usdtkit pamtrace`."""


def trace(session: Session, options: Options) -> Rows:
    """Trace the calls of log-ins; a row when one returns."""
    pam.calls(session).emit()
    return Rows(session, COLUMNS, pam.Handles().describe)
