"""Functions, classes and modules → the same ones with a span around each call.

Input: the thing that `Provider.traced` decorates. Output: wrappers that keep its kind and signature (a coroutine
function stays one, and so does a generator). They are `Traced` objects, written in C (native/probe_traced.c), and call
the function itself while nobody traces.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from types import FunctionType, ModuleType
from typing import Any

from usdtkit.errors import UsageError
from usdtkit.probes.compiled import UNTRACED, LiveSpan, Span, Traced

# The longest name of a span: __start is appended to it.
_MAX_NAME = 56
_MAX_DOC = 1000
_WRAPPED = "__usdtkit_span__"
# co_flags
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200

Values = Callable[[tuple[Any, ...], dict[str, Any]], tuple[object, ...]]


class Decorator:
    """Traces functions as spans of one provider. `define_span` is that method of the provider."""

    def __init__(self, define_span: Callable[..., Span[...]]) -> None:
        self._define_span = define_span
        self._origins: dict[str, str] = {}  # name of a span → module and qualified name of its function

    def trace(self, thing: Any, name: str | None, arguments: Mapping[str, object]) -> Any:
        """Trace a function, or the public functions of a class or module in place. Raises UsageError."""
        if isinstance(thing, FunctionType):
            return self._function(thing, name, arguments)
        if isinstance(thing, (type, ModuleType)):
            if name is not None or arguments:
                raise UsageError(
                    f"name and arguments are for one function, not for all of {thing.__name__}",
                    hint="decorate the function itself with them",
                )
            return self._class(thing) if isinstance(thing, type) else self._module(thing)
        raise UsageError(f"{thing!r} cannot be traced", hint="a function written in Python, a class or a module")

    def _class(self, cls: type) -> type:
        for attribute, value in list(vars(cls).items()):
            if attribute.startswith("_") and attribute != "__call__":
                continue
            if isinstance(value, FunctionType):
                setattr(cls, attribute, self._function(value, None, {}))
            elif isinstance(value, (staticmethod, classmethod)) and isinstance(value.__func__, FunctionType):
                setattr(cls, attribute, type(value)(self._function(value.__func__, None, {})))
        return cls

    def _module(self, module: ModuleType) -> ModuleType:
        """Trace what the module defines itself, and nothing that it imports."""
        for attribute, value in list(vars(module).items()):
            if attribute.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            if isinstance(value, FunctionType):
                setattr(module, attribute, self._function(value, None, {}))
            elif isinstance(value, type):
                self._class(value)
        return module

    def _function(self, function: FunctionType, name: str | None, arguments: Mapping[str, object]) -> Any:
        if hasattr(function, _WRAPPED):
            return function  # it was traced already: a class with its module, or a method with its class
        origin = f"{function.__module__}.{function.__qualname__}"
        values = _values_of(function, arguments) if arguments else None
        span = self._define_span(name or self._free_name(function, origin), arguments, doc=origin[:_MAX_DOC])
        wrapper = _wrap(span, function, values)
        setattr(wrapper, _WRAPPED, span)
        return wrapper

    def _free_name(self, function: FunctionType, origin: str) -> str:
        """Return the function's qualified name as a probe can have it. Two that would be the same get a number."""
        plain = (
            re.sub(
                r"[^A-Za-z0-9_]+", "_", function.__qualname__.replace("<locals>.", "").replace("__call__", "call")
            ).strip("_")
            or "function"
        )
        plain = f"_{plain}" if plain[0].isdigit() else plain
        if len(plain) > _MAX_NAME:
            plain = f"{plain[: _MAX_NAME - 9]}_{zlib.crc32(origin.encode(errors='replace')):08x}"
        name, number = plain, 1
        # The origin is compared, because a module that is loaded again has the same functions, and they keep their
        # names.
        while self._origins.setdefault(name, origin) != origin:
            number += 1
            suffix = f"_{number}"
            name = f"{plain[: _MAX_NAME - len(suffix)]}{suffix}"
        return name


def _values_of(function: FunctionType, arguments: Mapping[str, object]) -> Values:
    """Return a function that reads the named parameters out of a call, as Python itself would bind them."""
    from inspect import signature

    parameters = signature(function)
    for name in arguments:
        if name not in parameters.parameters:
            raise UsageError(
                f"{function.__qualname__} has no parameter {name!r}", hint=f"it has {', '.join(parameters.parameters)}"
            )

    def values(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[object, ...]:
        bound = parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        return tuple([bound.arguments[name] for name in arguments])

    return values


def _wrap(span: Span[...], function: FunctionType, values: Values | None) -> Any:
    wrapper = _wrapper(span, function, values)
    traced = functools.update_wrapper(Traced(function, span, values, wrapper), function)
    # A class makes these class methods by itself only if they are functions written in Python.
    return classmethod(traced) if function.__name__ in ("__init_subclass__", "__class_getitem__") else traced


def _wrapper(span: Span[...], function: FunctionType, values: Values | None) -> Callable[..., Any] | None:
    """Return what is called in place of the function while somebody traces, if the work goes on after a call returns.

    It is of the same kind as the function, so that what it returns is too.
    """

    def live(args: tuple[Any, ...], kwargs: dict[str, Any]) -> LiveSpan:
        try:
            return span() if values is None else span(*values(args, kwargs))
        except (TypeError, RecursionError, MemoryError):
            # Either the function does not take these arguments, and raises that itself; or stack or memory is short.
            return UNTRACED

    flags = function.__code__.co_flags
    if flags & _COROUTINE:

        @functools.wraps(function)
        async def traced_coroutine(*args: Any, **kwargs: Any) -> Any:
            with live(args, kwargs):
                return await function(*args, **kwargs)

        return traced_coroutine
    # What uses a generator is not within its span, which is therefore paused while the generator is not running. Values
    # and exceptions on their way are in `given` and nowhere else, so that they live no longer than without the wrapper,
    # and no exception is being handled while the generator runs.
    if flags & _ASYNC_GENERATOR:

        @functools.wraps(function)
        async def traced_async_generator(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            generator = function(*args, **kwargs)
            given: list[Any] = [None]
            step = generator.asend
            with live(args, kwargs) as work:
                try:
                    while True:
                        given.append(await step(given.pop()))
                        work.pause()
                        try:
                            given.append((yield given.pop()))
                            step = generator.asend
                        except BaseException as error:  # noqa: BLE001 what is thrown in is for the generator
                            given.append(error)
                            step = generator.athrow
                        work.resume()
                        if step == generator.athrow and isinstance(given[-1], GeneratorExit):
                            await generator.aclose()
                            raise given.pop()
                except StopAsyncIteration:
                    return

        return traced_async_generator
    if flags & _GENERATOR:

        @functools.wraps(function)
        def traced_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            generator = function(*args, **kwargs)
            given: list[Any] = [None]
            step: Callable[[Any], Any] = generator.send
            with live(args, kwargs) as work:
                try:
                    while True:
                        given.append(step(given.pop()))
                        work.pause()
                        try:
                            given.append((yield given.pop()))
                            step = generator.send
                        except BaseException as error:  # noqa: BLE001 what is thrown in is for the generator
                            given.append(error)
                            step = generator.throw
                        work.resume()
                        if step == generator.throw and isinstance(given[-1], GeneratorExit):
                            generator.close()
                            raise given.pop()
                except StopIteration as stop:
                    return stop.value

        return traced_generator
    return None
