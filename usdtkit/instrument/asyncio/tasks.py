"""The probes of tasks and callbacks, and what fires them, whichever loop runs the tasks.

Input: tasks as a loop creates them, and callbacks as it runs them. Output: asyncio:task__create, task__step,
task__done, callback, blocked and lag. `selector` and `uvloop` find where tasks and callbacks pass in their loops.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from usdtkit.instrument.asyncio.blocked import Blocks
from usdtkit.instrument.names import name_of
from usdtkit.probes.declaration import argument
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

provider = Provider("asyncio")
_ID = argument("u64", doc="the address of the task")
_LATENCY = argument("u64", unit="ns")
create = provider.probe("task__create", doc="A task is created.", task=_ID, name="str", coroutine="str")
step = provider.probe(
    "task__step",
    doc="A task has run from one await to the next.",
    task=_ID,
    name="str",
    coroutine="str",
    latency_ns=_LATENCY,
)
done = provider.probe("task__done", doc="A task has ended.", task=_ID, name="str", coroutine="str", error="str")
callback = provider.probe(
    "callback",
    doc="A callback of the loop, or a step of a task, has run. During latency_ns the loop did nothing else.",
    name=argument("str", doc="name of the task's coroutine, or of the callback"),
    latency_ns=_LATENCY,
)
lag = provider.probe(
    "lag", doc="The callback of a timer begins, latency_ns later than it was due.", latency_ns=_LATENCY
)
# The names of the methods of a task that are its steps. Those of a task that is written in C have one without a name.
_STEPS = (None, "task_wakeup", "__step", "__wakeup")
_EAGER = hasattr(asyncio, "eager_task_factory")
blocks = Blocks(provider)
measured = (step, callback, lag, blocks.probe)
"""The probes for which callbacks are measured."""


def creating(create_task: Any) -> Any:
    """Return a method `create_task` of a loop that fires for each task."""

    @functools.wraps(create_task)
    def traced(loop: Any, *args: Any, **keywords: Any) -> Any:
        began = time.monotonic_ns()
        task = create_task(loop, *args, **keywords)
        latency = time.monotonic_ns() - began
        coroutine = args[0] if args else keywords.get("coro")
        # Now, because a coroutine that is written in C may have no name any more when it has ended.
        named = ask(lambda: name_of(coroutine), "")
        create.lazy(lambda: (id(task), task.get_name(), named))
        # A task factory of the program may return something that is no task of asyncio.
        if isinstance(task, asyncio.Task):
            if _EAGER and ask(lambda: _has_run(coroutine), False):
                step.lazy(lambda: (id(task), task.get_name(), named, latency))
            ended = functools.partial(_ended, named)
            if task.done():
                ended(task)
            else:
                task.add_done_callback(ended)
        return task

    return traced


def run(called: Any, call: Callable[[], Any]) -> Any:
    """Return call(), and fire for it. `called` is the callback of the program that it is about."""
    # The callback may be any object of the program, which runs code when it is asked for its name.
    task = ask(lambda: _task_of(called), None)
    named = ask(lambda: _name_of_callback(called) if task is None else name_of(task.get_coro()), "")
    thread = threading.get_ident()
    running = blocks.begin(thread)
    try:
        return call()
    finally:
        latency = time.monotonic_ns() - running.began
        blocks.end(thread, running, named, latency)
        callback(named, latency)
        if task is not None:
            step.lazy(lambda: (id(task), task.get_name(), named, latency))


def is_running() -> bool:
    """Return whether this thread is in a callback whose latency is being measured."""
    return blocks.is_running(threading.get_ident())


def _ended(named: str, task: Any) -> None:
    done.lazy(lambda: (id(task), task.get_name(), named, _error_of(task)))


def _has_run(coroutine: Any) -> bool:
    """Return whether a coroutine has begun, which that of a new task has only if the task is an eager one."""
    return bool(coroutine.cr_frame is None or coroutine.cr_suspended)


def _task_of(called: Any) -> asyncio.Task[Any] | None:
    """Return the task that this callback is a step of. Other methods of a task are callbacks like any other."""
    owner = getattr(called, "__self__", None)
    return owner if isinstance(owner, asyncio.Task) and getattr(called, "__name__", None) in _STEPS else None


def _error_of(task: Any) -> str:
    if task.cancelled():
        return "CancelledError"
    # Not exception(): asyncio would take the exception as retrieved, and no longer report it.
    raised = getattr(task, "_exception", None)
    return "" if raised is None else type(raised).__name__


def _name_of_callback(called: Any) -> str:
    owner = getattr(called, "__self__", None)
    if isinstance(owner, asyncio.BaseTransport):
        # What a transport does when its socket is ready is to call its protocol.
        return f"{name_of(called)} ({name_of(type(owner.get_protocol()))})"
    return name_of(called)
