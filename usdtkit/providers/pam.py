"""PAM, the pluggable authentication modules: a session in, the calls of libpam with service, user and result out.

    from usdtkit import trace
    from usdtkit.providers import pam

    with trace.Session() as session:
        pam.calls(session).emit()
        handles = pam.Handles()
        for event in session:
            row = handles.describe(event)
            if row is not None and row["call"] == "pam_authenticate" and row["user"] == "ada":
                print(row["user"], row["result"])
                break

Passwords, and all else that PAM and the user say to each other, are never read from the process. Uses
`usdtkit.trace`; the names of the functions' arguments are in `usdtkit.signatures.pam`.
"""

from __future__ import annotations

from typing import Any

from usdtkit.trace import Session, Source, Sources, ancestor, arg, cstr, deref, retval, uprobe

CALLS = (
    *("pam_authenticate", "pam_acct_mgmt", "pam_setcred", "pam_chauthtok"),
    *("pam_open_session", "pam_close_session", "pam_end"),
)
NAME_SIZE = 64  # bytes that are read of the name of a service or a user
MAX_HANDLES = 10_000
GENERATIONS = 3  # of processes between the one that began a handle and one that uses it
USER_ITEM = 2  # PAM_USER: the number of the item that pam_set_item changes
# What the functions return, by number, as Linux-PAM's _pam_types.h defines it.
RESULTS = (
    *("PAM_SUCCESS", "PAM_OPEN_ERR", "PAM_SYMBOL_ERR", "PAM_SERVICE_ERR", "PAM_SYSTEM_ERR", "PAM_BUF_ERR"),
    *("PAM_PERM_DENIED", "PAM_AUTH_ERR", "PAM_CRED_INSUFFICIENT", "PAM_AUTHINFO_UNAVAIL", "PAM_USER_UNKNOWN"),
    *("PAM_MAXTRIES", "PAM_NEW_AUTHTOK_REQD", "PAM_ACCT_EXPIRED", "PAM_SESSION_ERR", "PAM_CRED_UNAVAIL"),
    *("PAM_CRED_EXPIRED", "PAM_CRED_ERR", "PAM_NO_MODULE_DATA", "PAM_CONV_ERR", "PAM_AUTHTOK_ERR"),
    *("PAM_AUTHTOK_RECOVERY_ERR", "PAM_AUTHTOK_LOCK_BUSY", "PAM_AUTHTOK_DISABLE_AGING", "PAM_TRY_AGAIN"),
    *("PAM_IGNORE", "PAM_ABORT", "PAM_AUTHTOK_EXPIRED", "PAM_MODULE_UNKNOWN", "PAM_BAD_ITEM", "PAM_CONV_AGAIN"),
    "PAM_INCOMPLETE",
)


def calls(session: Session) -> Sources[Source]:
    """The calls of libpam that make up a log-in, and the changes of a handle's user.

    `emit()` sends what `Handles.describe` needs. The members of the result are, in this order: calls of pam_start,
    whose values are `service`, `user`, `handle`, `comm` and `returned`; calls of the functions in CALLS, with `handle`,
    `comm` and `returned`; and entries of pam_set_item for the user's name, with `handle` and `user`. The latter two
    also have the processes from which theirs was forked, `parent_1` to `parent_3`, or 0. NotFoundError is raised if
    there is no libpam.
    """
    names = {"service": cstr(arg(1), NAME_SIZE), "user": cstr(arg(2), NAME_SIZE)}
    starts = session.pair(uprobe("pam", "pam_start"), keep={**names, "result": arg(4)})
    others = session.pair(uprobe("pam", *CALLS), keep={"handle": arg(1)})
    changes = session.uprobe("pam", "pam_set_item").where(arg(2) == USER_ITEM)
    returned = retval.cast("i32")
    parents = {f"parent_{number}": ancestor(number) for number in range(1, GENERATIONS + 1)}
    return Sources(
        starts.derive("service", "user", "comm", handle=deref(starts.kept("result")), returned=returned),
        others.derive("handle", "comm", returned=returned, **parents),
        changes.derive("handle", user=cstr(arg(3), NAME_SIZE), **parents),
    )


def result_name(code: int) -> str:
    """What a function of libpam returned, by its name in PAM's header."""
    return RESULTS[code] if 0 <= code < len(RESULTS) else f"error {code}"


class Handles:
    """Remembers the service and the user of each PAM handle, so that later calls on the handle can show them.

    pam_start names both, and only for that call. A process that is forked has a copy of each handle at the same
    address. Of handles that are never ended, the latest MAX_HANDLES are remembered.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[int, int], tuple[Any, Any]] = {}

    def describe(self, event: Any) -> dict[str, Any] | None:
        """A call as a row, with `call`, `result`, `service` and `user`; None for a change of the user, which is no row.

        Service and user are None if the handle is older than the trace.
        """
        row: dict[str, Any] = event._asdict()
        handle = row.pop("handle")
        key = (event.pid, handle)
        parents = [row.pop(f"parent_{number}", 0) for number in range(1, GENERATIONS + 1)]
        known = (self._names[pid, handle] for pid in (event.pid, *parents) if (pid, handle) in self._names)
        service, user = next(known, (None, None))
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
        return {**row, "result": result_name(row["returned"]), "service": service, "user": user}
