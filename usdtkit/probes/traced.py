"""Functions, classes and modules → the same, with a span around each call.

Input: what `Provider.traced` decorates. Output: wrappers that keep kind and signature (a coroutine function stays one,
a generator too), and cost one more call while nobody traces. Fires through `spans`.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from usdtkit.errors import UsageError
from usdtkit.probes.spans import UNTRACED, LiveSpan, Span, define

if TYPE_CHECKING:
    from usdtkit.probes.provider import Provider

# __start has to fit behind it.
_MAX_NAME = 56
_MAX_DOC = 1000
_WRAPPED = "__usdtkit_span__"
# co_flags
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200

Values = Callable[[tuple[Any, ...], dict[str, Any]], tuple[object, ...]]


def trace(provider: Provider, thing: Any, name: str | None, arguments: Mapping[str, object]) -> Any:
    """Trace a function, or the public functions of a class or module in place. Raises UsageError."""
    if isinstance(thing, FunctionType):
        return _traced_function(provider, thing, name, arguments)
    if isinstance(thing, (type, ModuleType)):
        if name is not None or arguments:
            raise UsageError(
                f"name and arguments are for one function, not for all of {thing.__name__}",
                hint="decorate the function itself with them",
            )
        return _traced_class(provider, thing) if isinstance(thing, type) else _traced_module(provider, thing)
    raise UsageError(f"{thing!r} cannot be traced", hint="a function written in Python, a class or a module")


def _traced_class(provider: Provider, cls: type) -> type:
    for attribute, value in list(vars(cls).items()):
        if attribute.startswith("_") and attribute != "__call__":
            continue
        if isinstance(value, FunctionType):
            setattr(cls, attribute, _traced_function(provider, value, None, {}))
        elif isinstance(value, (staticmethod, classmethod)) and isinstance(value.__func__, FunctionType):
            setattr(cls, attribute, type(value)(_traced_function(provider, value.__func__, None, {})))
    return cls


def _traced_module(provider: Provider, module: ModuleType) -> ModuleType:
    """What is defined in it: what it imports is not its own."""
    for attribute, value in list(vars(module).items()):
        if attribute.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, FunctionType):
            setattr(module, attribute, _traced_function(provider, value, None, {}))
        elif isinstance(value, type):
            _traced_class(provider, value)
    return module


def _traced_function(
    provider: Provider, function: FunctionType, name: str | None, arguments: Mapping[str, object]
) -> Any:
    if hasattr(function, _WRAPPED):
        return function  # a class that is traced with its module, a method with its class
    origin = f"{function.__module__}.{function.__qualname__}"
    values = _values_of(function, arguments) if arguments else None
    span = define(provider, name or _free_name(provider, function, origin), arguments, origin[:_MAX_DOC])
    wrapper = _wrap(span, function, values)
    setattr(wrapper, _WRAPPED, span)
    return wrapper


def _free_name(provider: Provider, function: FunctionType, origin: str) -> str:
    """The function's qualified name as a probe can have it; two that would be the same get a number."""
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
    # By what it is called: a module that is loaded again has the same functions.
    while not provider.keep_traced(name, origin):
        number += 1
        suffix = f"_{number}"
        name = f"{plain[: _MAX_NAME - len(suffix)]}{suffix}"
    return name


def _values_of(function: FunctionType, arguments: Mapping[str, object]) -> Values:
    """Read named parameters out of a call, as Python itself would bind them."""
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
            # The function does not take this call, and says so itself; or there is room for the function and no more.
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
                        except BaseException as error:  # noqa: BLE001 whatever was thrown in is the generator's
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
