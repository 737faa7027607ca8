"""Records of the standard logging module: logging:record, whatever handlers get them.

Input: logging.Logger.handle, which is replaced while somebody traces. Output: logger, level, message, file, function
and line of each record that passes the level of its logger.
"""

from __future__ import annotations

import logging
import threading
from functools import cache, wraps
from typing import Any

from usdtkit.instrument import redaction, watcher
from usdtkit.instrument.engagement import engaged
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("logging")
_record = _provider.probe(
    "record",
    doc="A record has passed the level of its logger.",
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
    """Publish the records of all loggers. A second call does nothing."""
    _provider.load()
    watcher.watch(watcher.replaced(logging.Logger, "handle", _traced), _record)
    engaged("logging", "logging", ["Logger.handle"])


def _traced(handle: Any) -> Any:
    @wraps(handle)
    def traced(logger: logging.Logger, record: logging.LogRecord) -> Any:
        # The message of a record may log a further record while it is formatted. That one is not fired: it might log
        # again.
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
        return redaction.message(record.getMessage())
    except Exception:  # noqa: BLE001 the handler will report arguments that do not fit
        return str(record.msg)
