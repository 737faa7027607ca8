"""The ways to read a session: iteration, also asynchronous, batches of columns, intervals, and an event loop's `poll`.

Input: a `running` program, and a `waiting` that says when there is something to do. Output: events and columns.
`Session` inherits from `Reading`, and starts when it is read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from usdtkit.errors import UsageError
from usdtkit.trace.blueprint import Blueprint
from usdtkit.trace.events import Columns
from usdtkit.trace.waiting import Waiter

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from usdtkit.trace.running import Running

HOUR_S = 3600.0  # poll(2) counts milliseconds in an int
Row = TypeVar("Row")


class Reading:
    """A session as something that is read. Reading starts it; it ends when `stop` is called, the duration is over, or
    all of the traced processes have ended. The events that are still in the buffer then come before the end."""

    _blueprint: Blueprint
    _running: Running | None
    _waiter: Waiter
    _closed: bool

    def start(self) -> None:
        """Load and attach, unless that is done."""
        raise NotImplementedError

    def detach(self) -> None:
        """Remove all probes. Counts and events can be read until `close`."""
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        """Whether everything is detached: events that were sent before may still wait."""
        return self._closed or (self._running is not None and self._running.ended)

    @property
    def received(self) -> int:
        """How many events have been read from the buffer."""
        return 0 if self._running is None else self._running.received

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.drain() for _ in self._rounds())

    async def __aiter__(self) -> AsyncIterator[Any]:
        import asyncio

        self.start()
        loop, ready, descriptor = asyncio.get_running_loop(), asyncio.Event(), self.fileno()
        loop.add_reader(descriptor, ready.set)
        try:
            while True:
                for event in self.drain():
                    yield event
                ready.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(ready.wait(), self._waiter.left())
                if self._closed:  # by whoever took the last event
                    return
                if self._waiter.wait(0):
                    break
                if pause := self._waiter.pause():
                    loop.remove_reader(descriptor)  # which is readable all the time
                    await _pause(loop, self._waiter.early, pause)
                    loop.add_reader(descriptor, ready.set)
        finally:
            loop.remove_reader(descriptor)
        self.detach()
        for event in self.drain():
            yield event

    def events(self, row: type[Row]) -> Events[Row]:
        """The session as something to iterate over, with `for` or `async for`, whose items are objects of the class
        `row`, as every `emit` of the session says by `into=`: that class, or one that inherits from it.

        For type checkers, which do not know what iteration over the session itself gives. UsageError where an action
        sends other events.
        """
        rows = self._blueprint.rows
        if not rows:
            raise UsageError("no source sends events", hint=f"source.emit(into={row.__name__})")
        if not all(declared is not None and issubclass(declared.type, row) for declared in rows):
            raise UsageError(
                f"the session also sends events that are not of type {row.__name__}",
                hint=f"emit(…, into={row.__name__})",
            )
        return Events(self)

    def batches(self) -> Iterator[Columns]:
        """As iteration, for heavy streams: columns of many events at a time, of one type each."""
        for _ in self._rounds():
            yield from self.drain_columns()

    def lists(self) -> Iterator[list[Any]]:
        """As iteration, with the events in lists of those that were read together."""
        for _ in self._rounds():
            self._waiter.resume()
            if self._running is not None:
                yield from self._running.lists()

    def intervals(self, seconds: float | None = None, take: Callable[[Any], object] | None = None) -> Iterator[None]:
        """For sessions that summarise: run as iteration does, and yield every `seconds` seconds and at the end.

        `take` is called with each event as it comes.
        """
        for is_over in self._rounds(seconds):
            for event in self.drain():
                if take is not None:
                    take(event)
            if is_over:
                yield

    def fileno(self) -> int:
        """A descriptor that is readable (select, poll, epoll) when `poll` has something to do; once started."""
        return self._waiter.fileno()

    def poll(self, callback: Callable[[Any], object], *, timeout: float | None = 0.0, budget: int | None = None) -> int:
        """For an event loop of one's own: call `callback` with each event that waits, with `budget` of them at most.

        Where none waits, first wait for one: `timeout` seconds, or with None as long as it takes. Returns how many
        there were; 0 from a session that has `ended` means that there are no more.
        """
        self.start()
        if not self.ended and self._waiter.wait(HOUR_S if timeout is None else timeout):
            self.detach()
        number = 0
        for event in islice(self.drain(), budget):
            number += 1
            callback(event)
        if self._running is not None and self._running.has_left_over:
            self._waiter.leave()
        return number

    def drain(self) -> Iterator[Any]:
        """The events that wait in the buffer now; a fast writer does not make it endless."""
        # Not by one generator within the other: each would cost every event a step.
        return chain.from_iterable(self._parts())

    def _parts(self) -> Iterator[Iterator[Any]]:
        self._waiter.resume()
        if self._running is not None:
            yield from self._running.events()

    def drain_columns(self) -> Iterator[Columns]:
        """As `drain`, in columns."""
        return iter(()) if self._running is None else self._running.columns()

    def stop(self) -> None:
        """End the iteration, after the events that are already there. Safe in signal handlers and other threads."""
        if not self._closed:
            self._waiter.stop()

    def _rounds(self, interval: float | None = None) -> Iterator[bool]:
        """One item each time the buffer may hold events; true when an interval (seconds) is over, and the last time.

        Before the last one everything is detached.
        """
        self.start()
        assert self._running is not None
        due, is_over = None if interval is None else self._running.started_at + interval, False
        while True:
            yield is_over
            if self._closed:  # by whoever took the last event
                return
            if self._waiter.wait(HOUR_S if due is None else max(0.0, due - time.monotonic())):
                break
            self._running.meet_processes()
            self._waiter.gather(HOUR_S if due is None else due - time.monotonic())
            is_over = False
            if interval is not None and due is not None and time.monotonic() >= due:
                due, is_over = due + interval, True
        self.detach()
        yield True


async def _pause(loop: AbstractEventLoop, early: int, seconds: float) -> None:
    """Wait so many seconds, or until the descriptor `early` is readable."""
    import asyncio

    ended = asyncio.Event()
    loop.add_reader(early, ended.set)
    try:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(ended.wait(), seconds)
    finally:
        loop.remove_reader(early)


class Events(Generic[Row]):
    """The events of a session as objects of one class: iterable with `for` and with `async for`. `Session.events`."""

    def __init__(self, session: Reading) -> None:
        self._session = session

    def __iter__(self) -> Iterator[Row]:
        return iter(self._session)

    def __aiter__(self) -> AsyncIterator[Row]:
        return self._session.__aiter__()
