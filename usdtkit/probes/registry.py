"""The providers of this process by name, and the lock under which probes are declared and loaded.

`provider` enters the providers here. `publishing` and `namesakes` look them up.
"""

from __future__ import annotations

import os
from _thread import RLock  # which threading passes on; to import that takes longer
from weakref import WeakValueDictionary

TYPE_CHECKING = False  # as in usdtkit/__init__.py

if TYPE_CHECKING:
    from collections.abc import Callable

    from usdtkit.probes.provider import Provider

# The providers of the program. Two modules that declare a provider of one name share it. Each interpreter has its own.
providers: WeakValueDictionary[str, Provider] = WeakValueDictionary()
# Those of `usdtkit.instrument`. The program that is instrumented need not know of them, and may use the same names.
ready_made_providers: dict[str, Provider] = {}


# Called with True when somebody begins to record the probes of this process, and with False at the end. The hooks of
# `usdtkit.instrument`, which are set while somebody traces, are set then too.
recording_listeners: list[Callable[[bool], object]] = []


class Turn:
    """Lets one thread of the process declare or load at a time."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.loading = False
        """Whether the thread that holds the lock is loading a file."""


_turn = Turn()


def turn() -> Turn:
    """Return the lock of this process."""
    return _turn


def _renew_turn() -> None:
    global _turn
    _turn = Turn()


# If another thread is loading during a fork, it does not exist in the child, and would never release the lock there.
os.register_at_fork(after_in_child=_renew_turn)


def all_providers() -> tuple[Provider, ...]:
    """Return the providers that are in use, those of `usdtkit.instrument` included."""
    return (*providers.values(), *ready_made_providers.values())
