"""What each integration has wrapped in this process, and why it has wrapped nothing of a library.

Input: what the integrations report when they are installed, and when a library is imported. Output: one `Engagement` a
library, which says whether probes can fire at all before anybody asks why none does. Other processes read the same in
the memory of this one (`usdtkit.reports`), so `usdtkit list -v` and `usdtkit doctor PROVIDER` show it. The
application's log gets a line for each library that is there and of which nothing is wrapped; with USDTKIT_VERBOSE=1
standard error gets one for each library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import NamedTuple

from usdtkit.probes.compiled import report
from usdtkit.probes.drops import warn

__all__ = ["Engagement", "engaged", "engagements", "not_engaged", "say_waiting", "waits"]

VERBOSE = "USDTKIT_VERBOSE"
_LONGEST = 4096  # bytes of one engagement in the report
_WAITS = "not imported yet"


class Engagement(NamedTuple):
    """One library under one integration."""

    integration: str
    """The name after `--with`."""
    library: str
    """The module of the library, such as "psycopg"."""
    wrapped: tuple[str, ...]
    """What has probes, as "Cursor.execute". Empty if nothing has."""
    reason: str
    """Why nothing has probes, or an empty string."""

    def __str__(self) -> str:
        if not self.wrapped:
            return f"{self.integration}: nothing of {self.library} has probes: {self.reason}"
        more = f" ({self.reason})" if self.reason else ""
        return f"{self.integration}: {self.library}: {', '.join(self.wrapped)}{more}"


_engagements: dict[tuple[str, str], Engagement] = {}


def engaged(integration: str, library: str, wrapped: Iterable[str]) -> None:
    """Record that these functions of a library have probes from now on, besides those recorded before.

    None at all means that the library has no function that the integration knows; the log says so.
    """
    before = _engagements.get((integration, library))
    names = tuple(dict.fromkeys((*(before.wrapped if before else ()), *wrapped)))
    reason = "" if names else "none of the functions that usdtkit knows is in it"
    engagement = Engagement(integration, library, names, reason)
    _record(engagement)
    if not names:
        warn(str(engagement))


def not_engaged(integration: str, library: str, reason: str) -> None:
    """Record why nothing, or nothing more, of a library has probes."""
    before = _engagements.get((integration, library))
    _record(Engagement(integration, library, before.wrapped if before else (), reason))


def waits(integration: str, library: str) -> None:
    """Record that the library will be wrapped when the program imports it."""
    if (integration, library) not in _engagements:
        not_engaged(integration, library, _WAITS)


def say_waiting() -> None:
    """With USDTKIT_VERBOSE=1, write a line for each integration that still waits for imports."""
    waiting: dict[str, list[str]] = {}
    for integration, library, wrapped, reason in _engagements.values():
        if reason == _WAITS and not wrapped:
            waiting.setdefault(integration, []).append(library)
    for integration, libraries in waiting.items():
        _say(f"{integration}: waits for the program to import {', '.join(libraries)}")


def engagements() -> list[Engagement]:
    """Return the engagements of this process, in the order in which the libraries were first reported."""
    return list(_engagements.values())


def _record(engagement: Engagement) -> None:
    integration, library, wrapped, reason = engagement
    if _engagements.get((integration, library)) == engagement:
        return
    _engagements[integration, library] = engagement
    report("\0".join((integration, library, reason, *wrapped)).encode("utf-8", "replace")[:_LONGEST])
    if reason != _WAITS:
        _say(str(engagement))


def _say(line: str) -> None:
    if os.environ.get(VERBOSE, "") not in ("", "0") and sys.stderr is not None:
        try:
            sys.stderr.write(f"usdtkit: {line}\n")
        except (OSError, ValueError):
            return  # there is nowhere to write it
