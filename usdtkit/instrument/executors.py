"""Calls that are handed to executors of concurrent.futures: executors:call__submit, call__start and call__done.

Input: ThreadPoolExecutor and ProcessPoolExecutor, and so `loop.run_in_executor` and `asyncio.to_thread`. The classes
of their work items are changed while somebody traces. In a pool of processes the call is submitted in one process and
runs in another, which fires if it has these probes too: if it was forked, or `usdtkit run` started the program. Output:
the kind of pool, the name of the function, how long it waited in the queue, how long it ran, and its exception.
"""

from __future__ import annotations

import time
import weakref
from functools import cache, partial, wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.instrument.imports import when_imported
from usdtkit.instrument.names import name_of
from usdtkit.probes.declaration import argument
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("executors")
_POOL = argument("str", doc='"thread" or "process"')
_WAIT = argument("i64", unit="ns", doc="since it was submitted; -1 if nobody traced then")
_submit = _provider.probe("call__submit", doc="A call is handed to an executor.", pool=_POOL, function="str")
_start = _provider.probe("call__start", doc="A call begins to run.", pool=_POOL, function="str", wait_ns=_WAIT)
_done = _provider.probe(
    "call__done",
    doc="A call has ended.",
    pool=_POOL,
    function="str",
    wait_ns=_WAIT,
    latency_ns=argument("u64", unit="ns"),
    error="str",
)
_SUBMITTED = "_usdtkit_submitted_ns"


@cache
def install() -> None:
    """Publish the calls of the executors of this process. A second call does nothing."""
    _provider.load()
    when_imported("executors", "concurrent.futures.thread", _threads)
    when_imported("executors", "concurrent.futures.process", _processes)


def _threads(module: ModuleType) -> list[str]:
    _watch(module._WorkItem, "__init__", partial(_submitting, "thread"))
    _watch(module._WorkItem, "run", _running)
    return ["ThreadPoolExecutor"]


def _processes(module: ModuleType) -> list[str]:
    _watch(module._WorkItem, "__init__", partial(_submitting, "process"))
    _watch(module._CallItem, "__init__", _handing_over)
    calls = _Calls()
    watcher.watch(partial(calls.turn, module._CallItem), _submit, _start, _done)
    _watch(module, "_sendback_result", calls.ending)
    return ["ProcessPoolExecutor"]


def _watch(place: Any, name: str, make: Any) -> None:
    watcher.watch(watcher.replaced(place, name, make), _submit, _start, _done)


def _submitting(pool: str, initialise: Any) -> Any:
    @wraps(initialise)
    def traced(item: Any, *args: Any, **keywords: Any) -> None:
        initialise(item, *args, **keywords)
        _submit.lazy(lambda: (pool, _function_of(item)))
        setattr(item, _SUBMITTED, time.monotonic_ns())
        if pool == "process":
            _items[id(item.kwargs)] = item

    return traced


def _running(run: Any) -> Any:
    @wraps(run)
    def traced(item: Any, *args: Any) -> None:
        future = item.future
        if future.cancelled():
            run(item, *args)
            return
        function = ask(lambda: _function_of(item), "")
        began = time.monotonic_ns()
        wait = _wait_of(item, began)
        _start("thread", function, wait)
        ended: list[int] = []
        # The first callback, because the time of the others, which run in this thread too, is not the call's.
        ask(lambda: future._done_callbacks.insert(0, lambda _: ended.append(time.monotonic_ns())), None)
        try:
            run(item, *args)
        finally:
            latency = (ended[0] if ended else time.monotonic_ns()) - began
            raised = getattr(future, "_exception", None)
            error = "CancelledError" if future.cancelled() else type(raised).__name__ if raised is not None else ""
            _done("thread", function, wait, latency, error)

    return traced


# A pool of processes sends its workers another object than that which `submit` has made. The two share their keyword
# arguments, and the other one takes the time of the first to the worker: the clock is the same in all processes.

_items: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def _handing_over(initialise: Any) -> Any:
    @wraps(initialise)
    def traced(call: Any, work_id: int, fn: Any, args: Any, kwargs: Any) -> None:
        initialise(call, work_id, fn, args, kwargs)
        item = _items.pop(id(kwargs), None)
        if item is not None and item.kwargs is kwargs:
            setattr(call, _SUBMITTED, getattr(item, _SUBMITTED))

    return traced


class _Calls:
    """The call that a worker process is running: it begins when the worker reads its function."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[str, int, int]] = {}

    def turn(self, cls: Any, on: bool) -> None:
        """Replace the attribute `fn` of the calls, which lies in their own dictionary, or give it back."""
        if on:
            cls.fn = property(self._begin, lambda call, function: call.__dict__.__setitem__("fn", function))
        elif isinstance(vars(cls).get("fn"), property):
            del cls.fn

    def _begin(self, call: Any) -> Any:
        function = call.__dict__["fn"]
        name = ask(lambda: _function_of(call), "")
        began = time.monotonic_ns()
        wait = _wait_of(call, began)
        self._running[call.work_id] = name, wait, began
        _start("process", name, wait)
        return function

    def ending(self, send: Any) -> Any:
        @wraps(send)
        def traced(queue: Any, work_id: int, *args: Any, **keywords: Any) -> Any:
            if (running := self._running.pop(work_id, None)) is not None:
                name, wait, began = running
                raised = getattr(keywords.get("exception"), "exc", None)
                error = "" if raised is None else type(raised).__name__
                _done("process", name, wait, time.monotonic_ns() - began, error)
            return send(queue, work_id, *args, **keywords)

        return traced


def _wait_of(item: Any, now: int) -> int:
    submitted = getattr(item, _SUBMITTED, None)
    return -1 if submitted is None else now - int(submitted)


def _function_of(item: Any) -> str:
    """Return the name of the function of a work item."""
    # From CPython 3.14 on a work item of threads has a task: the function and its arguments.
    function = item.__dict__["fn"] if "fn" in item.__dict__ else item.task[0]
    if isinstance(function, partial) and getattr(function.func, "__name__", "") == "_process_chunk":
        function = function.args[0]  # of `map`
    return name_of(function)
