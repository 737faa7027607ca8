"""Giving up every privilege of this process: nothing in but a user's name, nothing out.

Used by `session` once everything is attached. What a session needs then hangs on its open descriptors.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from usdtkit._ffi import check, lib
from usdtkit.errors import UsageError

NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Identity:
    """A user that is not root; `name` is "" for a number without an account."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of(cls, user: str | None = None) -> Identity:
        """A user by name or number; None is who called sudo, else nobody, else, without root, who runs this."""
        if user is None:
            caller = os.environ.get("SUDO_UID", NOBODY) if os.geteuid() == 0 else str(os.getuid())
            user = NOBODY if caller == "0" else caller
        found = _account(user)
        if found.uid == 0:
            raise UsageError("root keeps its privileges: they cannot be dropped to it", hint="another user: --drop-to")
        return found

    def assume(self) -> None:
        """In a child that will run a program: become this user, with its groups."""
        if os.geteuid() == 0:
            os.initgroups(self.name, self.gid) if self.name else os.setgroups([])
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)


def drop(identity: Identity) -> None:
    """Become this user, without any capability, group or way to get one back (no_new_privs).

    Of the calling thread: other threads keep their capabilities, unless it is root that they lose. PrivilegeError where
    this process may not become that user.
    """
    check(lib.usdtkit_drop_privileges(identity.uid, identity.gid), f"becoming user {identity.name or identity.uid}")


def _account(user: str) -> Identity:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        if user.isdecimal() and int(user) < 2**32 - 1:
            return Identity("", int(user), int(user))
        raise UsageError(f"no user is called {user!r}", hint="getent passwd lists the users") from None
    return Identity(entry.pw_name, entry.pw_uid, entry.pw_gid)
