"""Functions, classes and modules → the same ones with a span around each call.

Input: the thing that `Provider.traced` decorates. Output: wrappers that keep its kind and signature (a coroutine
function stays one, and so does a generator). While nobody traces, they cost one more call. They fire through `spans`.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from types import FunctionType, ModuleType
from typing import Any

from usdtkit.errors import UsageError
from usdtkit.probes.spans import UNTRACED, LiveSpan, Span

# The longest name of a span: __start is appended to it.
_MAX_NAME = 56
_MAX_DOC = 1000
_WRAPPED = "__usdtkit_span__"
# co_flags
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200

Values = Callable[[tuple[Any, ...], dict[str, Any]], tuple[object, ...]]


class Decorator:
    """Traces functions as spans of one provider. `define_span` is that method of the provider."""

    def __init__(self, define_span: Callable[..., Span]) -> None:
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


def _wrap(span: Span, function: FunctionType, values: Values | None) -> Any:
    start, done = span.start, span.done

    def live(args: tuple[Any, ...], kwargs: dict[str, Any]) -> LiveSpan:
        try:
            if values is None or not (start.enabled or done.enabled):
                return span()
            return span(*values(args, kwargs))
        except (TypeError, RecursionError, MemoryError):
            # Either the function does not take these arguments, and raises that itself; or stack or memory is short.
            return UNTRACED

    flags = function.__code__.co_flags
    if flags & _COROUTINE:

        @functools.wraps(function)
        async def traced_coroutine(*args: Any, **kwargs: Any) -> Any:
            if not (start.enabled or done.enabled):
                return await function(*args, **kwargs)
            with live(args, kwargs):
                return await function(*args, **kwargs)

        return traced_coroutine
    if flags & _ASYNC_GENERATOR:

        @functools.wraps(function)
        async def traced_async_generator(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            generator = function(*args, **kwargs)
            with live(args, kwargs):
                try:
                    value = await generator.asend(None)
                    while True:
                        try:
                            sent = yield value
                        except GeneratorExit:
                            await generator.aclose()
                            raise
                        except BaseException as error:  # noqa: BLE001 what is thrown in is for the generator
                            value = await generator.athrow(error)
                        else:
                            value = await generator.asend(sent)
                except StopAsyncIteration:
                    return

        return traced_async_generator
    if flags & _GENERATOR:

        @functools.wraps(function)
        def traced_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with live(args, kwargs):
                return (yield from function(*args, **kwargs))

        return traced_generator

    @functools.wraps(function)
    def traced_function(*args: Any, **kwargs: Any) -> Any:
        if not (start.enabled or done.enabled):
            return function(*args, **kwargs)
        with live(args, kwargs):
            return function(*args, **kwargs)

    return traced_function
