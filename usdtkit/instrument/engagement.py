"""What each integration has wrapped in this process, and why it has wrapped nothing of a library.

Input: what the integrations report when they are installed, and when a library is imported. Output: one `Engagement` a
library, which says whether probes can fire at all before anybody asks why none does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Engagement", "engaged", "engagements", "not_engaged", "waits"]


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


_engagements: dict[tuple[str, str], Engagement] = {}


def engaged(integration: str, library: str, wrapped: Iterable[str]) -> None:
    """Record that these functions of a library have probes from now on, besides those recorded before.

    None at all means that the library has no function that the integration knows, and is recorded as such.
    """
    before = _engagements.get((integration, library))
    names = tuple(dict.fromkeys((*(before.wrapped if before else ()), *wrapped)))
    reason = "" if names else "none of the functions that usdtkit knows is in it"
    _engagements[integration, library] = Engagement(integration, library, names, reason)


def not_engaged(integration: str, library: str, reason: str) -> None:
    """Record why nothing, or nothing more, of a library has probes."""
    before = _engagements.get((integration, library))
    _engagements[integration, library] = Engagement(integration, library, before.wrapped if before else (), reason)


def waits(integration: str, library: str) -> None:
    """Record that the library will be wrapped when the program imports it."""
    if (integration, library) not in _engagements:
        not_engaged(integration, library, "not imported yet")


def engagements() -> list[Engagement]:
    """Return the engagements of this process, in the order in which the libraries were first reported."""
    return list(_engagements.values())
