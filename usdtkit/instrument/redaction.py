"""What the ready-made probes leave out of the values that they publish, and the one switch that shows more.

Whoever may trace a process reads its probes, so by default no integration publishes what users have typed: paths and
URLs have no query string, queries and commands have no parameters, and there are no headers and no bodies at all.
`USDTKIT_UNREDACTED=1`, `usdtkit run --unredacted` or `show_all()` turn this off for a whole process, and for the Python
programs that it starts. User names and passwords in URLs are never shown.

Input: URLs, paths and parameters of the traced program. Output: the text to publish. The integrations call this only
while somebody traces, and from within `Probe.lazy` or `ask`, because `str` and `repr` run code of the program.
"""

from __future__ import annotations

import os
import re
import reprlib

__all__ = ["show_all"]

VARIABLE = "USDTKIT_UNREDACTED"

# Parameters may be a list of a million rows.
_shortened = reprlib.Repr()
_shortened.maxlist = _shortened.maxtuple = _shortened.maxdict = 12
_shortened.maxstring = _shortened.maxother = 256

_unredacted = os.environ.get(VARIABLE, "") not in ("", "0")
# The user and password of a URL end at the last @ before its path.
_CREDENTIALS = re.compile(r"(?<=//)[^\s/?#]*@")
_HAS_HOST = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?//")


def show_all(show: bool = True) -> None:
    """Let the probes of this process, and of those that it starts from now on, show query strings and parameters.

    `show_all(False)` turns it off again.
    """
    global _unredacted
    _unredacted = show
    os.environ[VARIABLE] = "1" if show else "0"


def url(target: object) -> str:
    """Return a URL, or the path of one, without user and password, query string and fragment.

    It may be text, bytes, or an object whose `str` is a URL.
    """
    text = _text(target)
    if _HAS_HOST.match(text):
        text = _CREDENTIALS.sub("", text, count=1)
    return text if _unredacted else re.split("[?#]", text, maxsplit=1)[0]


def path(decoded: object, query: object = "") -> str:
    """Return the path of a request whose path and query string the server has separated already."""
    shown = _text(decoded)
    return f"{shown}?{_text(query)}" if _unredacted and query else shown


def statement(text: object, parameters: object = None) -> str:
    """Return the text of a query or the name of a command, followed by its parameters if they are to be shown."""
    shown = _text(text)
    return f"{shown} {_shortened.repr(parameters)}" if _unredacted and parameters is not None else shown


def message(text: str) -> str:
    """Return a text that the program itself writes to a log, without the users and passwords of URLs in it."""
    return _CREDENTIALS.sub("", text)


def _text(value: object) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, (bytes, bytearray, memoryview)) else str(value)
