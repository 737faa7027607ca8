"""Event loops: which tasks are created, run and end, how long callbacks take and which code blocks the loop in them.

Input: the loops of asyncio and of uvloop. Output: asyncio:task__create, task__step, task__done, callback, blocked
and lag. `tasks` has the probes, `selector` and `uvloop` find what fires them in the loops of these names.
"""

from __future__ import annotations

from functools import cache

from usdtkit.instrument.asyncio import selector, tasks, uvloop
from usdtkit.instrument.engagement import engaged
from usdtkit.instrument.imports import when_imported

__all__ = ["install"]


@cache
def install() -> None:
    """Publish the probes of this process's event loops. A second call does nothing."""
    tasks.provider.load()
    tasks.blocks.watch()
    selector.install()
    engaged("asyncio", "asyncio", ("BaseEventLoop.create_task", "Handle._run"))
    when_imported("asyncio", "uvloop", uvloop.wrap)
