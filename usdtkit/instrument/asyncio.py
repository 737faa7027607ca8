"""Event loops: which tasks are created, run and end, how long callbacks take, and how late timers are.

Input: BaseEventLoop.create_task and Handle._run of asyncio, which are replaced while somebody traces. Other loops, such
as uvloop, do not use them. Output: asyncio:task__create, task__step, task__done, callback and lag.
"""

from __future__ import annotations

import asyncio
import time
from functools import cache, wraps
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.probes.declaration import argument
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("asyncio")
_ID = argument("u64", doc="the address of the task")
_LATENCY = argument("u64", unit="ns")
_create = _provider.probe("task__create", doc="A task is created.", task=_ID, name="str", coroutine="str")
_step = _provider.probe(
    "task__step",
    doc="A task has run from one await to the next.",
    task=_ID,
    name="str",
    coroutine="str",
    latency_ns=_LATENCY,
)
_done = _provider.probe("task__done", doc="A task has ended.", task=_ID, name="str", coroutine="str", error="str")
_callback = _provider.probe(
    "callback",
    doc="A callback of the loop, or a step of a task, has run. During latency_ns the loop did nothing else.",
    name=argument("str", doc="name of the task's coroutine, or of the callback"),
    latency_ns=_LATENCY,
)
_lag = _provider.probe(
    "lag", doc="The callback of a timer begins, latency_ns later than it was due.", latency_ns=_LATENCY
)


@cache
def install() -> None:
    """Publish the probes of this process's event loops. A second call does nothing."""
    _provider.load()
    creates = watcher.replaced(asyncio.BaseEventLoop, "create_task", _creating)
    runs = watcher.replaced(asyncio.Handle, "_run", _running)
    watcher.watch(creates, _create, _done)
    watcher.watch(runs, _step, _callback, _lag)


def _creating(create_task: Any) -> Any:
    @wraps(create_task)
    def traced(loop: Any, coroutine: Any, **keywords: Any) -> Any:
        task = create_task(loop, coroutine, **keywords)
        # A task factory of the program may return something that is no task of asyncio.
        _create.lazy(lambda: _described(task))
        if isinstance(task, asyncio.Future):
            task.add_done_callback(_ended)
        return task

    return traced


def _ended(task: Any) -> None:
    _done.lazy(lambda: (*_described(task), _error_of(task)))


def _error_of(task: asyncio.Task[Any]) -> str:
    if task.cancelled():
        return "CancelledError"
    # Not exception(): asyncio would take the exception as retrieved, and no longer report it.
    raised = getattr(task, "_exception", None)
    return "" if raised is None else type(raised).__name__


def _running(run: Any) -> Any:
    @wraps(run)
    def traced(handle: Any) -> Any:
        if isinstance(handle, asyncio.TimerHandle):
            _lag.lazy(lambda: (max(0, int((asyncio.get_running_loop().time() - handle.when()) * 1e9)),))
        callback, began = handle._callback, time.monotonic_ns()
        try:
            return run(handle)
        finally:
            latency = time.monotonic_ns() - began
            # The callback of a step is a method of its task. Other callbacks may be any object of the program.
            owner = ask(lambda: getattr(callback, "__self__", None), None)
            if isinstance(owner, asyncio.Task):
                _step.lazy(lambda: (*_described(owner), latency))
                _callback.lazy(lambda: (_name(owner.get_coro()), latency))
            else:
                _callback.lazy(lambda: (_name(callback), latency))

    return traced


def _described(task: asyncio.Task[Any]) -> tuple[int, str, str]:
    return id(task), task.get_name(), _name(task.get_coro())


def _name(coroutine_or_callback: Any) -> str:
    return str(getattr(coroutine_or_callback, "__qualname__", None) or type(coroutine_or_callback).__qualname__)
