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
from collections.abc import Mapping
from typing import Any

from usdtkit.cli.arguments import add_session_options
from usdtkit.cli.run import follow, new_session
from usdtkit.output.report import COMM, LATENCY_MS, PID, TIME, Column
from usdtkit.signatures.pam import PAM_USER, RESULTS
from usdtkit.trace import arg, comm, cstr, deref, retval, uprobe

TOPIC = "names, logins and secrets"

CALLS = (
    *("pam_authenticate", "pam_acct_mgmt", "pam_setcred", "pam_chauthtok"),
    *("pam_open_session", "pam_close_session", "pam_end"),
)
NAME_SIZE = 64
MAX_HANDLES = 10_000
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
        names = {"service": cstr(arg(1), NAME_SIZE), "user": cstr(arg(2), NAME_SIZE)}
        starts = session.pair(uprobe("pam", "pam_start"), keep={**names, "result": arg(4)})
        handle = deref(starts.kept("result"))
        starts.emit("latency", "service", "user", handle=handle, comm=comm, returned=retval.cast("i32"))
        calls = session.pair(uprobe("pam", *CALLS), keep={"handle": arg(1)})
        calls.emit("latency", "handle", comm=comm, returned=retval.cast("i32"))
        items = session.uprobe("pam", "pam_set_item")
        items.where(arg(2) == PAM_USER).emit(handle=arg(1), user=cstr(arg(3), NAME_SIZE))
        return follow(session, options, "pamtrace", COLUMNS, describe=Handles().describe)


class Handles:
    """What is known of the PAM handles of each process; of those that nobody ends, the latest."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, int], tuple[Any, Any]] = {}

    def describe(self, event: Any) -> Mapping[str, Any] | None:
        """A row of an event; None for one that only tells us the user."""
        row = event._asdict()
        key = (event.pid, row.pop("handle"))
        service, user = self._names.get(key, (None, None))
        row["call"] = call = row.pop("probe")
        if call == "pam_start":
            service, user = event.service, event.user
        elif call == "pam_set_item":
            user = event.user
        if call == "pam_end":
            self._names.pop(key, None)
        else:
            self._names[key] = service, user
            if len(self._names) > MAX_HANDLES:
                del self._names[next(iter(self._names))]
        if call == "pam_set_item":
            return None
        code = row["returned"]
        result = RESULTS[code] if 0 <= code < len(RESULTS) else f"error {code}"
        return {**row, "result": result, "service": service, "user": user}
