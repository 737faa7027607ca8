"""Drop all privileges of this process, and become another user.

Input: the name or number of a user. Output: none; the process is changed. `running` calls this once everything is
attached: from then on, a session only needs its open descriptors.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from usdtkit._ffi import check, lib
from usdtkit.errors import UsageError

NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class User:
    """A user to run as, who is not root. `name` is "" where the number has no account."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of(cls, user: str | None = None) -> User:
        """The user of this name or number. None is the user who called sudo, or nobody; without root, the present user.

        UsageError of root, and of a user who does not exist.
        """
        if user is None:
            caller = os.environ.get("SUDO_UID", NOBODY) if os.geteuid() == 0 else str(os.getuid())
            user = NOBODY if caller == "0" else caller
        account = _account(user)
        if account.uid == 0:
            raise UsageError("privileges cannot be dropped by becoming root", hint="choose another user: --drop-to")
        return account

    def assume(self) -> None:
        """Become this user, with its groups. For a child process that is about to run a program."""
        if os.geteuid() == 0:
            os.initgroups(self.name, self.gid) if self.name else os.setgroups([])
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)


def drop(user: User) -> None:
    """Become this user without capabilities and groups, and with no way to get any back (no_new_privs).

    The calling thread loses its capabilities; other threads keep theirs, unless they are root's. PrivilegeError where
    this process may not become that user.
    """
    check(lib.usdtkit_drop_privileges(user.uid, user.gid), f"becoming user {user.name or user.uid}")


def _account(user: str) -> User:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        if user.isdecimal() and int(user) < 2**32 - 1:
            return User("", int(user), int(user))
        raise UsageError(f"no user is called {user!r}", hint="getent passwd lists the users") from None
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)
