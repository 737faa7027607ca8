"""The names by which probes show what a program has handed to a library: functions, coroutines, callbacks.

Input: any object of the program, which runs its code when it is asked; so callers ask only while somebody traces, from
within `Probe.lazy` or `ask`. Output: a name for people.
"""

from __future__ import annotations

import functools
from typing import Any


def name_of(called: Any) -> str:
    """Return the qualified name of a function, coroutine or class; of anything else, that of its type.

    A functools.partial has the name of its function.
    """
    while isinstance(called, functools.partial):
        called = called.func
    return str(getattr(called, "__qualname__", None) or type(called).__qualname__)
