"""Calls of probes that cannot be fired → one line for each probe in the application's log.

Input: a call that native/probe.c could not fire, with the exception that says why. Output: nothing, or an exception
that interrupts the program itself. Nothing else is ever raised here, because the caller must go on as if nobody traced.
"""

from __future__ import annotations

import sys

from usdtkit.errors import UsdtkitError

TYPE_CHECKING = False  # as in usdtkit/__init__.py

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType
    from typing import Any, TypeVar

    from usdtkit.probes.compiled import Probe

    T = TypeVar("T")

LOGGER = "usdtkit"
# As native/probe.h numbers them.
_MODES = {"raise": 0, "drop": 1, None: 2}
# The probes that the log has a line for.
_reported: set[tuple[str, str]] = set()


def drop_mode(on_error: str | None) -> int:
    """Return the mode for calls that cannot be fired. `on_error` is None if the declaration does not say."""
    return _MODES["raise" if on_error is None and sys.flags.dev_mode else on_error]


def report_drop(probe: Probe[...], error: BaseException) -> BaseException | None:
    """Log once that calls of this probe are not fired. Returns an exception to raise in the caller, or None."""
    if (interrupt := of_the_program(error)) is not None:
        return interrupt
    key = (probe.provider, probe.name)
    if key in _reported:
        return None
    _reported.add(key)
    try:
        warn(
            f"probe {probe.provider}:{probe.name}: a call was not fired, because it is traced and its values do "
            f"not fit: {describe(error)} (Probe.dropped counts such calls; only the first is logged)"
        )
    except (RecursionError, MemoryError):
        _reported.discard(key)  # a later call may have the stack and memory to log it
    return None


def warn(message: str) -> None:
    """Write a line to the application's log. Drops what its handlers raise, unless that interrupts the program."""
    try:
        logging = _logging()
        if logging is not None:
            logging.getLogger(LOGGER).warning("usdtkit: %s", message)
        elif sys.stderr is not None:
            sys.stderr.write(f"usdtkit: {message}\n")
    except (RecursionError, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001 a handler of the log must not stop code that fires a probe
        if (interrupt := of_the_program(error)) is not None:
            raise interrupt from interrupt.__cause__


def _logging() -> Any:
    """Return the module, or None if it cannot be imported any more because the process has no free descriptors."""
    try:
        import logging  # late, because most applications never need it here
    except (ImportError, OSError):
        return None
    return logging


def describe(error: BaseException) -> str:
    """Return the exception as one line, even if its own text cannot be computed."""
    if isinstance(error, UsdtkitError):
        return error.message
    return ask(lambda: f"{type(error).__name__}: {error}", type(error).__name__)


def ask(question: Callable[[], T], default: T) -> T:
    """Return question(), which runs code of the program's; `default` if that raises.

    Exceptions that interrupt the program itself are raised.
    """
    try:
        return question()
    except BaseException as error:  # noqa: BLE001 this code would not have run if nobody traced
        if (interrupt := of_the_program(error)) is not None:
            raise interrupt from interrupt.__cause__
        return default


def of_the_program(error: BaseException | None) -> BaseException | None:
    """Return the exception that interrupts the program itself and only happened to be raised in a probe, or None.

    That is KeyboardInterrupt, and whatever one of the program's signal handlers raises: a time-out, or the SystemExit
    that ends a server.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return error
        if error.__traceback__ is not None and not _code_of_handlers().isdisjoint(_code_of(error)):
            return error
        seen.add(id(error))
        error = error.__cause__  # what an encoder has raised is the cause of our own error
    return None


def _code_of(error: BaseException) -> Iterator[CodeType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame.f_code
        traceback = traceback.tb_next


def _code_of_handlers() -> set[CodeType]:
    signal = sys.modules.get("signal")
    if signal is None:
        return set()  # a program that has not imported it has no handlers, and an import here might fail
    handlers = set()
    for number in range(1, signal.NSIG):
        handler = signal.getsignal(number)
        handler = getattr(handler, "func", handler)  # of a functools.partial
        handler = getattr(handler, "__func__", handler)
        code = getattr(handler, "__code__", None)
        if code is None and callable(handler):
            code = getattr(type(handler).__call__, "__code__", None)
        if code is not None:
            handlers.add(code)
    return handlers
