"""Tasks of Celery: published, received, started and done, with their wait, retries and failures.

Input: Celery's own signals, which this connects to while somebody traces, in publishers, workers and each process of a
pool, whatever the pool and the broker; and the function that sends messages of tasks, which has no signal for failures
and is wrapped for good. Output: celery:task__publish__start, task__publish__done, task__received, task__start,
task__done, task__revoked and task__lost, all with the name and id of the task, and never with its arguments.
"""

from __future__ import annotations

import time
from collections import deque
from functools import cache, wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.instrument.imports import when_imported
from usdtkit.probes.declaration import argument
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("celery")
_QUEUE = argument("str", doc="the queue, or the routing key if the queue is not known")
_LATENCY = argument("u64", unit="ns")
_TASK: dict[str, Any] = {"task": "str", "id": "str"}
_publish = _provider.probe("task__publish__start", doc="A task is sent to the broker.", **_TASK, queue=_QUEUE)
_published = _provider.probe(
    "task__publish__done",
    doc="The broker has taken a task, or has failed to.",
    **_TASK,
    queue=_QUEUE,
    latency_ns=_LATENCY,
    error="str",
)
_received = _provider.probe(
    "task__received",
    doc="A worker has got a task from the broker.",
    **_TASK,
    queue=_QUEUE,
    retries="u32",
    eta=argument("str", doc='the time before which it must not run, or ""'),
)
_start = _provider.probe(
    "task__start",
    doc="A task begins to run.",
    **_TASK,
    queue=_QUEUE,
    retries="u32",
    wait_ns=argument("i64", unit="ns", doc="since its worker received it; -1 if nobody traced then"),
)
_done = _provider.probe(
    "task__done",
    doc="A task has ended in a state of Celery's: SUCCESS, FAILURE, RETRY, IGNORED or REJECTED.",
    **_TASK,
    queue=_QUEUE,
    retries="u32",
    latency_ns=_LATENCY,
    state="str",
    error=argument("str", doc="the exception, also of a retry if it has one"),
)
_revoked = _provider.probe(
    "task__revoked",
    doc="A worker does not run a task, or terminates it, because it was revoked or has expired.",
    **_TASK,
    reason=argument("str", doc="expired, revoked or terminated"),
)
_lost = _provider.probe(
    "task__lost",
    doc="A task has no task__done, because its process has exceeded its time limit or has died.",
    **_TASK,
    error="str",
)
_RECEIVED = "_usdtkit_received_ns"
# When each task that runs in this process began, by its id.
_began: dict[str, int] = {}
# Celery says twice that a time limit was exceeded: when it kills the process, and when that has ended.
_lately_lost: deque[str] = deque(maxlen=100)


@cache
def install() -> None:
    """Publish the tasks of this process. A second call does nothing."""
    _provider.load()
    when_imported("celery", "celery.signals", _signals)
    when_imported("celery", "celery.app.amqp", _sender)


def _signals(module: ModuleType) -> list[str]:
    for signal, handler, probes in (
        (module.task_received, _on_received, (_received, _start)),
        (module.task_prerun, _on_start, (_start, _done, _lost)),
        (module.task_postrun, _on_done, (_start, _done, _lost)),
        (module.task_revoked, _on_revoked, (_revoked,)),
        (module.task_failure, _on_failure, (_lost,)),
    ):
        watcher.watch(_connecting(signal, handler), *probes)
    return ["task_received", "task_prerun", "task_postrun", "task_revoked", "task_failure"]


def _connecting(signal: Any, handler: Any) -> Any:
    def turn(on: bool) -> None:
        if on:
            signal.connect(handler, weak=False)
        else:
            signal.disconnect(handler)

    return turn


def _on_received(request: Any, **_: Any) -> None:
    _received.lazy(lambda: (request.name, request.id, _queue_of(request), *_plan_of(request)))
    # It travels to the process of the pool with what the worker knows of the task.
    ask(lambda: request.request_dict.__setitem__(_RECEIVED, time.monotonic_ns()), None)


def _on_start(task: Any, task_id: str, **_: Any) -> None:
    now = time.monotonic_ns()
    received = ask(lambda: getattr(task.request, _RECEIVED, None), None)
    _start.lazy(lambda: (*_context_of(task, task_id), -1 if received is None else now - received))
    _began[task_id] = time.monotonic_ns()


def _on_done(task: Any, task_id: str, retval: Any, state: Any, **_: Any) -> None:
    now = time.monotonic_ns()
    began = _began.pop(task_id, None)
    if began is not None:  # None if it began before somebody traced
        error = _error_of(retval) if state != "SUCCESS" else ""
        _done.lazy(lambda: (*_context_of(task, task_id), now - began, state or "", error))


def _on_revoked(request: Any, terminated: Any = False, expired: Any = False, **_: Any) -> None:
    reason = "expired" if expired else "terminated" if terminated else "revoked"
    _revoked.lazy(lambda: (request.task, request.id, reason))


def _on_failure(sender: Any, task_id: str, exception: Any = None, **_: Any) -> None:
    if type(exception).__name__ in ("TimeLimitExceeded", "WorkerLostError") and task_id not in _lately_lost:
        _lately_lost.append(task_id)
        _began.pop(task_id, None)
        _lost.lazy(lambda: (sender.name, task_id, type(exception).__name__))


def _queue_of(request: Any) -> str:
    return str((request.delivery_info or {}).get("routing_key") or "")


def _plan_of(request: Any) -> tuple[int, str]:
    return request.request_dict.get("retries") or 0, str(request.eta or "")


def _context_of(task: Any, task_id: str) -> tuple[str, str, str, int]:
    return task.name, task_id, _queue_of(task.request), task.request.retries or 0


def _error_of(raised: Any) -> str:
    """Return the name of an exception, or of that which a retry is because of."""
    raised = getattr(raised, "exc", None) or raised if type(raised).__name__ == "Retry" else raised
    return type(raised).__name__ if isinstance(raised, BaseException) else ""


def _sender(module: ModuleType) -> list[str]:
    """Wrap the function that each application makes for itself to send messages of tasks."""
    original = module.AMQP._create_task_sender

    @wraps(original)
    def create(amqp: Any) -> Any:
        return _sending(original(amqp), amqp)

    module.AMQP._create_task_sender = create
    return ["AMQP.send_task_message"]


def _sending(send: Any, amqp: Any) -> Any:
    @wraps(send)
    def traced(producer: Any, name: Any, message: Any, *args: Any, **keywords: Any) -> Any:
        if not (_publish.enabled or _published.enabled):
            return send(producer, name, message, *args, **keywords)
        about = ask(lambda: (name, message.headers["id"], _queue_for(amqp, keywords)), (name, "", ""))
        _publish(*about)
        began, error = time.monotonic_ns(), ""
        try:
            return send(producer, name, message, *args, **keywords)
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            _published(*about, time.monotonic_ns() - began, error)

    return traced


def _queue_for(amqp: Any, options: Any) -> str:
    queue = options.get("queue")
    if queue is None and options.get("exchange") is None:
        queue = amqp.default_queue
    return str(getattr(queue, "name", queue) or options.get("routing_key") or "")
