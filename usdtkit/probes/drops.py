"""Calls of probes that cannot be fired → one line a probe in the application's log, and what has to reach it still.

In: what native/probe.c could not fire, with the exception that says why. Out: nothing, or an exception that is the
program's own. Nothing here raises anything else: whoever fires a probe goes on as if nobody traced it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from usdtkit.errors import UsdtkitError

if TYPE_CHECKING:
    from types import CodeType

    from usdtkit.probes.provider import Probe

T = TypeVar("T")
LOGGER = "usdtkit"
_HOW = {"raise": 0, "drop": 1, None: 2}
# Of these probes the log has its line.
_told: set[tuple[str, str]] = set()


def how_to_drop(on_error: str | None) -> int:
    """What native/probe.c has to do with a call that cannot be fired; None: the declaration does not say."""
    return _HOW["raise" if on_error is None and sys.flags.dev_mode else on_error]


def complain(probe: Probe[...], error: BaseException) -> BaseException | None:
    """Tell once that calls of this probe are not fired. Returns the exception that is to be raised in the caller."""
    if (own := of_the_program(error)) is not None:
        return own
    key = (probe.provider, probe.name)
    if key in _told:
        return None
    _told.add(key)
    try:
        warn(
            f"probe {probe.provider}:{probe.name}: a call is not fired, because somebody traces it and its values do "
            f"not fit: {describe(error)} (Probe.dropped counts such calls, and no further one is logged)"
        )
    except (RecursionError, MemoryError):
        _told.discard(key)  # another time there may be room to tell
    return None


def warn(message: str) -> None:
    """Write a line to the application's log. What its handlers raise stays here, but for what is the program's own."""
    try:
        logging = _logging()
        if logging is not None:
            logging.getLogger(LOGGER).warning("usdtkit: %s", message)
        elif sys.stderr is not None:
            sys.stderr.write(f"usdtkit: {message}\n")
    except (RecursionError, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001 no handler of the log may end whoever fires a probe
        if (own := of_the_program(error)) is not None:
            raise own from own.__cause__


def _logging() -> Any:
    """The module; None where this process can open no file any more, and has not imported it."""
    try:
        import logging  # an application whose calls all fit does not wait for it
    except (ImportError, OSError):
        return None
    return logging


def describe(error: BaseException) -> str:
    """The exception in one line, also where it cannot say what it is."""
    if isinstance(error, UsdtkitError):
        return error.message
    return ask(lambda: f"{type(error).__name__}: {error}", type(error).__name__)


def ask(question: Callable[[], T], otherwise: T) -> T:
    """What an object of the program's answers; `otherwise` where it raises. What is the program's own goes on to it."""
    try:
        return question()
    except BaseException as error:  # noqa: BLE001 nobody would have asked, had nobody traced
        if (own := of_the_program(error)) is not None:
            raise own from own.__cause__
        return otherwise


def of_the_program(error: BaseException | None) -> BaseException | None:
    """The exception that interrupts the program itself, and only happened to be raised in the midst of a probe's call.

    That is KeyboardInterrupt, and whatever one of the program's signal handlers raises: a time-out, or the SystemExit
    by which a server ends. Else None.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return error
        if error.__traceback__ is not None and not _code_of_handlers().isdisjoint(_code_of(error)):
            return error
        seen.add(id(error))
        error = error.__cause__  # an error of an encoder's is the cause of ours
    return None


def _code_of(error: BaseException) -> Iterator[CodeType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame.f_code
        traceback = traceback.tb_next


def _code_of_handlers() -> set[CodeType]:
    signal = sys.modules.get("signal")
    if signal is None:
        return set()  # who has not imported it has no handler; to import it here may fail
    found = set()
    for number in range(1, signal.NSIG):
        handler = signal.getsignal(number)
        handler = getattr(handler, "func", handler)  # of a functools.partial
        handler = getattr(handler, "__func__", handler)
        code = getattr(handler, "__code__", None)
        if code is None and callable(handler):
            code = getattr(type(handler).__call__, "__code__", None)
        if code is not None:
            found.add(code)
    return found
