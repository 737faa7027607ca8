"""What is measured of a call of a library: begin(…) before it, and done(result, error, nanoseconds) after it.

Input: a function, method, coroutine, generator or context manager of a library, and `begin`, which is called with the
same arguments and returns `done`, or None if this call is not to be measured. Output: what to put in its place, of the
same kind. `wrap_all` puts it there while somebody traces one of its probes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, NamedTuple

from usdtkit.instrument import watcher
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import Probe

Done = Callable[[Any, str, int], object]
"""Is called with the result or None, the name of the exception or "", and the nanoseconds of the call."""
Begin = Callable[..., "Done | None"]


class Operation(NamedTuple):
    """What happens around a call, and the probes that it fires."""

    begin: Begin
    probes: tuple[Probe[...], ...]


class Place(NamedTuple):
    """A function of a class or module, and what to measure of it."""

    owner: Any
    name: str
    operation: Operation
    awaits: bool = False
    """It is no coroutine function, and returns something to await all the same."""


def wrap_all(places: Iterable[Place]) -> list[str]:
    """Measure these functions while somebody traces; returns their names. Skips those that the owner has not itself."""
    found: dict[tuple[Any, str], list[Place]] = {}
    for place in places:
        if place.name in vars(place.owner):
            found.setdefault((place.owner, place.name), []).append(place)
    for (owner, name), of_one in found.items():
        operation = together([place.operation for place in of_one])
        make = measured(operation.begin, awaits=of_one[0].awaits)
        watcher.watch(watcher.replaced(owner, name, make), *operation.probes)
    return [f"{owner.__name__}.{name}" if isinstance(owner, type) else name for owner, name in found]


def together(operations: Sequence[Operation]) -> Operation:
    """Return the operations as one."""
    if len(operations) == 1:
        return operations[0]

    def begin(*args: Any, **keywords: Any) -> Done | None:
        begun = [done for operation in operations if (done := operation.begin(*args, **keywords)) is not None]

        def all_done(*said: Any) -> None:
            for done in begun:
                done(*said)

        return all_done if begun else None

    return Operation(begin, tuple(probe for operation in operations for probe in operation.probes))


def measured(begin: Begin, *, awaits: bool = False) -> Callable[[Any], Any]:
    """Return a function that takes an original and returns what stands in for it.

    What `begin` raises is ignored, and the call is not measured then. Of a generator or a context manager the time from
    its first step to its last is measured. Their result is the number of items, or the object of the block.
    """

    def safe(*args: Any, **keywords: Any) -> Done | None:
        return ask(lambda: begin(*args, **keywords), None)

    def make(original: Any) -> Any:
        if awaits or iscoroutinefunction(original):
            return _coroutine(original, safe)
        if isgeneratorfunction(original):
            return _generator(original, safe)
        if isasyncgenfunction(original):
            return _async_generator(original, safe)
        if getattr(original, "__globals__", None) is vars(contextlib):
            is_async = isasyncgenfunction(original.__wrapped__)
            return _async_context(original, safe) if is_async else _context(original, safe)
        return watcher.native.measured(original, safe)

    return make


_inside: ContextVar[tuple[Any, ...]] = ContextVar("_inside", default=())


def outermost(begin: Begin, owner: Callable[[Any], Any] = lambda self: self) -> Begin:
    """Return `begin` for methods that call each other: of those of one owner only the outermost call is measured."""

    def begin_outermost(self: Any, *args: Any, **keywords: Any) -> Done | None:
        mine, outside = owner(self), _inside.get()
        if any(each is mine for each in outside):
            return None
        done = begin(self, *args, **keywords)
        _inside.set((*outside, mine))

        def done_outermost(result: Any, error: str, latency: int) -> None:
            _inside.set(outside)
            if done is not None:
                done(result, error, latency)

        return done_outermost

    return begin_outermost


class _Call:
    """One call in Python, as native/python_wraps.c does it for those that return at once."""

    def __init__(self, done: Done | None) -> None:
        self.done = done
        self.result: Any = None
        self.began = time.monotonic_ns()

    def __enter__(self) -> _Call:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self.done is not None:
            name = "" if error is None or error is GeneratorExit else error.__name__
            self.done(self.result, name, time.monotonic_ns() - self.began)


def _coroutine(original: Any, begin: Begin) -> Any:
    @wraps(original)
    async def traced(*args: Any, **keywords: Any) -> Any:
        with _Call(begin(*args, **keywords)) as call:
            call.result = await original(*args, **keywords)
            return call.result

    return traced


def _generator(original: Any, begin: Begin) -> Any:
    @wraps(original)
    def traced(*args: Any, **keywords: Any) -> Any:
        with _Call(begin(*args, **keywords)) as call:
            items = original(*args, **keywords)
            try:
                call.result = 0
                for item in items:
                    call.result += 1
                    yield item
            finally:
                items.close()

    return traced


def _async_generator(original: Any, begin: Begin) -> Any:
    @wraps(original)
    async def traced(*args: Any, **keywords: Any) -> Any:
        with _Call(begin(*args, **keywords)) as call:
            items = original(*args, **keywords)
            try:
                call.result = 0
                async for item in items:
                    call.result += 1
                    yield item
            finally:
                await items.aclose()

    return traced


def _context(original: Any, begin: Begin) -> Any:
    @wraps(original)
    @contextlib.contextmanager
    def traced(*args: Any, **keywords: Any) -> Any:
        with _Call(begin(*args, **keywords)) as call, original(*args, **keywords) as call.result:
            yield call.result

    return traced


def _async_context(original: Any, begin: Begin) -> Any:
    @wraps(original)
    @contextlib.asynccontextmanager
    async def traced(*args: Any, **keywords: Any) -> Any:
        with _Call(begin(*args, **keywords)) as call:
            async with original(*args, **keywords) as call.result:
                yield call.result

    return traced
