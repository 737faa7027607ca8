"""The loops of asyncio itself: their tasks and callbacks have probes while somebody traces.

Input: BaseEventLoop.create_task and Handle._run, which are replaced. Output: calls of `tasks`.
"""

from __future__ import annotations

import asyncio
from functools import wraps
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.instrument.asyncio import tasks


def install() -> None:
    """Let the tasks and callbacks of asyncio's own loops fire."""
    watcher.watch(watcher.replaced(asyncio.BaseEventLoop, "create_task", tasks.creating), tasks.create, tasks.done)
    watcher.watch(watcher.replaced(asyncio.Handle, "_run", _running), *tasks.measured)


def _running(run: Any) -> Any:
    @wraps(run)
    def traced(handle: Any) -> Any:
        if isinstance(handle, asyncio.TimerHandle):
            tasks.lag.lazy(lambda: (max(0, int((asyncio.get_running_loop().time() - handle.when()) * 1e9)),))
        return tasks.run(handle._callback, lambda: run(handle))

    return traced
