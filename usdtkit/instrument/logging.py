"""Records of the standard logging: logging:record, whatever handlers they go to.

In: logging.Logger.handle, replaced only while somebody traces. Out: logger, level, message, file, function, line of
each record that its logger's level lets through.
"""

from __future__ import annotations

import logging
import threading
from functools import cache, wraps
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("logging")
_record = _provider.probe(
    "record",
    doc="A record that its logger's level lets through.",
    logger="str",
    level="u32",
    message="str",
    file="str",
    function="str",
    line="u32",
)
_formatting = threading.local()


@cache
def install() -> None:
    """Publish the records of all loggers; a second time does nothing."""
    _provider.load()
    watcher.watch(watcher.replaced(logging.Logger, "handle", _traced), _record)


def _traced(handle: Any) -> Any:
    @wraps(handle)
    def traced(logger: logging.Logger, record: logging.LogRecord) -> Any:
        # A record that is made while the message of another is would be the first of many, one within the other.
        if _record.enabled and not getattr(_formatting, "now", False):
            _formatting.now = True
            try:
                _record.lazy(lambda: _values(record))
            finally:
                _formatting.now = False
        return handle(logger, record)

    return traced


def _values(record: logging.LogRecord) -> tuple[object, ...]:
    return record.name, record.levelno, _message(record), record.pathname, record.funcName or "", record.lineno


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 arguments that do not fit: the handler will say so
        return str(record.msg)
